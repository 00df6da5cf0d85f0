#!/usr/bin/env python3
"""The project page's walls of videos: every content in every style while gamma rises from 0.

    python scripts/figures/walls.py --config afhq.yml --t_boost 200 --gamma 0.3 --n_contents 2 --n_styles 3 \\
        --n_gen 1000 --content_dir my/dogs --style_dir my/dogs                                    # the AFHQ wall, 2 x 3
    python scripts/figures/walls.py --config celeba.yml --mask box ... --name walls_mask          # masked CelebA-HQ, 2 x 3
    python scripts/figures/walls.py --config celeba.yml --style_dir my/paintings --n_styles 8 ... --name walls_art     # 2 x 8

Takes a minute with the embedded model (up to gamma 0.6), an hour a wall on a GPU at 1000 steps.
To be seen: the styles' pictures at first; then each row grows into its content while the columns keep their colours.
Writes NAME.gif, the last frame as NAME.png and NAME.pdf, and the numbers of every frame.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
from dataclasses import replace
from pathlib import Path

from common import as_rows, check, grid, measure_each, parser, run, save, start, summary, transfer_each
from diffstyle.errors import UsageError
from diffstyle.figures.table import save_animation, table


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__, contents=2, styles=3)
    p.add_argument("--frames", type=int, default=7)
    p.add_argument("--name", default="walls")
    args = p.parse_args(argv)
    check(args, frames=1)
    if not args.name or args.name != Path(args.name).name or not args.name.isprintable():
        raise UsageError(f"--name {args.name!r}: give the name of a file, without its folder and ending")
    bench = start(args)
    gammas = [bench.settings.gamma * i / max(1, args.frames - 1) for i in range(args.frames)]
    results = transfer_each(bench, {f"γ = {gamma:.4g}": replace(bench.settings, gamma=gamma) for gamma in gammas})
    sheets = [table(grid(bench, x), row_title="content", column_title="style", title=label) for label, x in results.items()]
    save_animation(args.out / f"{args.name}.gif", sheets, seconds=0.4)
    samples = measure_each(bench, results)
    save(args.out, args.name, sheets[-1], as_rows(samples), summary(samples))


if __name__ == "__main__":
    sys.exit(run(main))
