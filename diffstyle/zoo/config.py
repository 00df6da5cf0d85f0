"""What a checkpoint is, from a YAML file (ours, or one written for the official code) or from a diffusers folder's own files."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from diffstyle.configs import paths_config
from diffstyle.diffusion import PREDICTIONS, SCHEDULES
from diffstyle.errors import UsageError, WorkError
from diffstyle.model import ModelConfig
from diffstyle.models import FAMILIES
from diffstyle.zoo.bounds import SETTINGS, SIZE, brief, check_architecture, number
from diffstyle.zoo.documents import read_yaml
from diffstyle.zoo.folders import architecture_beside, check_schedule, describe
from diffstyle.zoo.grids import read_grid
from diffstyle.zoo.hub import fetch_hub, is_hub

CONFIG_DIR = Path(paths_config.__file__).resolve().parent
DEFAULT = "avatars.yml"  # the embedded model

# Which network the official code builds for ``type: simple`` is decided by ``data.dataset``: the DDPM reads its sizes from
# the YAML, the ADMs are hard-coded (docs/official.md: the light ADM of ILVR and P2, and ImageNet's).
OFFICIAL_DDPM = ("CelebA_HQ", "LSUN", "CUSTOM")
LIGHT_ADM: dict[str, Any] = {
    "num_channels": 128,
    "num_res_blocks": 1,
    "channel_mult": [1, 1, 2, 2, 4, 4],
    "attention_resolutions": [16],
    "num_head_channels": 64,
}
IMAGENET_ADM: dict[str, Any] = {
    "num_channels": 256,
    "num_res_blocks": 2,
    "channel_mult": [1, 1, 2, 2, 4, 4],
    "attention_resolutions": [32, 16, 8],
    "num_head_channels": 64,
}
OFFICIAL_ADM = {"FFHQ": LIGHT_ADM, "AFHQ": LIGHT_ADM, "MetFACE": LIGHT_ADM, "IMAGENET": IMAGENET_ADM}

# Keys that official YAML files carry and that mean nothing here, or nothing beyond what another key says.
IGNORED_KEYS: dict[str, set[str]] = {
    "data": {"channels", "num_workers", "random_flip", "rescaled", "logit_transform", "uniform_dequantization",
             "gaussian_dequantization"},
    "model": {"var_type", "ema_rate", "ema", "class_cond", "use_fp16", "use_checkpoint"},
    "sampling": {"batch_size", "last_only"},
}  # fmt: skip
KNOWN_KEYS: dict[str, set[str]] = {
    "data": {"dataset", "category", "image_size"},
    "model": {"type"},
    "diffusion": {"beta_schedule", "beta_start", "beta_end", "num_diffusion_timesteps", "prediction"},
    "sampling": set(),
    "checkpoint": set(),
    "settings": set(SETTINGS),
}


def architecture_keys(family: str) -> set[str]:
    """The architecture keys of a config: the network constructor's own parameters."""
    return set(inspect.signature(FAMILIES[family].__init__).parameters) - {"self", "image_size"}


def find_config(name: str | Path) -> Path:
    """The YAML file for ``--config``: a path, or a name (with or without .yml) in configs/."""
    candidates = [Path(name), CONFIG_DIR / name, CONFIG_DIR / f"{name}.yml"]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted(p.name for p in CONFIG_DIR.glob("*.yml"))
    raise UsageError(f"--config {name}: no such file, nor one in configs/{hint(str(name), known)}; there are {', '.join(known)}")


def load_config(name: str | Path, model_path: str | Path | None = None, download: bool = True) -> ModelConfig:
    """What ``name`` describes: a YAML file or its name in configs/, a diffusers folder, or hf:OWNER/NAME on the hub.

    In place of the default, avatars.yml, what diffusers has written beside the weights at ``model_path`` describes them.
    Raises UsageError naming the line or the key that is wrong; WorkError where a folder or the hub fails.
    """
    if str(name) == DEFAULT:
        name = beside(model_path) or DEFAULT
    if is_hub(name):
        return replace(describe(fetch_hub(str(name), download)), checkpoint=str(name))
    if Path(name).is_dir():
        return describe(Path(name))
    path = find_config(name)
    try:
        root, raw = read_yaml(path)
    except WorkError as error:
        raise UsageError(str(error)) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("data"), dict) or not isinstance(raw.get("model"), dict):
        raise UsageError(f"{path}: a config needs the sections data and model (configs/custom.yml shows them)")
    family = resolve_family(path, raw["data"], raw["model"])
    check_keys(path, root, family)  # type: ignore[arg-type]  # not None: raw is a dict
    try:
        config = read_config(path.stem, family, raw)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    grid, budgets = read_grid(path, config.timesteps)
    return replace(config, grid=grid, budgets=budgets)


def beside(model_path: str | Path | None) -> str | Path | None:
    """The diffusers folder (or hub name) that ``model_path`` is, or that its file lies in with a description."""
    if not model_path or is_hub(model_path):
        return model_path
    path = Path(model_path)
    if path.is_file():
        return path.parent if architecture_beside(path) else None
    return path if path.is_dir() else None


def read_config(name: str, family: str, raw: dict[str, Any]) -> ModelConfig:
    """The sections of a config, whose keys are known ones. Raises ValueError that says what is wrong."""
    data, model, checkpoint = raw["data"], raw["model"], raw.get("checkpoint")
    diffusion, settings = (raw.get(section) or {} for section in ("diffusion", "settings"))
    for section, held in (("diffusion", diffusion), ("settings", settings)):
        if not isinstance(held, dict):
            raise ValueError(f"the section {section} is {brief(held)}, it must hold keys and values")
    if checkpoint is not None and not isinstance(checkpoint, str):
        raise ValueError(f"checkpoint is {brief(checkpoint)}, it must be the name of a file")
    size = number("image_size", data.get("image_size", 256), *SIZE)
    dataset = str(data.get("dataset", "CUSTOM"))
    if model.get("type", "simple") == "simple" and dataset in OFFICIAL_ADM:
        network = OFFICIAL_ADM[dataset]  # the official code does not read the YAML's sizes for these
    else:
        network = {k: v for k, v in model.items() if k in architecture_keys(family)}
    schedule = {
        "beta_schedule": choice("beta_schedule", diffusion.get("beta_schedule", "linear"), SCHEDULES),
        "beta_start": diffusion.get("beta_start", 1e-4),
        "beta_end": diffusion.get("beta_end", 0.02),
        "timesteps": diffusion.get("num_diffusion_timesteps", 1000),
        "prediction": choice("prediction", diffusion.get("prediction", "eps"), PREDICTIONS),
    }
    return ModelConfig(
        name=name,
        dataset=dataset,
        category=str(data.get("category", dataset)),
        image_size=size,
        family=family,
        architecture=check_architecture(family, size, network),
        checkpoint=checkpoint,
        settings={key: number(key, value, *SETTINGS[key]) for key, value in settings.items()},
        **check_schedule(schedule),
    )


def choice(key: str, value: Any, known: Collection[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{key} is {brief(value)}, it must be one of {', '.join(known)}")
    return value


def resolve_family(path: Path, data: dict[str, Any], model: dict[str, Any]) -> str:
    """ "ddpm" or "adm" from model.type; the official ``simple`` leaves it to the data set."""
    dataset, kind = str(data.get("dataset", "CUSTOM")), model.get("type", "simple")
    if isinstance(kind, str) and kind in FAMILIES:
        return kind
    if kind != "simple":
        raise UsageError(f"{path}: model.type {brief(kind)} is not known; use ddpm, adm or (official files) simple")
    if dataset in OFFICIAL_ADM:
        return "adm"
    if dataset in OFFICIAL_DDPM:
        return "ddpm"
    known = [*OFFICIAL_DDPM, *OFFICIAL_ADM]
    raise UsageError(f"{path}: data.dataset {brief(dataset)} is not known{hint(dataset[:80], known)}; use one of "
                     f"{', '.join(known)}, or describe the network with model.type ddpm or adm")  # fmt: skip


def check_keys(path: Path, root: yaml.Node, family: str) -> None:
    """Reject keys that nothing reads, with their line and the nearest key that exists."""
    # An official YAML describes its ADM with the DDPM's keys, which the official code ignores too.
    architecture = architecture_keys(family) | architecture_keys("ddpm")
    assert isinstance(root, yaml.MappingNode)  # load_config has seen a dict
    check_once(path, root)
    for section, body in root.value:
        reject_unless(path, section, section.value in KNOWN_KEYS, KNOWN_KEYS, "section")
        if not isinstance(body, yaml.MappingNode):
            continue
        check_once(path, body)
        known = KNOWN_KEYS[section.value] | IGNORED_KEYS.get(section.value, set())
        if section.value == "model":
            known |= architecture
        for key, _ in body.value:
            reject_unless(path, key, key.value in known, known, f"key in {section.value}")


def check_once(path: Path, node: yaml.MappingNode) -> None:
    """Reject a key that is there twice: YAML takes the last one without a word."""
    taken: set[str] = set()
    for key, _ in node.value:
        if key.value in taken:
            raise UsageError(f"{path}, line {key.start_mark.line + 1}: {brief(key.value)} is there twice")
        taken.add(key.value)


def reject_unless(path: Path, node: yaml.Node, ok: bool, known: Any, what: str) -> None:
    if not ok:
        line = node.start_mark.line + 1
        raise UsageError(f"{path}, line {line}: unknown {what} {brief(node.value)}{hint(str(node.value)[:80], known)}")


def hint(word: str, known: Any) -> str:
    """ " (did you mean X?)" or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
