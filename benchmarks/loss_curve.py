#!/usr/bin/env python3
"""Draw a training run's loss, h-influence and, where a column psnr_* gives it, PSNR to T from its loss.csv.

python benchmarks/loss_curve.py runs/avatars/loss.csv --out loss.png
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="what scripts/train_ddpm.py wrote; empty fields are left out")
    parser.add_argument("--out", type=Path, default=Path("loss.png"))
    args = parser.parse_args(argv)
    try:
        with open(args.csv, newline="") as file:
            rows = list(csv.DictReader(file))
        columns: dict[str, list[tuple[int, float]]] = {
            name: [(int(row["iteration"]), float(row[name])) for row in rows if row[name]]
            for name in (rows[0] if rows else {})
            if name != "iteration"
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        print(f"error: {args.csv}: not a loss.csv ({error})", file=sys.stderr)
        return 2
    if not columns:
        print(f"error: {args.csv}: no row in it", file=sys.stderr)
        return 2

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    psnr = {name: columns.pop(name) for name in list(columns) if name.startswith("psnr")}
    figure, axes = plt.subplots(1, 3 if psnr else 2, figsize=(15 if psnr else 10, 3.6))
    left, right = axes[0], axes[1]
    left.semilogy(*zip(*columns.pop("loss"), strict=True))
    left.set(xlabel="iteration", ylabel="loss")
    left.grid(True, which="both", alpha=0.3)
    for name, points in columns.items():
        right.plot(*zip(*points, strict=True), "o-", markersize=3, label=f"t = {name.rsplit('_', 1)[-1]}")
    right.set(xlabel="iteration", ylabel="h-influence (RMS change of $P_t$)", ylim=(0, None))
    right.grid(True, alpha=0.3)
    right.legend(fontsize="small")
    for name, points in psnr.items():
        axes[2].plot(*zip(*points, strict=True), "o-", markersize=3, label=name.removeprefix("psnr_"))
        axes[2].set(xlabel="iteration", ylabel="PSNR to T, median (dB)")
        axes[2].grid(True, alpha=0.3)
        axes[2].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(args.out, dpi=100)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
