#!/usr/bin/env python3
"""With and without style calibration: the omega sweep (the paper's figure and ablation of section 3.3).

To be seen: without calibration (omega 0) colours wash towards the content's; up to about 0.7 calibration brings them back, at
the price of content: histogram_to_style and edges_to_content in the CSV both fall. At omega 1 the shape is the style picture's
again, but with the embedded model its colours are overdriven: P' is brought to P's standard deviation, so the calibrated
pictures need not come back to the style exactly, and histogram_to_style rises again.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from common import compare, numbers, parser, run, save, start, summary, transfer_each


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__)
    p.add_argument("--values", default="0,0.1,0.3,0.7,1")
    args = p.parse_args(argv)
    values = numbers(args.values, "--values")
    bench = start(args)
    variants = {
        f"ω = {omega:g}" if omega else "not calibrated": replace(bench.settings, omega=omega) for omega in values
    }
    sheet, rows = compare(bench, transfer_each(bench, variants), f"style calibration ω, γ = {args.gamma:g}")
    save(args.out, "omega", sheet, rows, summary(rows))


if __name__ == "__main__":
    sys.exit(run(main))
