"""Which timesteps are visited and what happens at each: the whole policy as plain data, without torch.

The paper's three intervals: inject at t >= t_edit, plain DDIM in between, quality boosting (noise, eta 1) at t <= t_boost.

The official walk asks the network at each of up to 1,000 timesteps, although eps changes smoothly along the trajectory
except where the method steps in (an event: an injection, or noise). ``thin_out`` keeps every event's own evaluation and
lets a few evaluations stand for all in between.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True)
class Step:
    """One DDIM step from t to t_next, and what the method does on the way."""

    t: int
    t_next: int  # -1 is the clean image
    then: tuple[int, ...] = ()  # timesteps walked after t_next without asking the network
    h_from: int | None = None  # inversion timestep of the content's h that is blended in here; None: nothing is
    omega: float = 0.0  # not 0: move x_t so that its own prediction matches the injected one
    eta: float = 0.0  # 1: as much noise as DDPM
    dt_lambda: float = 1.0  # factor on the direction pointing to x_t

    @property
    def event(self) -> bool:
        """Whether something happens here that puts a kink into a smooth trajectory."""
        return self.h_from is not None or self.eta > 0

    @property
    def evaluations(self) -> int:
        """How often the network is asked; an injection is one, with its second decode."""
        return 2 if self.omega else 1


def timestep_grid(n: int, t_0: int = 999) -> list[int]:
    """The n timesteps 0 ... t_0 of an n-step walk, ascending and distinct; rounded down as in the official code.

    Raises ValueError for n < 2, or n > t_0 + 1, where timesteps would repeat.
    """
    if not 2 <= n <= t_0 + 1:
        raise ValueError(f"{n} steps do not fit the timesteps 0 to {t_0}: use 2 to {t_0 + 1}")
    return [int(i / (n - 1) * t_0 + 1e-6) for i in range(n)]


def nearest(t: int, grid: Sequence[int]) -> int:
    """The member of the ascending ``grid`` that is nearest to t; of two equally near ones the larger."""
    i = bisect_left(grid, t)
    if i == 0:
        return grid[0]
    if i == len(grid):
        return grid[-1]
    return grid[i] if grid[i] - t <= t - grid[i - 1] else grid[i - 1]


def inversion_steps(n_inv: int, t_0: int = 999) -> list[Step]:
    """The walk up: n_inv - 1 steps, the clean image taken as x at t = 0."""
    grid = timestep_grid(n_inv, t_0)
    return [Step(t, t_next) for t, t_next in zip(grid[:-1], grid[1:], strict=True)]


def event_timesteps(n_gen: int, content_replace_step: int = 50, t_0: int = 999) -> list[int]:
    """The timesteps at which the official code looks at h: ``content_replace_step`` of them, or every step for 0 and -1.

    Their number, not n_gen, sets the strength of the injection. One is t = 0 alone; as many as there are timesteps, or
    more, are every step too.
    """
    every_step = content_replace_step in (0, -1) or content_replace_step > t_0
    n = n_gen if every_step else content_replace_step
    return [0] if n == 1 else timestep_grid(n, t_0)


def kept_timesteps(events: Iterable[int], n_inv: int, t_0: int = 999) -> list[int]:
    """The inversion timesteps whose h any injection reads (there is none at t_0: h is kept per source timestep)."""
    sources = timestep_grid(n_inv, t_0)[:-1]
    return sorted({nearest(t, sources) for t in events})


def transfer_steps(
    n_gen: int = 1000,
    t_edit: int = 400,
    t_boost: int = 0,
    omega: float = 0.0,
    dt_lambda: float = 1.0,
    dt_end: int = 950,
    content_replace_step: int = 50,
    t_0: int = 999,
    boost_every_step: bool = False,
    kept: Sequence[int] = (),
) -> list[Step]:
    """The walk down, ending at t_next = -1. An injection reads h at the nearest of the inversion timesteps ``kept``.

    An event (injection or boost) takes place at the generation step nearest to its timestep: the official ones at n_gen
    50 and 1000, and as many at any other n_gen. ``boost_every_step`` is the paper's text: noise wherever t <= t_boost.
    """
    grid = timestep_grid(n_gen, t_0)
    events = event_timesteps(n_gen, content_replace_step, t_0)
    injected = {nearest(t, grid) for t in events if t >= t_edit}
    boosted = {t for t in grid if t <= t_boost} if boost_every_step else {nearest(t, grid) for t in events if t <= t_boost}

    steps = []
    for t, t_next in zip(reversed(grid), reversed([-1, *grid[:-1]]), strict=True):
        inject = t in injected
        # The calibrated step is an ordinary DDIM step, and dt_lambda's is deterministic.
        damp = inject and not omega and t >= dt_end and dt_lambda != 1
        steps.append(
            Step(
                t,
                t_next,
                h_from=nearest(t, kept or grid) if inject else None,
                omega=omega if inject else 0.0,
                eta=1.0 if t in boosted and not damp else 0.0,
                dt_lambda=dt_lambda if damp else 1.0,
            )
        )
    return steps


# ---- fewer evaluations -------------------------------------------------------------------------------------------


def warp(t: float) -> float:
    """sqrt(t + 1): eps is taken for a polynomial in it, and where nothing better is known evaluations are equally spaced in it.

    Measured (benchmarks/README.md): spacing evenly in t instead needs twice the evaluations, as eps varies fastest near 0.
    """
    return math.sqrt(t + 1)


@dataclass(frozen=True)
class Grid:
    """Where along a walk the network is asked: between two timesteps in proportion to the difference of their shares.

    ``shares`` belong to ``ts`` and are linear in warp(t) in between. scripts/search_grid.py finds them for a model.
    """

    ts: tuple[int, ...] = (-1, 999)  # ascending
    shares: tuple[float, ...] = (0.0, 1.0)  # rising from 0 to 1

    def share(self, t: int) -> float:
        return polyline(warp(t), [warp(known) for known in self.ts], self.shares)

    def timestep(self, share: float) -> int:
        return round(polyline(share, self.shares, [warp(known) for known in self.ts]) ** 2 - 1)


USUAL = Grid()  # for models without one of their own


def polyline(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The piecewise linear function through (xs, ys), xs ascending; its ends go on straight."""
    i = min(max(bisect_right(xs, x), 1), len(xs) - 1)
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])


def thin_out(steps: Sequence[Step], nfe: int, grid: Grid = USUAL) -> list[Step]:
    """The same walk, up or down, with fewer evaluations: all events stay, and between them as many as ``nfe`` would put
    there if it were spread from t = 999 to the clean image as ``grid`` says. With enough of them every step is evaluated.
    """
    if nfe >= len(steps):
        return list(steps)
    walk = [step.t for step in steps]
    ascending = sorted(walk)
    ends = list(dict.fromkeys([walk[0], *(step.t for step in steps if step.event), steps[-1].t_next]))
    evaluated = set()
    for a, b in pairwise(map(grid.share, ends)):
        n = max(1, round(nfe * abs(b - a)))
        evaluated |= {nearest(grid.timestep(a + (b - a) * i / n), ascending) for i in range(n)}
    at = [i for i, t in enumerate(walk) if t in evaluated]
    return [replace(steps[i], then=tuple(step.t_next for step in steps[i + 1 : j])) for i, j in pairwise([*at, len(steps)])]
