"""eps between two evaluations: a polynomial through the latest ones, *summed* as the official walk would.

With y = x / sqrt(abar) and s = sqrt((1 - abar) / abar) a DDIM step is  y_next = y + (s_next - s) eps,  so the walk over many
steps is a weighted sum of eps. We put a polynomial through the eps of the last few evaluations (Adams: Bashforth to reach
the next evaluation, Moulton to come again when its eps is known, at no further evaluation) and add up the walk's own
steps, not the integral that they approximate: what is aimed at is the official n-step result with its own discretisation.
After an event, where eps jumps, the polynomial starts anew. DDIM itself is the member that evaluates every step.

DPM-Solver (Lu et al. 2022) integrates the same variable; the free correction is UniPC's (Zhao et al. 2023).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffstyle.diffusion import Schedule, ddim_step, predict_x0
from diffstyle.models.layers import at_least_fp32
from diffstyle.steps import warp


@dataclass(frozen=True)
class Solver:
    """How many of the latest eps the polynomial runs through."""

    predict: int = 1  # on the way to the next evaluation
    correct: int = 0  # once more over the same way when that one is known too; 0: never


DDIM = Solver()
# Adams-Bashforth alone, or corrected by Adams-Moulton of one order more. All but ddim evaluate a thinned-out walk.
SOLVERS = {
    "ddim": DDIM,
    "euler": Solver(1, 0),  # DDIM with long steps
    "heun": Solver(1, 2),
    "ab2": Solver(2, 0),
    "ab3": Solver(3, 0),
    "abm2": Solver(2, 3),
    "abm3": Solver(3, 4),
}


# A network takes an injection for noise in part: so much of what eps changes by from there to the next evaluation, along
# eps - eps_h, it changes at once. Of 0 to 0.6 this brings the embedded model's pictures nearest (benchmarks/README.md).
AT_ONCE = 0.4


@dataclass(frozen=True)
class Known:
    """An eps that the polynomial runs through."""

    t: int
    eps: Tensor  # (N, 3, H, W)


class Path:
    """x (N, 3, H, W) on its way along a walk."""

    def __init__(self, x: Tensor, t: int, schedule: Schedule, solver: Solver) -> None:
        self.x, self.schedule, self.solver = x, schedule, solver
        self.start = x  # where the leg to x began
        self.behind: tuple[int, ...] = (t,)  # the timesteps of that leg
        self.known: list[Known] = []  # the newest first
        self.pull: Tensor | None = None  # eps - eps_h of the event with which that leg began

    def see(self, t: int, eps: Tensor) -> None:
        """eps at the x just reached; a correcting solver walks the leg behind once more, now that it is known."""
        if self.solver.correct and self.pull is not None:
            self.known = [Known(k.t, k.eps + AT_ONCE * along(eps - k.eps, self.pull)) for k in self.known]
        self.pull = None
        self.known = [Known(t, eps), *(k for k in self.known if k.t != t)][:4]  # as many as any solver reads
        if self.solver.correct:
            self.x = glide(self.start, self.behind, self.known[: self.solver.correct], self.schedule)

    def at(self, ts: Sequence[int]) -> Tensor:
        """x after the timesteps ``ts``, of which the first is where it is now."""
        return glide(self.x, ts, self.known[: self.solver.predict], self.schedule)

    def go(self, ts: tuple[int, ...]) -> None:
        """Walk on over ``ts``."""
        self.start, self.behind, self.x = self.x, ts, self.at(ts)

    def jump(self, ts: tuple[int, ...], x: Tensor, x0: Tensor, pull: Tensor | None = None) -> None:
        """An event has put x at ts[0]; walk on over ``ts``, the network taken to see what it was just made to see, x0.

        ``pull`` is eps - eps_h (N, 3, H, W), whither eps goes if it sees less of that; None: it was asked, and does see it.
        """
        self.x, self.pull = x, pull
        self.known = [Known(ts[0], implied_eps(x, x0, self.schedule(ts[0])))] if len(ts) > 1 else []
        self.go(ts)


def between(h: Mapping[int, Tensor], t: int) -> Tensor:
    """h at t, from those at the evaluated timesteps around: the polynomial through the nearest two on either side."""
    ts = sorted(h)
    i = min(max(bisect_left(ts, t) - 2, 0), max(len(ts) - 4, 0))
    near = ts[i : i + 4]
    basis = lagrange_basis([warp(known) for known in near], warp(t))
    parts = [weight * at_least_fp32(h[known]) for weight, known in zip(basis, near, strict=True)]
    return torch.stack(parts).sum(0).to(h[near[0]].dtype)


def glide(x: Tensor, ts: Sequence[int], known: Sequence[Known], schedule: Schedule) -> Tensor:
    """Walk x (N, 3, H, W) from ts[0] over every timestep of ``ts`` to the last, eps being the polynomial through ``known``."""
    if len(ts) < 2:
        return x
    if len(ts) == 2 and [k.t for k in known] == [ts[0]]:  # one DDIM step, rounded as the official code rounds it
        return ddim_step(predict_x0(x, known[0].eps, schedule(ts[0])), known[0].eps, schedule(ts[1]))
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


def along(a: Tensor, b: Tensor) -> Tensor:
    """The part of a along b, of each sample; both (N, 3, H, W). Zero where b is."""
    square = (b * b).sum((1, 2, 3), keepdim=True)
    return (a * b).sum((1, 2, 3), keepdim=True) / torch.where(square == 0, 1, square) * b


def implied_eps(x: Tensor, x0: Tensor, abar: float) -> Tensor:
    """The noise in x if x0 is its clean image."""
    return (x - math.sqrt(abar) * x0) / math.sqrt(1 - abar)
