"""The same walks with fewer evaluations: eps is a polynomial between the evaluations, and *summed* as the walk would.

With y = x / sqrt(abar) and s = sqrt((1 - abar) / abar) a DDIM step is  y_next = y + (s_next - s) eps,  so the walk over many
steps is a weighted sum of eps. We put a polynomial through the eps of the last few evaluations (Adams: Bashforth to reach
the next evaluation, Moulton to come again when its eps is known, at no further evaluation) and add up the walk's own
steps, not the integral that they approximate: what is aimed at is the official n-step result with its own discretisation.
After an event, where eps jumps, the polynomial starts anew.

DPM-Solver (Lu et al. 2022) integrates the same variable; the free correction is UniPC's (Zhao et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffstyle.diffusion import Schedule, predict_x0
from diffstyle.sampling import Blend, Inversion, Progress, asyrp_step, calibrate, evaluate, timestep
from diffstyle.strides import Solver, Stride, warp
from models.hspace_unet import HSpaceUNet


@dataclass(frozen=True)
class Known:
    """An eps that the polynomial runs through."""

    t: int
    eps: Tensor  # (N, 3, H, W)


def glide(x: Tensor, ts: Sequence[int], known: Sequence[Known], schedule: Schedule) -> Tensor:
    """Walk x (N, 3, H, W) from ts[0] over every timestep of ``ts`` to the last, eps being the polynomial through ``known``."""
    if len(ts) < 2:
        return x
    y = x / math.sqrt(schedule(ts[0]))
    for weight, k in zip(weights(schedule, ts, [k.t for k in known]), known, strict=True):
        y = y + weight * k.eps
    return math.sqrt(schedule(ts[-1])) * y


def weights(schedule: Schedule, ts: Sequence[int], known: Sequence[int]) -> list[float]:
    """w_j with  sum_i (s_{i+1} - s_i) eps(t_i) = sum_j w_j eps_j  over the walk ``ts``, eps the polynomial through ``known``."""
    us = [warp(t) for t in known]
    result = [0.0] * len(known)
    for t, t_next in zip(ts[:-1], ts[1:], strict=True):
        ds = noise_ratio(schedule(t_next)) - noise_ratio(schedule(t))
        for j, lagrange in enumerate(lagrange_basis(us, warp(t))):
            result[j] += ds * lagrange
    return result


def noise_ratio(abar: float) -> float:
    return math.sqrt((1 - abar) / abar)


def lagrange_basis(us: Sequence[float], u: float) -> list[float]:
    """The polynomials that are 1 at one of ``us`` and 0 at the others, at u."""
    return [math.prod((u - b) / (a - b) for b in us if b != a) for a in us]


@torch.inference_mode()
def invert_strides(
    unet: HSpaceUNet,
    x0: Tensor,
    plan: Sequence[Stride],
    schedule: Schedule,
    solver: Solver,
    keep: Collection[int] = (),
    progress: Progress | None = None,
    latent: bool = True,
) -> Inversion:
    """``sampling.invert`` with the evaluations of ``plan`` only; an h kept in between costs an encode of the x there."""
    x = start = x0
    h: dict[int, Tensor] = {}
    leg: tuple[int, ...] = (0,)
    known: list[Known] = []
    for stride in plan:
        t = stride.step.t
        f = unet.encode(x, timestep(t, x))
        if t in keep:
            h[t] = f.h
        if not latent and len(h) == len(keep):
            break
        known = remember(t, unet.decode(f), known)
        if solver.correct:
            x = glide(start, leg, known[: solver.correct], schedule)
        start, leg = x, (t, *stride.passed)
        for i, t_kept in enumerate(leg[1:-1], start=2):
            if t_kept in keep:
                x = glide(start, leg[:i], known[: solver.predict], schedule)
                h[t_kept] = unet.encode(x, timestep(t_kept, x)).h
        x = glide(start, leg, known[: solver.predict], schedule)
        if progress:
            progress(len(x))
    return Inversion(x, h)


@torch.inference_mode()
def transfer_strides(
    unet: HSpaceUNet,
    x_T: Tensor,
    h_content: Mapping[int, Tensor],
    plan: Sequence[Stride],
    schedule: Schedule,
    blend: Blend,
    solver: Solver,
    noise: Callable[[], Tensor] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """``sampling.transfer`` with the evaluations of ``plan`` only; events are the reference's own steps."""
    x = start = x_T
    leg: tuple[int, ...] = (plan[0].step.t,)
    known: list[Known] = []
    for stride in plan:
        step = stride.step
        eps, eps_h = evaluate(unet, x, step, h_content, blend)
        known = remember(step.t, eps, known)
        if solver.correct:
            x = glide(start, leg, known[: solver.correct], schedule)
        leg = (step.t, *stride.passed)
        if stride.event:
            if step.calibrate:
                x = calibrate(x, eps, eps_h, schedule(step.t), blend.omega)
                eps = eps_h = unet(x, timestep(step.t, x))
            x0 = predict_x0(x, eps_h, schedule(step.t))
            x = asyrp_step(x, eps, eps_h, step, schedule, noise)
            # eps jumps here. Until the next evaluation the network is taken to see what it was just made to see: x0.
            leg = stride.passed
            known = [Known(step.t_next, implied_eps(x, x0, schedule(step.t_next)))] if len(leg) > 1 else []
        start = x
        x = glide(start, leg, known[: solver.predict], schedule)
        if progress:
            progress(len(x) * (2 if step.calibrate else 1))
    return x


def remember(t: int, eps: Tensor, known: Sequence[Known]) -> list[Known]:
    """The newest first, one for each timestep, as many as any solver reads."""
    return [Known(t, eps), *(k for k in known if k.t != t)][:4]


def implied_eps(x: Tensor, x0: Tensor, abar: float) -> Tensor:
    """The noise in x if x0 is its clean image."""
    return (x - math.sqrt(abar) * x0) / math.sqrt(1 - abar)
