#!/usr/bin/env python3
"""With and without style calibration: the omega sweep (the paper's figure and ablation of section 3.3).

To be seen: without calibration (omega 0) colours wash towards the content's; calibration brings them back, and a larger
omega keeps more of the style and less of the content. In the CSV histogram_to_style and edges_to_content both fall with omega.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
from figures.common import compare, numbers, parser, run, save, start, summary, transfer_each  # noqa: E402


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
