#!/usr/bin/env python3
"""The gamma sweep (the paper's figure on content strength).

To be seen: at gamma 0 the style picture itself; with growing gamma the shape (hair outline, hat, glasses) becomes the
content's in colours led by the style's; near 1 the picture degrades. In the CSV edges_to_content rises with gamma, and so
does histogram_to_style, the price (with the embedded model hair turns two-coloured, so it comes near its largest value, 1).
"""

from __future__ import annotations

import sys
from dataclasses import replace

from common import compare, numbers, parser, run, save, start, summary, transfer_each


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__)
    p.add_argument("--values", default="0,0.2,0.4,0.6,0.8,1")
    args = p.parse_args(argv)
    values = numbers(args.values, "--values")
    bench = start(args)
    variants = {f"γ = {gamma:g}": replace(bench.settings, gamma=gamma) for gamma in values}
    sheet, rows = compare(bench, transfer_each(bench, variants), f"content strength γ, t_edit {args.t_edit}")
    save(args.out, "gamma", sheet, rows, summary(rows))


if __name__ == "__main__":
    sys.exit(run(main))
