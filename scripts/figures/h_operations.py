#!/usr/bin/env python3
"""Ways to combine the two bottleneck features: replace, add, Lerp, Slerp (the paper's figure and its ablation table).

The paper's order of quality is Replace < Lerp < Slerp, by identity (content against result, ours: edges) and by Gram style
loss (style against result). To be seen: replace and add break the picture or wash it out, because the norm of h no longer
fits the skips; Slerp with matched norms keeps it clean. What comes out here is printed, whichever way that is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from common import Row, compare, parser, run, save, start, summary, transfer_each

BLENDS = ("replace", "add", "lerp", "slerp")


def order(rows: Sequence[Row], measure: str, larger_is_better: bool) -> str:
    """The blends from worst to best by the mean of a measure."""
    means = {
        blend: sum(values) / len(values)
        for blend in BLENDS
        if (values := [float(row[measure]) for row in rows if row["variant"] == blend])
    }
    return " < ".join(sorted(means, key=lambda blend: means[blend] if larger_is_better else -means[blend]))


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__, contents=4, styles=4).parse_args(argv)
    bench = start(args)
    variants = {blend: replace(bench.settings, blend=blend) for blend in BLENDS}
    sheet, rows = compare(bench, transfer_each(bench, variants), f"combining h, γ = {args.gamma:g} (replace: whatever γ)")
    text = summary(rows)
    text += f"\n\nworst to best: edges to content {order(rows, 'edges_to_content', True)}; "
    text += f"Gram style loss {order(rows, 'gram_to_style', False)}"
    save(args.out, "h_operations", sheet, rows, text)


if __name__ == "__main__":
    sys.exit(run(main))
