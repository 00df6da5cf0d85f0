"""From a config to a ready U-Net: find the checkpoint (or download it), read it, compare it strictly, build."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from diffstyle.configs.paths_config import MODEL_PATHS
from diffstyle.diffusion import linear_schedule
from diffstyle.errors import UsageError, WorkError
from diffstyle.files import file_hash
from diffstyle.model import Model, ModelConfig
from diffstyle.models import build_unet
from diffstyle.models.convert import diffusers_architecture
from diffstyle.models.hspace_unet import HSpaceUNet
from diffstyle.models.layers import to_precision
from diffstyle.models.recognise import recognise
from diffstyle.zoo.download import fetch
from diffstyle.zoo.entries import PRETRAINED, Entry, find_entry, load_zoo, recorded, sidecar
from diffstyle.zoo.weights import read_diffusers_config, read_state, weights_file

log = logging.getLogger(__name__)

REPOSITORY = PRETRAINED.parent


def load_model(
    config: ModelConfig,
    model_path: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    download: bool = True,
) -> Model:
    """The network of ``config`` with its published weights.

    ``model_path`` names a checkpoint file or a diffusers folder; without it the usual places are searched, and with
    ``download`` a published one is fetched. Raises UsageError or WorkError, one line each.
    """
    path = weights_file(find_checkpoint(config, model_path, download))
    digest = file_hash(path)
    first = recorded(path)
    if first not in (None, digest):
        raise WorkError(f"{path}: changed since its download (sha256 {digest}, then {first}): "
                        f"get it again, or delete {sidecar(path).name} to accept it")  # fmt: skip
    unet = build_strictly(config, read_state(path), path)
    device = torch.device(device)
    to_precision(unet, dtype).to(device).to(memory_format=torch.channels_last)
    schedule = linear_schedule(config.beta_start, config.beta_end, config.timesteps)
    return Model(unet.eval().requires_grad_(False), config, schedule, device, dtype, digest, path)


def compile_model(model: Model) -> None:
    """torch.compile both halves of the network, in place; where that does not work a notice says so and nothing changes.

    The first evaluation of a batch size then takes a minute or so more, later ones less.
    """
    unet, size = model.unet, model.config.image_size
    x, t = torch.zeros(1, 3, size, size, device=model.device), torch.zeros(1, device=model.device)
    try:
        for half in ("encode", "decode"):
            setattr(unet, half, torch.compile(getattr(unet, half)))
        with torch.inference_mode():
            unet(x.to(memory_format=torch.channels_last), t)
    except Exception as error:  # no compiler, no Triton, an operator that it does not know ...: no common error
        for half in ("encode", "decode"):
            vars(unet).pop(half, None)
        log.warning("--compile: torch.compile does not work here (%s), running uncompiled", str(error).split("\n")[0][:100])


# ---- where it is -------------------------------------------------------------------------------------------------


def find_checkpoint(config: ModelConfig, model_path: Path | None = None, download: bool = True) -> Path:
    """The checkpoint of ``config``: --model_path, the config's own, MODEL_PATHS, pretrained/, torch.hub's cache."""
    if model_path is not None:
        if not model_path.exists():
            raise UsageError(f"--model_path {model_path}: no such file or folder")
        return model_path
    keys = [config.name, config.category, config.dataset]
    entry = find_entry(load_zoo(), keys)
    if config.checkpoint:
        places = [PRETRAINED / config.checkpoint]
        if entry and config.checkpoint not in {source.file for source in entry.sources}:
            entry = None  # a model of the user's own
    else:
        places = usual_places(keys, entry)
    for place in places:
        if place.exists():
            return place
    if entry is None:
        looked = f"looked for {', '.join(map(str, places))}" if places else "the config names none"
        raise WorkError(f"no checkpoint for {config.name}.yml: {looked}; put it there, or name one with --model_path")
    if not download:
        first = entry.sources[0]
        raise WorkError(f"{PRETRAINED / first.file} is missing: get it with scripts/download.py {entry.name} or from "
                        f"{first.page}, or name a checkpoint with --model_path")  # fmt: skip
    log.info("%s: no checkpoint here, downloading %s (--no_download forbids it)", config.name, entry.title)
    return fetch(entry)


def usual_places(keys: list[str], entry: Entry | None) -> list[Path]:
    """MODEL_PATHS' most specific entry, the known file names in pretrained/, and where the official code puts them."""
    configured = {key.casefold(): REPOSITORY / value for key, value in MODEL_PATHS.items()}
    places = [configured[key.casefold()] for key in keys if key.casefold() in configured][:1]
    for folder in (PRETRAINED, Path(torch.hub.get_dir()) / "checkpoints"):
        places += [folder / source.file for source in entry.sources] if entry else []
    return list(dict.fromkeys(places))


# ---- what it is --------------------------------------------------------------------------------------------------


def build_strictly(config: ModelConfig, state: Mapping[str, Tensor], path: Path) -> HSpaceUNet:
    """The network of ``config`` with the weights of ``state`` in fp32; every key and shape must agree."""
    try:
        with torch.device("meta"):  # nothing is allocated before the shapes are known to agree
            unet = build_unet(config.family, config.image_size, config.architecture)
    except (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise UsageError(f"config {config.name}.yml: no {config.family} network can be built: {error}") from error
    expected = unet.state_dict()
    complaint = first_difference(expected, state)
    if complaint:
        raise WorkError(f"{path}: checkpoint of another architecture: {complaint}; {likeness(config, state)}")
    check_diffusers_config(config, path)
    weights = {key: state[key].detach().to(torch.float32, copy=True) for key in expected}  # leaves the mapped file
    for key, weight in weights.items():
        if not weight.isfinite().all():
            raise WorkError(f"{path}: {key} holds values that are not finite: the file is damaged; get it again")
    unet.load_state_dict(weights, assign=True)
    return unet


def first_difference(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The first key that the network and the file do not share, with both shapes; "" when they agree."""
    for key in [*expected, *(key for key in state if key not in expected)]:
        wanted, found = (tuple(side[key].shape) if key in side else "absent" for side in (expected, state))
        if wanted != found:
            return f"{key} is {found} in the file, {wanted} in the network"
        if not state[key].dtype.is_floating_point:
            return f"{key} is {str(state[key].dtype).removeprefix('torch.')} in the file, not floating point"
    return ""


def likeness(config: ModelConfig, state: Mapping[str, Tensor]) -> str:
    """What the weights look like against what the config says."""
    found = recognise(state, config.image_size)
    if not found:
        return f"the weights are of no known family, {config.name}.yml says {config.family}"
    with torch.device("meta"):
        expected = build_unet(config.family, config.image_size, config.architecture).state_dict()
    says = recognise(expected, config.image_size)
    keys = ["family"] if found["family"] != config.family else [k for k in found if found[k] != says.get(k)]
    theirs, ours = (", ".join(f"{k} {side.get(k)}" for k in keys) for side in (found, says))
    if not keys:
        return "some keys are missing or foreign"
    return f"the weights look like {theirs}, {config.name}.yml says {ours}"


def check_diffusers_config(config: ModelConfig, weights: Path) -> None:
    """A config.json beside the weights says what shapes cannot: which embedding, padding and heads they expect."""
    described = read_diffusers_config(weights)
    if described is None or config.family != "ddpm":
        return
    path = weights.with_name("config.json")
    try:
        size = diffusers_architecture(described)["image_size"]
    except ValueError as error:
        raise WorkError(f"{path}: another network than the DDPM's: {error}") from None
    if size != config.image_size:
        raise WorkError(f"{path}: sample_size is {size}, {config.name}.yml says image_size {config.image_size}")
