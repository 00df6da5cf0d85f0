"""A model: what its config says of it, and the network ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffstyle.diffusion import Schedule, to_eps
from diffstyle.models.hspace_unet import Features, HSpaceUNet
from diffstyle.steps import USUAL, Grid

# --precision, resolved -> the network's type. TF32 is fp32 whose factors are rounded to 10 bits of mantissa: in tf32-conv those
# of convolutions, as in PyTorch by default; in tf32 those of matrix products too.
DTYPES = {
    "fp32": torch.float32,
    "tf32-conv": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


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
    beta_schedule: str = "linear"  # diffusion.SCHEDULES
    prediction: str = "eps"  # what the network's output is: diffusion.PREDICTIONS
    checkpoint: str | None = None  # default file, relative to pretrained/
    settings: Mapping[str, float] = field(default_factory=dict)  # fields of Settings that suit it; nobody takes them unasked
    grid: Grid = USUAL  # where solvers other than ddim ask it
    budgets: tuple[tuple[int, float], ...] = ()  # with how many evaluations (--nfe) nine of ten pairs are how near, in dB


@dataclass(frozen=True)
class Model:
    """A network ready to run, with all that a picture made by it depends on."""

    unet: HSpaceUNet  # eval mode, no gradients, on ``device`` in ``dtype``, convolutions channels-last
    config: ModelConfig
    schedule: Schedule
    device: torch.device
    precision: str  # a key of DTYPES
    digest: str  # sha256 of the checkpoint file
    path: Path

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def numbers(self) -> str:
        """The precision as records and caches have always said it: the type's name, but for TF32's."""
        return self.precision if self.precision.startswith("tf32") else str(self.dtype).removeprefix("torch.")


class EpsOf(HSpaceUNet):
    """A network that predicts x0 or v, seen as one that predicts eps, the only one that the method knows.

    eps = a x_t + b output, so a x_t is one more skip connection, from the input to the output; with b it heads the others.
    """

    table: Tensor  # (2, T): a and b

    def __init__(self, unet: HSpaceUNet, prediction: str, schedule: Schedule) -> None:
        super().__init__()
        self.unet = unet
        table = torch.tensor([to_eps(prediction, abar) for abar in schedule.values])
        self.register_buffer("table", table.T.contiguous(), persistent=False)

    def encode(self, x: Tensor, t: Tensor) -> Features:
        a, b = self.table[:, t.long(), None, None, None]
        f = self.unet.encode(x, t)
        return f._replace(skips=(a * x, b, *f.skips))

    def decode(self, f: Features) -> Tensor:
        shortcut, b, *skips = f.skips
        return shortcut + b * self.unet.decode(f._replace(skips=tuple(skips)))
