#!/usr/bin/env python3
"""Artistic references: styles from outside of the model's domain (the paper's figure of this name).

To be seen: the content's face in the reference's colours and coarse texture. Only the style may be out of domain.
"""

from __future__ import annotations

import sys

from grid import grid

from common import ROOT, parser, run, save, start, summary


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__, contents=3, styles=8, folder=ROOT / "test_images/art").parse_args(argv)
    sheet, rows = grid(start(args), f"artistic references, γ = {args.gamma:g}, t_edit {args.t_edit}")
    save(args.out, "art", sheet, rows, summary(rows))


if __name__ == "__main__":
    sys.exit(run(main))
