#!/usr/bin/env python3
"""Every solver and budget against the official 1000/1000-step walk, over held-out pairs of the embedded model.

    python benchmarks/solvers.py --out results/solvers
    python benchmarks/solvers.py --cases gamma=0.4 gamma=0.4,omega=0.3 gamma=0.4,mask=box --out results/solvers

A pair costs two inversions and a transfer; pictures are avatars that training never saw, or with --pictures every content in
every style of a folder, each inverted once. All cases share the inversions, whose cost is counted in each. Writes solvers.csv
and solvers.png (error over evaluations, a line a solver) and prints the table of benchmarks/README.md. The reference takes
2,000 evaluations a pair, and 1,000 a case; --reuse takes what the last run's reference.pt has of it, seconds included.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from meter import Meter, flops_of
from torch import Tensor

import diffstyle
from diffstyle.errors import DiffstyleError, UsageError
from diffstyle.images import load_image
from diffstyle.pipeline import Inverted
from diffstyle.runs.inputs import list_images
from diffstyle.solvers import SOLVERS

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One solver and budget, per pair."""

    case: str  # what differs from the other settings
    solver: str
    budget: str  # nfe, or n_inv/n_gen of ddim
    evaluations: float  # FLOPs / FLOPs of one evaluation
    gflop: float
    seconds: float
    fewer: float  # evaluations, reference / this
    faster: float  # seconds, reference / this
    psnr_median: float = float("inf")
    psnr_p10: float = float("inf")
    psnr_min: float = float("inf")
    rms: float = 0.0  # median root mean square error, pictures in [-1, 1]
    max_error: float = 0.0


def held_out(pairs: int, size: int) -> tuple[Tensor, Tensor]:
    """Contents and styles (N, 3, H, W) in [-1, 1], drawn from seed 1, which training never sees."""
    from make_avatars import render, sample_attributes

    pictures = [torch.tensor(render(sample_attributes(1, i), size)) for i in range(2 * pairs)]
    x = torch.stack(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    return x[0::2], x[1::2]


def from_folder(folder: Path, size: int) -> tuple[Tensor, Tensor]:
    """The pictures in its folders contents and styles, (N, 3, H, W) in [-1, 1] each."""
    sides = (list_images(folder / side, "--pictures") for side in ("contents", "styles"))
    contents, styles = (torch.stack([load_image(path, size) for path in paths]) for paths in sides)
    return contents, styles


@dataclass(frozen=True)
class Sides:
    """The inverted pictures of a run, and what that cost."""

    content: Inverted
    style: Inverted
    seconds: float
    flops: int


def invert(model: diffstyle.Model, contents: Tensor, styles: Tensor, s: diffstyle.Settings, batch: int) -> Sides:
    meter = Meter(model.unet, model.config.image_size)
    model = replace(model, unet=meter)
    start = time.perf_counter()
    content = diffstyle.api.invert_all(model, contents, [str(k) for k in range(len(contents))], s, batch, latent=False)
    style = diffstyle.api.invert_all(model, styles, [str(k) for k in range(len(styles))], s, batch, keep=())
    return Sides(content, style, time.perf_counter() - start, meter.flops)


Found = tuple[Tensor, float, int]  # results (N, 3, H, W), and the seconds and FLOPs of all pairs, inversions included


def transfer(model: diffstyle.Model, sides: Sides, differs: dict[str, Any], batch: int, all_pairs: bool) -> Found:
    """The i-th content in the i-th style, or with ``all_pairs`` every content in every style."""
    meter = Meter(model.unet, model.config.image_size)
    start = time.perf_counter()
    results = diffstyle.transfer(
        replace(model, unet=meter), sides.content, sides.style, batch, one_to_one=not all_pairs, **differs
    ).flatten(0, -4)  # all pairs come as (C, S, 3, H, W)
    return results, sides.seconds + time.perf_counter() - start, sides.flops + meter.flops


def references(
    path: Path,
    key: list[Any],
    cases: dict[str, dict[str, Any]],
    inverted: Callable[[], Sides],
    transferred: Callable[[Sides, dict[str, Any]], Found],
) -> dict[str, Found]:
    """What the plain walks give. They take hours: whatever ``path`` knows is not done again, and every case is kept at once."""
    with torch.serialization.safe_globals([Sides, Inverted, diffstyle.Settings]):
        stored = torch.load(path, weights_only=True) if path.is_file() else {}
    if stored.get("key") != key:
        stored = {"key": key, "found": {}}
    for case, differs in cases.items():
        if case not in stored["found"]:
            if "sides" not in stored:
                stored["sides"] = inverted()
                torch.save(stored, path)
            stored["found"][case] = transferred(stored["sides"], differs)
            torch.save(stored, path)
    return {case: stored["found"][case] for case in cases}


def compare(x: Tensor, reference: Tensor) -> dict[str, float]:
    """Errors of the pictures as they are saved, clamped to [-1, 1]."""
    error = (x.clamp(-1, 1) - reference.clamp(-1, 1)).double()
    rms = error.square().mean((1, 2, 3)).sqrt()
    psnr = 20 * (2 / rms.clamp_min(1e-12)).log10()
    return {
        "psnr_median": float(psnr.quantile(0.5)),
        "psnr_p10": float(psnr.quantile(0.1)),
        "psnr_min": float(psnr.min()),
        "rms": float(rms.median()),
        "max_error": float(error.abs().max()),
    }


def differences(case: str) -> dict[str, Any]:
    """The settings that ``NAME=VALUE,NAME=VALUE`` names. Raises UsageError where it names none."""
    kinds = {"gamma": float, "omega": float, "t_edit": int, "t_boost": int, "mask": str}
    try:
        return {name: kinds[name](value) for name, value in (part.split("=") for part in case.split(","))}
    except (ValueError, KeyError):
        raise UsageError(f"--cases {case}: use NAME=VALUE[,NAME=VALUE ...] with {', '.join(kinds)}") from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="avatars.yml")
    parser.add_argument("--model_path")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--pictures", type=Path, help="a folder with contents and styles, instead of held-out avatars")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--cases", nargs="+", default=["gamma=0.4", "gamma=0.4,t_boost=200"], metavar="NAME=VALUE[,...]")
    parser.add_argument("--solvers", nargs="+", default=[s for s in SOLVERS if s != "ddim"], choices=list(SOLVERS))
    parser.add_argument("--nfe", type=int, nargs="+", default=[16, 24, 32, 40, 64])
    parser.add_argument("--ddim", type=int, nargs="*", default=[50, 200], help="plain walks of so many steps")
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/solvers"))
    args = parser.parse_args()
    try:
        cases = {case: differences(case) for case in args.cases}
        model = diffstyle.load(args.config, args.model_path, args.device)
    except DiffstyleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code

    args.out.mkdir(parents=True, exist_ok=True)
    size = model.config.image_size
    contents, styles = from_folder(args.pictures, size) if args.pictures else held_out(args.pairs, size)
    pairs = len(contents) * len(styles) if args.pictures else args.pairs
    base = diffstyle.Settings(n_inv=1000, n_gen=1000)

    def inverted(s: diffstyle.Settings) -> Sides:
        return invert(model, contents, styles, s, args.batch_size)

    def transferred(sides: Sides, differs: dict[str, Any]) -> Found:
        return transfer(model, sides, differs, args.batch_size, bool(args.pictures))

    def run(s: diffstyle.Settings) -> dict[str, Found]:
        sides = inverted(s)
        return {case: transferred(sides, differs) for case, differs in cases.items()}

    known, key = args.out / "reference.pt", [model.digest, str(args.pictures), args.pairs]
    if not args.reuse:
        known.unlink(missing_ok=True)
    reference = references(known, key, cases, lambda: inverted(base), transferred)

    plans = [("ddim", f"{n}/{n}", replace(base, n_inv=n, n_gen=n)) for n in args.ddim]
    plans += [(name, str(n), replace(base, solver=name, nfe=n)) for name in args.solvers for n in args.nfe]
    one = sum(flops_of(model.unet, model.config.image_size))
    rows = []
    print("| case | solver | budget | evaluations | fewer | seconds | faster | median PSNR | 10 % below | least | max error |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for solver, budget, s in [("ddim", "1000/1000", base), *plans]:
        found = reference if s is base else run(s)
        for case, (x, seconds, flops) in found.items():
            theirs, their_seconds, their_flops = reference[case]
            errors = compare(x, theirs) if s is not base else {}
            row = Row(case, solver, budget, flops / one / pairs, flops / pairs / 1e9, seconds / pairs,
                      their_flops / flops, their_seconds / seconds, **errors)  # fmt: skip
            rows.append(row)
            cost = f"{row.evaluations:.0f} | {row.fewer:.1f}x | {row.seconds:.2f} | {row.faster:.1f}x"
            match = f"{row.psnr_median:.1f} | {row.psnr_p10:.1f} | {row.psnr_min:.1f} | {row.max_error:.3f}"
            print(f"| {case} | {solver} | {budget} | {cost} | {match} |", flush=True)
            with open(args.out / "solvers.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, list(asdict(row)))
                writer.writeheader()
                writer.writerows(asdict(r) for r in rows)
    plot(rows, args.out / "solvers.png")
    print(args.out / "solvers.csv")
    return 0


def plot(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    cases = list(dict.fromkeys(row.case for row in rows))
    figure, axes = plt.subplots(1, len(cases), figsize=(5.5 * len(cases), 4.2), squeeze=False, sharey=True)
    for axis, case in zip(axes[0], cases, strict=True):
        for solver in dict.fromkeys(row.solver for row in rows):
            points = sorted((r.evaluations, r.rms) for r in rows if (r.solver, r.case) == (solver, case) and r.rms)
            axis.loglog(*zip(*points, strict=True), "o-", label=solver) if points else None
        full = max(row.evaluations for row in rows)
        for fewer, psnr in ((28, 45), (33, 40), (25, 48)):  # the targets of the project
            axis.plot(full / fewer, 2 * 10 ** (-psnr / 20), "k*", label=f"{psnr} dB at {fewer}x fewer")
        axis.set(title=case, xlabel="evaluations a pair (two inversions, one transfer)")
        axis.xaxis.set_major_locator(LogLocator(subs=[1, 1.25, 1.5, 2, 3, 5]))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(True, which="both", alpha=0.3)
    axes[0][0].set_ylabel("RMS difference to ddim 1000/1000, pictures in [-1, 1]")
    axes[0][-1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
