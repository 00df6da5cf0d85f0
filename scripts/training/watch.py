"""What tells, while a network trains, whether it can show the method: h-influence and samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffstyle.diffusion import Schedule, ddim_sigma, ddim_step, predict_x0
from diffstyle.models.hspace_unet import HSpaceUNet
from training.data import Layers, Pictures
from training.device import CPU, Draws, Place

WATCHED = range(400, 1000, 100)  # the t at which h-influence is measured


@torch.inference_mode()
def h_influence(unet: HSpaceUNet, data: Pictures | Layers, abar: Tensor, device: torch.device = CPU) -> list[float]:
    """RMS change of P_t, in [-1, 1] units, when h is swapped for another image's at t = 400, 500 ... 900.

    The small fast number that says whether a network can show the method at all.
    """
    g = Draws(0, 0, Place(device))
    x0 = data.draw(32, g)
    eps = g.here(g.randn(*x0.shape))
    changes = []
    for t in WATCHED:
        a = float(abar[t])
        x = math.sqrt(a) * x0 + math.sqrt(1 - a) * eps
        f = unet.encode(x, torch.full((len(x),), float(t), device=device))
        swapped = f._replace(h=f.h.roll(1, 0))
        changes.append((predict_x0(x, unet.decode(swapped), a) - predict_x0(x, unet.decode(f), a)).square().mean().sqrt().item())
    return changes


@torch.inference_mode()
def sample(
    unet: HSpaceUNet, shape: tuple[int, ...], schedule: Schedule, steps: int = 100, seed: int = 1, device: torch.device = CPU
) -> Tensor:
    """Draw pictures (N, 3, H, W) from noise to look at: ancestral sampling (eta 1) with P_t clipped to [-1, 1].

    As published DDPM samplers do. Near t = 999 an error of eps is 160 times as large in P_t, so a small network without
    clipping drifts out of the range of pictures; inversion and regeneration of a given picture never meet that.
    """
    g = Draws(seed, 0, Place(device))
    x = g.here(g.randn(*shape))
    grid = [int(i) for i in torch.linspace(0, len(schedule) - 1, steps)]
    for t, t_next in zip(reversed(grid), reversed([-1, *grid[:-1]]), strict=True):
        abar, abar_next = schedule(t), schedule(t_next)
        P = predict_x0(x, unet(x, torch.full((len(x),), float(t), device=device)), abar).clamp(-1, 1)
        eps = (x - math.sqrt(abar) * P) / math.sqrt(1 - abar)
        x = ddim_step(P, eps, abar_next, ddim_sigma(abar, abar_next, 1), g.here(g.randn(*shape)))
    return x
