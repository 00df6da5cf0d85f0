#!/usr/bin/env python3
"""Figure 5: linear against spherical interpolation of the two bottleneck features.

Lerp cuts the corner between two directions, so its result is shorter than both ends; Slerp with matched norms stays on the
sphere. The plot shows ||h~|| / ||h|| over t for every way of blending, mean over pairs, from the inverted pictures alone.

    python scripts/figures/fig5_blends.py --config celeba.yml --content_dir my/faces --style_dir my/styles

Takes a minute with the embedded model, ten minutes on a GPU with a 256x256 one (40 transfers).
To be seen: in the plot Slerp at 1, Lerp below it and add far above; in the paper's pictures Lerp is paler and flatter in the
middle of the range. With the embedded model Lerp loses less than a tenth of the norm, which cannot be seen in its pictures.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
from dataclasses import replace

import torch

from common import Bench, Row, as_rows, measure_each, numbers, parser, plots, run, save, save_plot, start, summary, transfer_each
from diffstyle.figures.table import Cell, table
from diffstyle.hspace import BLENDS, Blend, norm
from diffstyle.images import to_image
from diffstyle.runs.sweep import show


def norm_ratios(bench: Bench, kind: str, gamma: float) -> list[tuple[int, float]]:
    """(t, mean over pairs of ||h~|| / ||h||) for each timestep at which h was kept."""
    blend, found = Blend(gamma=gamma, kind=kind), []
    for t, h_content in sorted(bench.content.h.items()):
        h = bench.style.h[t].repeat(len(h_content), 1, 1, 1)
        mixed = blend(h, h_content.repeat_interleave(len(bench.style), 0))
        found.append((t, (norm(mixed) / norm(h)).mean().item()))
    return found


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__, contents=2, styles=2)
    p.add_argument("--values", default="0.2,0.4,0.6,0.8,1")
    args = p.parse_args(argv)
    values = numbers(args.values, "--values")
    bench = start(args)
    variants = {
        f"{blend}, γ = {show(gamma)}": replace(bench.settings, blend=blend, gamma=gamma)
        for blend in ("lerp", "slerp")
        for gamma in values
    }
    results = transfer_each(bench, variants)
    rows: list[list[Cell]] = []
    for i in range(min(len(bench.contents), len(bench.styles))):
        inputs = [to_image(bench.contents[i]), to_image(bench.styles[i])]
        shown = [to_image(x[i, i]) for x in results.values()]
        rows += [[*inputs, *shown[: len(values)]], [*inputs, *shown[len(values) :]]]
    columns = ["content", "style", *(f"γ = {show(v)}" for v in values)]
    sheet = table(rows, row_labels=["lerp", "slerp"] * (len(rows) // 2), column_labels=columns, title="lerp and slerp of h")
    samples = measure_each(bench, results)
    save(args.out, "fig5_blends", sheet, as_rows(samples), summary(samples))

    figure, (axis,) = plots(1, 1, width=6.4, height=3.8)
    norms: list[Row] = []
    middle = values[(len(values) - 1) // 2]
    for kind in BLENDS:
        line = norm_ratios(bench, kind, middle)
        axis.plot(*zip(*line, strict=True), "o-", markersize=3, label=kind)
        norms += [{"blend": kind, "t": t, "ratio": ratio} for t, ratio in line]
    axis.set(xlabel="t", ylabel="‖h~‖ / ‖h‖", title=f"norm of the blended h at γ = {middle:g}")
    axis.legend()
    save(args.out, "fig5_blends_norms", None, norms)
    save_plot(args.out, "fig5_blends_norms", figure)
    ratios = {kind: torch.tensor([float(row["ratio"]) for row in norms if row["blend"] == kind]).mean() for kind in BLENDS}
    print("mean of the norm's ratio: " + ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in ratios.items()))


if __name__ == "__main__":
    sys.exit(run(main))
