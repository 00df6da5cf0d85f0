#!/usr/bin/env python3
"""The style-mixing grid: contents down, styles across (the paper's main qualitative figure).

To be seen: every row shows its content's shape, every column its style's colours.
"""

from __future__ import annotations

import sys

from grid import grid

from common import parser, run, save, start, summary


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__, contents=6, styles=6).parse_args(argv)
    sheet, rows = grid(start(args), f"γ = {args.gamma:g}, t_edit {args.t_edit}")
    save(args.out, "style_mixing", sheet, rows, summary(rows))


if __name__ == "__main__":
    sys.exit(run(main))
