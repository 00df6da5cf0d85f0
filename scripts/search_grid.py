#!/usr/bin/env python3
"""Where along a walk a model must be asked, for solvers other than ddim: found on pictures of its own domain.

    python scripts/search_grid.py                                              # the embedded model
    python scripts/search_grid.py --config celeba.yml --images my/faces

Records eps at every step of the official inversion of a few pictures, and chooses the timesteps for which the polynomial through
the recorded eps, summed as the walk sums it, is nearest to the true sum: by dynamic programming, as GITS does it (arXiv
2405.11326). Writes grids/NAME.json beside the config, which is read whenever the config is. Takes three minutes for the embedded
model on one core: an official inversion of each picture.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from measuring import grid_flags, model_with_grid
from torch import Tensor
from tqdm import tqdm

from diffstyle.console import at_least, exit_code
from diffstyle.diffusion import Schedule, ddim_step, predict_x0
from diffstyle.files import write_json
from diffstyle.images import load_image
from diffstyle.model import Model
from diffstyle.runs.inputs import list_images
from diffstyle.sampling import timestep
from diffstyle.solvers import noise_ratio
from diffstyle.steps import inversion_steps, warp
from diffstyle.zoo.grids import to_grid

ROOT = Path(__file__).resolve().parents[1]
Array = npt.NDArray[np.float64]

NODES = 24  # evaluations for which the grid is searched; others are spread like these
SPACING = 0.22  # of candidate timesteps, in warp(t)
# How much of an error of y = x / sqrt(abar), made at noise ratio s, is left in the picture: about 1 / sqrt(1 + (s / FADING)^2).
# Measured with the embedded model: 0.5 to 0.9 below s = 6 (t = 600), 0.1 to 0.8 by the picture at 25, 0.05 at 60. 8 is the
# mean, with 16 those pictures do better that keep most of it.
FADING = 16.0


def faded(s: Array) -> Array:
    return 1 / np.sqrt(1 + (s / FADING) ** 2)


# ---- what is recorded --------------------------------------------------------------------------------------------------


@torch.inference_mode()
def recorded(model: Model, x0: Tensor) -> Tensor:
    """eps (T - 1, N, C H W) at every step of the official inversion of x0 (N, C, H, W)."""
    x, eps = x0.to(model.device), []
    for step in tqdm(inversion_steps(1000), desc="inversion", leave=False):
        e = model.unet(x, timestep(step.t, x))
        eps.append(e.flatten(1).cpu())
        x = ddim_step(predict_x0(x, e, model.schedule(step.t)), e, model.schedule(step.t_next))
    return torch.stack(eps)


def products(eps: Tensor) -> Array:
    """Mean products <eps_i, eps_j> (T - 1, T - 1) over pixels and pictures: all that the error of a weighted sum depends on."""
    return np.mean([(e @ e.T).double().numpy() / e.shape[1] for e in eps.unbind(1)], 0)


# ---- the search --------------------------------------------------------------------------------------------------------


class Legs:
    """Squared errors of legs of the walk, from the products of eps and the walk's weights."""

    def __init__(self, G: Array, schedule: Schedule) -> None:
        n = len(G)
        s = np.array([noise_ratio(schedule(t)) for t in range(n + 1)])
        ds = np.diff(s)
        self.G, self.faded, self.u = G, faded(s), np.sqrt(np.arange(n + 1) + 1.0)
        # Sums over the steps before t, of eps with itself and with each eps, and of the powers of u = warp(t).
        self.with_each = np.vstack([np.zeros(n), np.cumsum(ds[:, None] * G, 0)])
        both = np.cumsum(np.cumsum(ds[:, None] * ds * G, 0), 1)
        self.with_sum = np.pad(both, ((1, 0), (1, 0)))
        self.moments = [np.concatenate([[0], np.cumsum(ds * self.u[:n] ** p)]) for p in range(3)]

    def error(self, known: Sequence[npt.NDArray[np.int64]], a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> Array:
        """Of the walk from a to b (arrays of timesteps) with the polynomial through ``known`` (two or three such arrays)."""
        m0, m1, m2 = (m[b] - m[a] for m in self.moments)
        weights = []
        for j, t in enumerate(known):
            o = [self.u[other] for i, other in enumerate(known) if i != j]
            top = m1 - o[0] * m0 if len(o) == 1 else m2 - (o[0] + o[1]) * m1 + o[0] * o[1] * m0
            weights.append(top / np.prod([self.u[t] - each for each in o], 0))
        e: Array = self.with_sum[b, b] - 2 * self.with_sum[a, b] + self.with_sum[a, a]
        for w, t in zip(weights, known, strict=True):
            e = e - 2 * w * (self.with_each[b, t] - self.with_each[a, t])
            e = e + sum(w * v * self.G[t, other] for v, other in zip(weights, known, strict=True))
        return np.maximum(e, 0) * self.faded[a] ** 2


def search(G: Array, schedule: Schedule, nodes: int) -> list[int]:
    """The best ``nodes`` timesteps to ask at, ascending from 0: least sum of squared errors of the legs between them.

    A state is the last two timesteps; the next leg's polynomial runs through these and its end, as a corrector's does.
    """
    legs, top = Legs(G, schedule), len(G)
    C = np.array(sorted({t for i in range(int(warp(top) / SPACING) + 1) if (t := round((i * SPACING) ** 2)) < top}))
    K = len(C)
    cost = np.full((K, K), np.inf)  # of the best way to (a, b)
    start = np.zeros(K - 1, np.int64)
    cost[0, 1:] = legs.error([start, C[1:]], start, C[1:])
    step = np.full((K, K, K), np.inf, np.float32)
    end = np.full((K, K), np.inf)  # the last leg, beyond which nothing is known
    for a in range(K):
        b = C[a + 1 :]
        end[a, a + 1 :] = legs.error([np.full(len(b), C[a]), b], b, np.full(len(b), top))
        for i in range(a + 1, K - 1):
            c = C[i + 1 :]
            step[a, i, i + 1 :] = legs.error([np.full(len(c), C[a]), np.full(len(c), C[i]), c], np.full(len(c), C[i]), c)
    ways = []
    for _ in range(nodes - 2):
        whole = cost[:, :, None] + step
        ways.append(whole.argmin(0))
        cost = whole.min(0)
    last, end_of_it = divmod(int((cost + end).argmin()), K)
    found = [end_of_it, last]
    for way in reversed(ways):
        found.append(int(way[found[-1], found[-2]]))
    return [int(C[i]) for i in reversed(found)]


def smoothed(ts: Sequence[int]) -> list[int]:
    """Means of five neighbours in warp(t), fewer at the ends, which stay.

    Where exactly the best timesteps lie is chance of the pictures looked at; how dense they are is the model's. With the embedded
    model 24 evaluations are 2.6 dB nearer so in the median of 32 other pairs, the furthest pair 15 dB.
    """
    u, last = [warp(t) for t in ts], len(ts) - 1
    near = [u[i - k : i + k + 1] for i, k in ((i, min(i, last - i, 2)) for i in range(len(u)))]
    return [round((sum(each) / len(each)) ** 2 - 1) for each in near]


def work(args: argparse.Namespace) -> None:
    at_least(args, n_images=1, batch_size=1)
    model, _, out = model_with_grid(args)
    paths = list_images(args.images, "--images", recursive=True)
    paths = paths[:: max(1, len(paths) // args.n_images)][: args.n_images]
    x0 = torch.stack([load_image(picture, model.config.image_size) for picture in paths])
    G = np.zeros((999, 999))
    for batch in x0.split(args.batch_size):
        G += products(recorded(model, batch)) * len(batch) / len(x0)
    ts = smoothed([*search(G, model.schedule, NODES), 999])
    record = {
        "t": ts, "share": [round(i / NODES, 6) for i in range(NODES + 1)],
        "config": model.config.name, "checkpoint": model.path.name, "sha256": model.digest, "pictures": len(x0),
    }  # fmt: skip
    to_grid(record, 1000)
    write_json(out, record)
    print(f"{len(x0)} pictures; {NODES} evaluations at t = {', '.join(map(str, ts[:-1]))}")
    print(out)


def main(argv: list[str] | None = None) -> int:
    parser = grid_flags(__doc__, n_images=8, images=ROOT / "test_images/avatars")
    args = parser.parse_args(argv)
    return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
