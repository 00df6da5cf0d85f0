#!/usr/bin/env python3
"""Train an unconditional DDPM on a folder of images (or an .npz), for use with diffstyle.

    python scripts/train_ddpm.py --config avatars.yml --data data/avatars.npz --out runs/avatars

The loss is the usual eps-prediction. Two optional terms make the bottleneck h carry the content, without which the
method has nothing to inject (a small network happily sends everything through its skip connections):

--skip_drop P  for half of the samples, each skip connection is zeroed with probability P (never those of the
               outermost level, which carry the noise itself);
--twin P       for a share P of the samples h is encoded from a *twin*: the same picture in other colours with other
               noise at the same t. What the twin knows is the shape, so h learns shape; colours must come by the skips.

What it writes to --out: ``ema.pt`` (the weights, loads with --model_path), ``last.pt`` (to resume from), ``loss.csv`` and
``samples_*.png``. Every draw comes from (seed, iteration), so a resumed run repeats an uninterrupted one exactly.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from diffstyle.diffusion import Schedule, ddim_step, predict_x0  # noqa: E402
from models.hspace_unet import Features, HSpaceUNet  # noqa: E402


@dataclass(frozen=True)
class Settings:
    """What determines the loss curve; a resumed run must repeat it."""

    batch: int
    lr: float
    warmup: int
    decay_at: int
    ema: float
    weighting: str
    skip_drop: float
    twin: float
    flip: bool
    seed: int


def generator(seed: int, iteration: int) -> torch.Generator:
    """All randomness of one iteration: nothing has to be saved for an exact resume."""
    return torch.Generator().manual_seed(seed * 1_000_003 + iteration)


def recolour(x: Tensor, g: torch.Generator) -> Tensor:
    """The twin's picture: every image's colours pushed through a random affine map that keeps only the shape.

    x (N, 3, H, W) in [-1, 1]. A random rotation/reflection of RGB space (QR of a Gaussian), a random contrast in
    [0.4, 1] and a random shift, so neither hue nor lightness can be trusted while every edge stays.
    """
    n = len(x)
    q, _ = torch.linalg.qr(torch.randn(n, 3, 3, generator=g))
    contrast = 0.4 + 0.6 * torch.rand(n, 1, 1, generator=g)
    shift = 0.8 * torch.rand(n, 3, 1, 1, generator=g) - 0.4
    return (torch.einsum("nij,njhw->nihw", q * contrast, x) + shift).clamp(-1, 1)


def drop_skips(f: Features, probability: float, g: torch.Generator) -> Features:
    """For half of the samples, zero each skip connection with this probability; those at full resolution are kept."""
    full = f.skips[0].shape[-1]
    spared = torch.rand(len(f.h), 1, 1, 1, generator=g) < 0.5
    skips = []
    for skip in f.skips:
        keep = (spared | (torch.rand(len(skip), 1, 1, 1, generator=g) >= probability)).to(skip)
        skips.append(skip if skip.shape[-1] == full else skip * keep)
    return f._replace(skips=tuple(skips))


def loss_weights(t: Tensor, abar: Tensor, weighting: str) -> Tensor:
    """Weights (N,) on the eps error: 1, or P2's 1 / (1 + SNR) with SNR = abar / (1 - abar), i.e. 1 - abar."""
    return 1 - abar[t] if weighting == "p2" else torch.ones(len(t))


def training_loss(unet: HSpaceUNet, images: Tensor, abar: Tensor, s: Settings, iteration: int) -> Tensor:
    """The loss of one iteration on uint8 images (N, 3, H, W)."""
    g = generator(s.seed, iteration)
    x0 = images[torch.randint(len(images), (s.batch,), generator=g)].float() / 127.5 - 1
    if s.flip:
        flipped = torch.rand(s.batch, 1, 1, 1, generator=g) < 0.5
        x0 = torch.where(flipped, x0.flip(3), x0)
    t = torch.randint(len(abar), (s.batch,), generator=g)
    eps = torch.randn(x0.shape, generator=g)
    a = abar[t, None, None, None]

    def noised(x: Tensor, noise: Tensor) -> Tensor:
        return (a.sqrt() * x + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)

    f = unet.encode(noised(x0, eps), t.float())
    twins = round(s.twin * s.batch)
    if twins:
        twin = noised(recolour(x0, g), torch.randn(x0.shape, generator=g))[:twins]
        h_twin = unet.encode(twin, t[:twins].float()).h
        f = f._replace(h=torch.cat([h_twin, f.h[twins:]]))
    if s.skip_drop:
        f = drop_skips(f, s.skip_drop, g)
    error = (unet.decode(f) - eps).square().mean((1, 2, 3))
    return (loss_weights(t, abar, s.weighting) * error).mean()


@torch.inference_mode()
def h_influence(unet: HSpaceUNet, images: Tensor, abar: Tensor) -> list[float]:
    """RMS change of P_t, in [-1, 1] units, when h is swapped for another image's at t = 400, 500 ... 900.

    The small fast number that says whether a network can show the method at all.
    """
    x0 = images[:32].float() / 127.5 - 1
    eps = torch.randn(x0.shape, generator=generator(0, 0))
    changes = []
    for t in range(400, 1000, 100):
        a = float(abar[t])
        x = math.sqrt(a) * x0 + math.sqrt(1 - a) * eps
        f = unet.encode(x, torch.full((len(x),), float(t)))
        swapped = f._replace(h=f.h.roll(1, 0))
        changes.append(
            (predict_x0(x, unet.decode(swapped), a) - predict_x0(x, unet.decode(f), a)).square().mean().sqrt().item()
        )
    return changes


@torch.inference_mode()
def sample(unet: HSpaceUNet, shape: tuple[int, ...], schedule: Schedule, steps: int = 50) -> Tensor:
    """Draw pictures (N, 3, H, W) by plain DDIM from fixed noise, to look at."""
    x = torch.randn(shape, generator=generator(1, 0))
    grid = [int(i) for i in torch.linspace(0, len(schedule) - 1, steps)]
    for t, t_next in zip(reversed(grid), reversed([-1, *grid[:-1]]), strict=True):
        eps = unet(x, torch.full((len(x),), float(t)))
        x = ddim_step(predict_x0(x, eps, schedule(t)), eps, schedule(t_next))
    return x
