#!/usr/bin/env python3
"""Figure 10: artistic references, styles from outside of the model's domain.

    python scripts/figures/fig10_art.py --config celeba.yml --gamma 0.4 --t_edit 400 --n_inv 1000 --n_gen 1000 \\
        --content_dir my/faces --style_dir my/paintings

Takes a minute and a half with the embedded model, an hour on a GPU with a 256x256 one at 1000 steps (or --n_inv 50 --n_gen 50).
To be seen: the content's face in the reference's colours and coarse texture. Only the style may be out of domain.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys

from common import ROOT, as_rows, grid, measure, parser, run, save, start, summary, transfer
from diffstyle.figures.table import table


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__, contents=2, styles=100, folder=ROOT / "test_images/art").parse_args(argv)
    bench = start(args)
    results = transfer(bench, bench.settings)
    samples = measure(bench, results, "art")
    title = f"artistic references, γ = {bench.settings.gamma:g}, t_edit {bench.settings.t_edit}"
    sheet = table(grid(bench, results), row_title="content", column_title="style", title=title)
    save(args.out, "fig10_art", sheet, as_rows(samples), summary(samples))


if __name__ == "__main__":
    sys.exit(run(main))
