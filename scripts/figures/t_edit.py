#!/usr/bin/env python3
"""How long content is injected: the t_edit sweep (the paper's figure on the editing interval).

To be seen: injecting only at large t changes the coarse outline; the further down it goes, the more of the content (face,
glasses, mouth) arrives, and the more the style's details are disturbed. In the CSV edges_to_content rises as t_edit falls.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from common import compare, numbers, parser, run, save, start, summary, transfer_each


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__)
    p.add_argument("--values", default="800,600,400,200,0")
    args = p.parse_args(argv)
    values = [int(t) for t in numbers(args.values, "--values")]
    bench = start(args)
    variants = {f"t_edit = {t}": replace(bench.settings, t_edit=t) for t in values}
    sheet, rows = compare(bench, transfer_each(bench, variants), f"injection at t ≥ t_edit, γ = {args.gamma:g}")
    save(args.out, "t_edit", sheet, rows, summary(rows))


if __name__ == "__main__":
    sys.exit(run(main))
