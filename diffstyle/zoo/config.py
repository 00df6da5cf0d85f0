"""Settings: a YAML file says what a checkpoint is (``ModelConfig``), flags say what to do with it (``Settings``)."""

from __future__ import annotations

import difflib
import inspect
import math
from pathlib import Path
from typing import Any

import yaml

from diffstyle.configs import paths_config
from diffstyle.errors import UsageError
from diffstyle.model import ModelConfig
from diffstyle.models import FAMILIES

CONFIG_DIR = Path(paths_config.__file__).resolve().parent

# ---- what a checkpoint is ----------------------------------------------------------------------------------------

# Which network the official code builds for ``type: simple`` is decided by ``data.dataset``: the DDPM reads its sizes from
# the YAML, the ADMs are hard-coded (REFERENCE: the light ADM of ILVR / P2, and ImageNet's).
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
    "diffusion": {"beta_schedule", "beta_start", "beta_end", "num_diffusion_timesteps"},
    "sampling": set(),
    "checkpoint": set(),
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


def load_config(name: str | Path) -> ModelConfig:
    """Read a config, ours or one written for the official code. Raises UsageError naming the line of a wrong key."""
    path = find_config(name)
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:  # ValueError: no UTF-8, no such date
        raise UsageError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("data"), dict) or not isinstance(raw.get("model"), dict):
        raise UsageError(f"{path}: a config needs the sections data and model (configs/custom.yml shows them)")

    data, model, diffusion, checkpoint = raw["data"], raw["model"], raw.get("diffusion") or {}, raw.get("checkpoint")
    if not isinstance(diffusion, dict):
        raise UsageError(f"{path}: the section diffusion is {diffusion!r}, it must hold keys and values")
    if checkpoint is not None and not isinstance(checkpoint, str):
        raise UsageError(f"{path}: checkpoint is {checkpoint!r}, it must be the name of a file")
    dataset, kind = str(data.get("dataset", "CUSTOM")), model.get("type", "simple")
    family = resolve_family(path, dataset, kind)
    check_keys(path, root, family)  # type: ignore[arg-type]  # not None: raw is a dict
    if diffusion.get("beta_schedule", "linear") != "linear":
        raise UsageError(f"{path}: beta_schedule {diffusion['beta_schedule']!r} is not known, only linear")
    size = number(path, "data.image_size", data.get("image_size", 256), int)
    if kind == "simple" and dataset in OFFICIAL_ADM:
        architecture = OFFICIAL_ADM[dataset]  # the official code does not read the YAML's sizes for these
    else:
        architecture = {k: v for k, v in model.items() if k in architecture_keys(family)}
    return ModelConfig(
        name=path.stem,
        dataset=dataset,
        category=str(data.get("category", dataset)),
        image_size=size,
        family=family,
        architecture=architecture,
        class_cond=bool(model.get("class_cond", False)),
        beta_start=number(path, "diffusion.beta_start", diffusion.get("beta_start", 1e-4), float, below=1),
        beta_end=number(path, "diffusion.beta_end", diffusion.get("beta_end", 0.02), float, below=1),
        timesteps=number(path, "diffusion.num_diffusion_timesteps", diffusion.get("num_diffusion_timesteps", 1000), int),
        checkpoint=checkpoint,
    )


def resolve_family(path: Path, dataset: str, kind: Any) -> str:
    """ "ddpm" or "adm" from model.type; the official ``simple`` leaves it to the data set."""
    if isinstance(kind, str) and kind in FAMILIES:
        return kind
    if kind != "simple":
        raise UsageError(f"{path}: model.type {kind!r} is not known; use ddpm, adm or (official files) simple")
    if dataset in OFFICIAL_ADM:
        return "adm"
    if dataset in OFFICIAL_DDPM:
        return "ddpm"
    known = [*OFFICIAL_DDPM, *OFFICIAL_ADM]
    raise UsageError(f"{path}: data.dataset {dataset!r} is not known{hint(dataset, known)}; use one of {', '.join(known)}, "
                     "or describe the network with model.type ddpm or adm")  # fmt: skip


def check_keys(path: Path, root: yaml.Node, family: str) -> None:
    """Reject keys that nothing reads, with their line and the nearest key that exists."""
    # An official YAML describes its ADM with the DDPM's keys, which the official code ignores too.
    architecture = architecture_keys(family) | architecture_keys("ddpm")
    assert isinstance(root, yaml.MappingNode)  # load_config has seen a dict
    for section, body in root.value:
        reject_unless(path, section, section.value in KNOWN_KEYS, KNOWN_KEYS, "section")
        if not isinstance(body, yaml.MappingNode):
            continue
        known = KNOWN_KEYS[section.value] | IGNORED_KEYS.get(section.value, set())
        if section.value == "model":
            known |= architecture
        for key, _ in body.value:
            reject_unless(path, key, key.value in known, known, f"key in {section.value}")


def reject_unless(path: Path, node: yaml.Node, ok: bool, known: Any, what: str) -> None:
    if not ok:
        line = node.start_mark.line + 1
        raise UsageError(f"{path}, line {line}: unknown {what} {node.value!r}{hint(str(node.value), known)}")


def hint(word: str, known: Any) -> str:
    """ " (did you mean X?)" or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def number(path: Path, key: str, value: Any, kind: type, below: float = math.inf) -> Any:
    """``value`` as ``kind``, positive and less than ``below``.

    YAML reads 1e-4 as text, which the official files rely on nowhere but users do.
    """
    try:
        result = kind(value)
        exact = float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{path}: {key} is {str(value)[:40]!r}, not a number") from None
    if exact >= below:
        raise UsageError(f"{path}: {key} is {value!r}, it must be less than {below:g}")
    if not result > 0 or (kind is int and result != exact):
        raise UsageError(f"{path}: {key} is {value!r}, it must be a positive {'integer' if kind is int else 'number'}")
    return result
