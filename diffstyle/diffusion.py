"""Textbook DDIM: the noise schedule, the x0-prediction and one update that serves sampling and inversion.

Notation of the paper: ``abar_t`` is the share of signal left at timestep t; P_t is the predicted clean image and D_t the
direction pointing to x_t, so that one step is  x_next = sqrt(abar_next) P_t + D_t + sigma_t z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Betas = npt.NDArray[np.float64]


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
    return make_schedule("linear", beta_start, beta_end, timesteps)


def make_schedule(kind: str, beta_start: float, beta_end: float, timesteps: int) -> Schedule:
    """abar_t for one of SCHEDULES; the cosine ones (Nichol & Dhariwal, 2102.09672) have no start and end."""
    betas = torch.from_numpy(SCHEDULES[kind](beta_start, beta_end, timesteps)).float()
    return Schedule(tuple((1.0 - betas).cumprod(0).tolist()))


def linear_betas(start: float, end: float, timesteps: int) -> Betas:
    return np.linspace(start, end, timesteps, dtype=np.float64)


def scaled_linear_betas(start: float, end: float, timesteps: int) -> Betas:
    """Linear in the square root (Stable Diffusion's)."""
    return np.linspace(math.sqrt(start), math.sqrt(end), timesteps, dtype=np.float64) ** 2


def cosine_betas(start: float, end: float, timesteps: int) -> Betas:
    """abar_t follows cos^2; beta is kept below 1, so that abar never reaches 0."""
    signal = np.cos((np.arange(timesteps + 1) / timesteps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - signal[1:] / signal[:-1], 0.999)


SCHEDULES: dict[str, Callable[[float, float, int], Betas]] = {
    "linear": linear_betas,
    "scaled_linear": scaled_linear_betas,
    "cosine": cosine_betas,  # guided-diffusion's name
    "squaredcos_cap_v2": cosine_betas,  # diffusers' name
}

PREDICTIONS = ("eps", "x0", "v")


def to_eps(prediction: str, abar: float) -> tuple[float, float]:
    """(a, b) such that eps = a x_t + b output, for a network whose output is eps, x0 or v (Salimans & Ho, 2202.00512).

    From x_t = sqrt(abar) x0 + sqrt(1 - abar) eps and v = sqrt(abar) eps - sqrt(1 - abar) x0.
    """
    if prediction == "x0":
        return 1 / math.sqrt(1 - abar), -math.sqrt(abar) / math.sqrt(1 - abar)
    if prediction == "v":
        return math.sqrt(1 - abar), math.sqrt(abar)
    return 0.0, 1.0


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
