"""A diffusers folder: where its weights and descriptions lie, and what they say of the network.

It may be a network's own (config.json and weights in it) or a pipeline's (in unet/, with scheduler/ beside it).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import read_json
from diffstyle.model import ModelConfig
from diffstyle.models.convert import diffusers_architecture, diffusers_schedule
from diffstyle.zoo.bounds import SIZE, TIMESTEPS, check_architecture, number

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
CONFIG, SCHEDULER = "config.json", "scheduler_config.json"


def weights_file(path: Path) -> Path:
    """The file with the weights: ``path`` itself, or the one in a diffusers folder (its root or unet/). Raises WorkError."""
    if not path.is_dir():
        return path
    for folder in (path, path / "unet"):
        for name in WEIGHTS:
            if (folder / name).exists():
                return folder / name
    raise WorkError(f"{path}: a folder without {' or '.join(WEIGHTS)}; name the checkpoint file itself")


def architecture_beside(weights: Path) -> dict[str, Any] | None:
    """image_size and constructor keywords by the config.json beside ``weights``; None where there is none of diffusers.

    Raises WorkError when it describes a network that ours is not.
    """
    path = weights.with_name(CONFIG)
    described = read_json(path) if path.exists() else None
    if not isinstance(described, dict) or "_class_name" not in described:
        return None
    try:
        network = diffusers_architecture(described)
        size = number("sample_size", network.pop("image_size"), *SIZE)
        return {"image_size": size, **check_architecture("ddpm", size, network)}
    except ValueError as error:
        raise WorkError(f"{path}: {error}") from None


def schedule_beside(weights: Path) -> dict[str, Any] | None:
    """ModelConfig's schedule and prediction by the scheduler_config.json that goes with ``weights``, if there is one."""
    places = (weights.with_name(SCHEDULER), weights.parent.parent / "scheduler" / SCHEDULER)
    path = next((place for place in places if place.exists() or place.is_symlink()), None)  # a link to nowhere is no absence
    if path is None:
        return None
    described = read_json(path)
    if not isinstance(described, dict):
        raise WorkError(f"{path}: not a scheduler's description")
    try:
        return check_schedule(diffusers_schedule(described))
    except ValueError as error:
        raise WorkError(f"{path}: {error}") from None


def check_schedule(schedule: dict[str, Any]) -> dict[str, Any]:
    """The five values as the types that they are. Raises ValueError that names the key."""
    return {
        **schedule,
        "beta_start": number("beta_start", schedule["beta_start"], float, 1e-9, 0.9999),
        "beta_end": number("beta_end", schedule["beta_end"], float, 1e-9, 0.9999),
        "timesteps": number("num_diffusion_timesteps", schedule["timesteps"], *TIMESTEPS),
    }


def describe(folder: Path) -> ModelConfig:
    """What a diffusers folder is, by its own files. Raises UsageError or WorkError."""
    weights = weights_file(folder)
    network = architecture_beside(weights)
    if network is None:
        raise UsageError(f"{weights.parent}: without the {CONFIG} of a diffusers network; describe it with --config FILE.yml")
    size = network.pop("image_size")
    schedule = schedule_beside(weights) or {}
    place = str(folder.absolute())
    return ModelConfig(folder.name, "CUSTOM", folder.name, size, "ddpm", network, checkpoint=place, **schedule)
