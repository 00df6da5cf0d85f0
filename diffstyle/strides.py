"""Fewer evaluations of the same walk (--solver): where the network is asked, as plain data, without torch.

The official walk asks the network at each of up to 1,000 timesteps, although eps changes smoothly along the trajectory
except where the method steps in (an injection, or noise). So every such event keeps its own evaluation, and in between a
few evaluations stand for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diffstyle.steps import Step, nearest


@dataclass(frozen=True)
class Stride:
    """One evaluation, at ``step.t``, and the timesteps of the walk that it carries x over."""

    step: Step  # an event is walked as this very step of the reference
    passed: tuple[int, ...]  # timesteps after step.t, up to that of the next evaluation or the walk's end

    @property
    def event(self) -> bool:
        return is_event(self.step)


@dataclass(frozen=True)
class Solver:
    """How many of the latest eps the polynomial runs through (diffstyle.solvers)."""

    predict: int  # on the way to the next evaluation
    correct: int  # once more over the same way when that one is known too; 0: never


# Adams-Bashforth alone, or corrected by Adams-Moulton of one order more.
SOLVERS = {
    "euler": Solver(1, 0),  # DDIM with long steps
    "heun": Solver(1, 2),
    "ab2": Solver(2, 0),
    "ab3": Solver(3, 0),
    "abm2": Solver(2, 3),
    "abm3": Solver(3, 4),
}


def is_event(step: Step) -> bool:
    """Whether something happens here that would put a kink into a smooth trajectory."""
    return step.inject or step.eta > 0


def warp(t: float) -> float:
    """sqrt(t + 1): evaluations are equally spaced in it, and eps is taken for a polynomial in it.

    Measured (benchmarks/README.md): spacing evenly in t instead needs twice the evaluations, as eps varies fastest near 0.
    """
    return math.sqrt(t + 1)


def strides(steps: Sequence[Step], nfe: int) -> list[Stride]:
    """Thin out a walk, up or down: all events stay, and between them as many evaluations as ``nfe`` would put there if it
    were spread from t = 999 to the clean image. With enough of them every step is evaluated.
    """
    if nfe >= len(steps):
        return [Stride(step, (step.t_next,)) for step in steps]
    walk = [step.t for step in steps]
    grid = sorted(walk)
    ends = list(dict.fromkeys([walk[0], *(step.t for step in steps if is_event(step)), steps[-1].t_next]))
    evaluated = set()
    for a, b in pairwise(ends):
        n = max(1, round(nfe * abs(warp(b) - warp(a)) / warp(999)))
        evaluated |= {nearest(round((warp(a) + (warp(b) - warp(a)) * i / n) ** 2 - 1), grid) for i in range(n)}
    at = [i for i, t in enumerate(walk) if t in evaluated]
    return [
        Stride(steps[i], tuple(step.t_next for step in steps[i:j])) for i, j in pairwise([*at, len(steps)])
    ]
