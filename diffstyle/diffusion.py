"""Textbook DDIM: the noise schedule, the x0-prediction and one update that serves sampling and inversion.

Notation of the paper: ``abar_t`` is the share of signal left at timestep t; P_t is the predicted clean image and D_t the
direction pointing to x_t, so that one step is  x_next = sqrt(abar_next) P_t + D_t + sigma_t z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """abar_t for t = 0 ... T-1 as plain floats (no device, no synchronisation); abar is 1 at t = -1, the clean image."""

    values: tuple[float, ...]

    def __call__(self, t: int) -> float:
        return 1.0 if t < 0 else self.values[t]

    def __len__(self) -> int:
        return len(self.values)


def linear_schedule(beta_start: float = 1e-4, beta_end: float = 0.02, timesteps: int = 1000) -> Schedule:
    """abar_t = prod_{s <= t} (1 - beta_s) for betas linear in t; rounded to fp32 where the official code does."""
    betas = torch.from_numpy(np.linspace(beta_start, beta_end, timesteps, dtype=np.float64)).float()
    return Schedule(tuple((1.0 - betas).cumprod(0).tolist()))


def predict_x0(x: Tensor, eps: Tensor, abar: float) -> Tensor:
    """P_t(eps): the clean image that x (N, 3, H, W) would come from if ``eps`` were its noise. Not clipped."""
    return (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)


def ddim_step(x0: Tensor, eps: Tensor, abar_next: float, sigma: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """sqrt(abar_next) P_t + D_t (+ sigma z).

    ``x0`` and ``eps`` are separate because the method is asymmetric: P_t may come from a changed bottleneck while D_t
    keeps the unchanged noise. The same function walks down (sampling) and up (inversion).
    """
    x_next = math.sqrt(abar_next) * x0 + math.sqrt(1 - abar_next - sigma**2) * eps
    return x_next if noise is None else x_next + sigma * noise


def ddim_sigma(abar: float, abar_next: float, eta: float) -> float:
    """sigma_t = eta sqrt((1 - abar_t / abar_next) (1 - abar_next) / (1 - abar_t)); 0 is deterministic, 1 is DDPM."""
    return eta * math.sqrt((1 - abar / abar_next) * (1 - abar_next) / (1 - abar))
