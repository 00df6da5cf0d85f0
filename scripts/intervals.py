#!/usr/bin/env python3
"""Where to inject and where to add noise: t_edit and t_boost of a model, from pictures of its own domain.

    python scripts/intervals.py                                                          # the embedded model
    python scripts/intervals.py --config celeba.yml --images my/faces --n_images 100     # the published rule took 100

Asyrp's rule (arXiv 2210.10960, section 4), which DiffStyle inherits: invert pictures, and see how far the prediction P_t is from
the picture x0 at each t. t_edit is the first t at which mean LPIPS(P_t, x0) reaches 0.33, because from there on P_t no longer
fixes what the picture is; t_boost is the first at which it reaches 0.1, below which only fine detail is open.

LPIPS is taken where its weights are on this machine. Elsewhere the distance is the perceptual one on EfficientNet-Lite0 of
docs/metrics.md, with thresholds of our own: 1/2 and 1/6 of the mean distance between two different pictures of the set, about
what 0.33 and 0.1 are of the LPIPS between two unrelated faces. The table says which of the two it is.

Writes the table, the plot and the curves' numbers into --out, and NAME.intervals.json beside the checkpoint, which main.py reads
for --t_edit auto and --t_boost auto. Takes two minutes for the embedded model on one core.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import csv
import io
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import flags
from torch import Tensor

from diffstyle.api import load
from diffstyle.console import at_least, exit_code
from diffstyle.errors import UsageError, WorkError
from diffstyle.figures import feature_networks, metrics
from diffstyle.files import open_folder, write_json, write_whole
from diffstyle.images import load_image
from diffstyle.model import Model
from diffstyle.runs.inputs import list_images
from diffstyle.runs.intervals import intervals_file
from diffstyle.runs.places import check_kept
from diffstyle.sampling import invert
from diffstyle.steps import inversion_steps

ROOT = Path(__file__).resolve().parents[1]

Distance = Callable[[Tensor, Tensor], Tensor]  # two batches (N, 3, H, W) in about [-1, 1] to (N,)


@dataclass(frozen=True)
class Rule:
    """A distance, and the values of it at which an interval begins."""

    name: str
    distance: Distance
    edit: float
    boost: float


@dataclass(frozen=True)
class Point:
    """Mean distances to x0 at one timestep."""

    t: int
    P_t: float
    x_t: float


# ---- distances ---------------------------------------------------------------------------------------------------


def pick_rule(x0: Tensor, heads: Path | None) -> Rule:
    """LPIPS with the published thresholds, or Lite0 with thresholds from the pictures (N, 3, H, W) themselves."""
    try:
        features, weights = feature_networks.alex_lpips(heads)
        return Rule("LPIPS (AlexNet)", as_distance(features, weights), 0.33, 0.1)
    except feature_networks.AbsentError as error:
        print(f"LPIPS: n/a, {error}")
    try:
        network = feature_networks.lite0()
    except feature_networks.AbsentError as error:
        raise WorkError(f"neither LPIPS nor the offline distance can be had: {error}") from None
    distance = as_distance(network.maps, None)
    pairs = list(itertools.combinations(range(len(x0)), 2))[:200]
    if not pairs:
        raise UsageError("--images: the offline thresholds need two pictures or more")
    unrelated = torch.cat([distance(x0[i : i + 1], x0[j : j + 1]) for i, j in pairs]).mean().item()
    return Rule(f"EfficientNet-Lite0 (unrelated pictures: {unrelated:.3f})", distance, unrelated / 2, unrelated / 6)


def as_distance(features: metrics.Features, weights: Sequence[Tensor] | None) -> Distance:
    """The perceptual distance of pictures in [-1, 1], which the feature networks take in [0, 1]."""
    return lambda a, b: metrics.lpips(features((a + 1) / 2), features((b + 1) / 2), weights)


# ---- the walk ----------------------------------------------------------------------------------------------------


def predicted(x: Tensor, x_next: Tensor, abar: float, abar_next: float) -> Tensor:
    """P_t from both ends of one DDIM step: x = sqrt(abar) P + sqrt(1 - abar) eps, and the same P and eps in x_next."""
    a, b, a_next, b_next = math.sqrt(abar), math.sqrt(1 - abar), math.sqrt(abar_next), math.sqrt(1 - abar_next)
    return (b_next * x - b * x_next) / (a * b_next - a_next * b)


def distances(model: Model, x0: Tensor, rule: Rule, n_inv: int, batch_size: int) -> list[Point]:
    """Mean distances of P_t and x_t to x0 (N, 3, H, W) at every step of the inversion, upwards."""
    steps = inversion_steps(n_inv, model.config.timesteps - 1)
    sums = np.zeros((len(steps), 2))
    for batch in x0.split(batch_size):
        x = batch.to(model.device)
        for i, (step, x_next, _) in enumerate(invert(model.unet, x, steps, model.schedule)):
            P = predicted(x, x_next, model.schedule(step.t), model.schedule(step.t_next))
            sums[i] += [rule.distance(y.float().cpu(), batch).sum().item() for y in (P, x)]
            x = x_next
    means = sums / len(x0)
    return [Point(step.t, float(P), float(x)) for step, (P, x) in zip(steps, means, strict=True)]


def first(points: Sequence[Point], threshold: float) -> int:
    """The first t at which P_t is this far from x0. Raises WorkError where it never is."""
    for point in points:
        if point.P_t >= threshold:
            return point.t
    raise WorkError(f"P_t never comes as far from x0 as {threshold:.3f}: this rule finds no interval for the model")


# ---- what is written ---------------------------------------------------------------------------------------------


def draw(points: Sequence[Point], rule: Rule, t_edit: int, t_boost: int, out: Path) -> None:
    """intervals.png, and intervals.pdf as vectors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    axis.plot([p.t for p in points], [p.P_t for p in points], label="P_t to x0")
    axis.plot([p.t for p in points], [p.x_t for p in points], label="x_t to x0", color="tab:grey")
    for name, t, height in (("t_edit", t_edit, rule.edit), ("t_boost", t_boost, rule.boost)):
        axis.plot([0, t, t], [height, height, 0], "k:", linewidth=1)
        axis.annotate(f"{name} = {t}", (t, height), xytext=(4, -12), textcoords="offset points")
    axis.set(xlabel="t", ylabel="mean distance", ylim=(0, None), xlim=(0, None), title=rule.name)
    axis.grid(True, alpha=0.3)
    axis.legend()
    figure.tight_layout()
    for ending in ("png", "pdf"):
        write_whole(out / f"intervals.{ending}", partial(figure.savefig, format=ending, dpi=150))
    plt.close(figure)


def work(args: argparse.Namespace) -> None:
    at_least(args, n_images=1, n_inv=2, batch_size=1)
    if args.lpips_heads is not None and not args.lpips_heads.is_file():
        raise UsageError(f"--lpips_heads {args.lpips_heads}: no such file")
    open_folder(args.out, "--out")
    model = load(args.config, args.model_path, args.device)
    if args.n_inv > model.config.timesteps:
        raise UsageError(f"--n_inv {args.n_inv}: {model.config.name} has {model.config.timesteps} timesteps")
    paths = list_images(args.images, "--images", recursive=True)[: args.n_images]
    written = [*(args.out / f"intervals.{ending}" for ending in ("csv", "png", "pdf")), intervals_file(model.path)]
    check_kept(written, paths, "choose another --out")
    x0 = torch.stack([load_image(path, model.config.image_size) for path in paths])
    rule = pick_rule(x0, args.lpips_heads)
    points = distances(model, x0, rule, args.n_inv, args.batch_size)
    t_edit, t_boost = first(points, rule.edit), first(points, rule.boost)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("t", "P_t", "x_t"), *((p.t, f"{p.P_t:.5f}", f"{p.x_t:.5f}") for p in points)])
    write_whole(args.out / "intervals.csv", lambda f: f.write(text.getvalue().encode()))
    draw(points, rule, t_edit, t_boost, args.out)
    record = {
        "t_edit": t_edit, "t_boost": t_boost, "distance": rule.name, "thresholds": {"t_edit": rule.edit, "t_boost": rule.boost},
        "config": model.config.name, "checkpoint": model.path.name, "sha256": model.digest, "pictures": len(paths),
        "n_inv": args.n_inv, "table": [[p.t, round(p.P_t, 5), round(p.x_t, 5)] for p in points],
    }  # fmt: skip
    write_json(intervals_file(model.path), record)

    print(f"{len(paths)} pictures, {args.n_inv} steps, {rule.name}\n\n| t | P_t to x0 | x_t to x0 |\n|---|---|---|")
    for p in points[:: max(1, len(points) // 20)]:
        print(f"| {p.t} | {p.P_t:.4f} | {p.x_t:.4f} |")
    print(f"\nt_edit {t_edit} (P_t reaches {rule.edit:.3f}), t_boost {t_boost} (P_t reaches {rule.boost:.3f})")
    print(args.out / "intervals.png")
    print(f"{intervals_file(model.path)}: read by --t_edit auto and --t_boost auto")


def main(argv: list[str] | None = None) -> int:
    parser = flags(__doc__, n_images=100, images=ROOT / "test_images/avatars", batch_size=6)
    parser.add_argument("--n_inv", type=int, default=50, help="steps of the inversion: how finely t is looked at")
    parser.add_argument("--lpips_heads", type=Path, help="learned heads of LPIPS (default: those of the package lpips)")
    parser.add_argument("--out", type=Path, default=ROOT / "results/intervals")
    args = parser.parse_args(argv)
    return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
