"""From a config to a ready U-Net: find the checkpoint (or download it), read it, build strictly."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from diffstyle.configs.paths_config import MODEL_PATHS
from diffstyle.diffusion import make_schedule
from diffstyle.errors import UsageError, WorkError
from diffstyle.files import file_hash
from diffstyle.model import DTYPES, EpsOf, Model, ModelConfig
from diffstyle.models.layers import memory_format, to_precision
from diffstyle.zoo.download import fetch
from diffstyle.zoo.entries import Entry, find_entry, load_zoo
from diffstyle.zoo.folders import weights_file
from diffstyle.zoo.hub import fetch_hub, is_hub
from diffstyle.zoo.integrity import recorded, sidecar
from diffstyle.zoo.places import BUNDLED, downloads, root
from diffstyle.zoo.prediction import check_prediction
from diffstyle.zoo.strict import build_strictly
from diffstyle.zoo.weights import read_state, sniff

log = logging.getLogger(__name__)


def load_model(
    config: ModelConfig,
    model_path: Path | str | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    download: bool = True,
) -> Model:
    """The network of ``config`` with its published weights.

    ``model_path`` names a checkpoint file, a diffusers folder or hf:OWNER/NAME on the hub; without it the usual places are
    searched. ``precision`` is what ``pick_precision`` has found. With ``download`` what is published is fetched. Raises
    UsageError or WorkError, one line each.
    """
    path = weights_file(find_checkpoint(config, model_path, download))
    sniff(path)  # before anything reads it whole
    digest = file_hash(path)
    first = recorded(path)
    if first not in (None, digest):
        raise WorkError(f"{path}: changed since its download (sha256 {digest}, then {first}): "
                        f"get it again, or delete {sidecar(path).name} to accept it")  # fmt: skip
    schedule = make_schedule(config.beta_schedule, config.beta_start, config.beta_end, config.timesteps)
    if not schedule(config.timesteps - 1):
        raise UsageError(f"config {config.name}: with these betas nothing is left of the picture at t = {config.timesteps - 1}, "
                         "and pure noise has no inversion")  # fmt: skip
    device = torch.device(device)
    unet = to_precision(build_strictly(config, read_state(path), path), DTYPES[precision])
    unet.to(device).to(memory_format=memory_format(device)).eval().requires_grad_(False)
    check_prediction(unet, config, schedule, device, path)
    if config.prediction != "eps":
        unet = EpsOf(unet, config.prediction, schedule).to(device).eval()
    return Model(unet, config, schedule, device, precision, digest, path)


# ---- where it is -------------------------------------------------------------------------------------------------


def find_checkpoint(config: ModelConfig, model_path: Path | str | None = None, download: bool = True) -> Path:
    """The checkpoint of ``config``: --model_path, the config's own, MODEL_PATHS, pretrained/, torch.hub's cache."""
    named = model_path if model_path is not None else config.checkpoint
    if is_hub(named):
        return fetch_hub(str(named), download)
    if model_path is not None:
        if not Path(model_path).exists():
            raise UsageError(f"--model_path {model_path}: no such file or folder")
        return Path(model_path)
    keys = [config.name, config.category, config.dataset]
    entry = find_entry(load_zoo(), keys)
    if config.checkpoint:
        places = [folder / config.checkpoint for folder in (downloads(), BUNDLED)]
        if entry and config.checkpoint not in {mirror.file for mirror in entry.mirrors}:
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
        first = entry.mirrors[0]
        raise WorkError(f"{downloads() / first.file} is missing: get it with scripts/download.py {entry.name} or from "
                        f"{first.page}, or name a checkpoint with --model_path")  # fmt: skip
    log.info("%s: no checkpoint here, downloading %s (--no_download forbids it)", config.name, entry.title)
    return fetch(entry)


def usual_places(keys: list[str], entry: Entry | None) -> list[Path]:
    """MODEL_PATHS' most specific entry, the known file names in pretrained/, and where the official code puts them."""
    configured = {key.casefold(): root() / value for key, value in MODEL_PATHS.items()}
    places = [configured[key.casefold()] for key in keys if key.casefold() in configured][:1]
    for folder in (downloads(), Path(torch.hub.get_dir()) / "checkpoints"):
        places += [folder / mirror.file for mirror in entry.mirrors] if entry else []
    return list(dict.fromkeys(places))
