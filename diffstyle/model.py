"""A model: what its config says of it, and the network ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffstyle.diffusion import Schedule
from diffstyle.models.hspace_unet import HSpaceUNet


@dataclass(frozen=True)
class ModelConfig:
    """Facts about a checkpoint: the network's architecture, its picture size and its noise schedule."""

    name: str  # the YAML's stem
    dataset: str  # data.dataset, the key of MODEL_PATHS in configs/paths_config.py
    category: str
    image_size: int
    family: str  # "ddpm" or "adm"
    architecture: Mapping[str, Any]  # keyword arguments of the network's constructor
    beta_start: float = 1e-4
    beta_end: float = 0.02
    timesteps: int = 1000
    checkpoint: str | None = None  # default file, relative to pretrained/


@dataclass(frozen=True)
class Model:
    """A network ready to run, with all that a picture made by it depends on."""

    unet: HSpaceUNet  # eval mode, no gradients, on ``device`` in ``dtype``, convolutions channels-last
    config: ModelConfig
    schedule: Schedule
    device: torch.device
    dtype: torch.dtype
    digest: str  # sha256 of the checkpoint file
    path: Path
