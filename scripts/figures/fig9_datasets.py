#!/usr/bin/env python3
"""Figure 9: style mixing with every model: contents down, styles across, for each config whose checkpoint is here.

    python scripts/figures/fig9_datasets.py                              # all that are present
    python scripts/figures/fig9_datasets.py --config afhq.yml --n_gen 1000 --content_dir my/dogs --style_dir my/dogs

Takes half a minute for the embedded model and minutes a pair for a 256x256 one on a CPU; seconds a pair on a GPU.
To be seen: every row shows its content's shape, every column its style's colours, on every domain. A config without a
checkpoint is named as absent, above the pictures and in the CSV with the reason; nothing is downloaded (scripts/download.py
does).
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
from pathlib import Path

from common import AVATARS, ROOT, Row, as_rows, grid, measure, parser, run, save, start, summary, transfer
from diffstyle.errors import UsageError, WorkError
from diffstyle.figures.measures import Sample
from diffstyle.figures.table import Cell, table
from diffstyle.zoo.checkpoints import find_checkpoint
from diffstyle.zoo.config import load_config

PHOTOS = ROOT / "test_images/photos"


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__, contents=4, styles=4)
    p.set_defaults(config="all", content_dir=None, style_dir=None)
    args = p.parse_args(argv)
    if args.model_path and args.config == "all":
        raise UsageError("--model_path: say with --config which model it is")
    found = sorted(path.stem for path in (ROOT / "configs").glob("*.yml") if path.stem != "custom")
    given = args.model_path, args.content_dir, args.style_dir
    cells: list[list[Cell]] = []
    labels: list[str] = []
    samples: list[Sample] = []
    absent: list[Row] = []
    for name in found if args.config == "all" else [args.config]:
        stem = Path(name).stem
        try:
            config = load_config(name)
            args.model_path = str(find_checkpoint(config, Path(given[0]) if given[0] else None, download=False))
        except WorkError as error:
            print(f"{name}: absent ({error})")
            absent.append({"variant": stem, "reason": str(error)})
            continue
        folder = AVATARS if config.image_size == 64 else PHOTOS
        args.config = name
        args.content_dir, args.style_dir = given[1] or folder / "contents", given[2] or folder / "styles"
        bench = start(args)
        results = transfer(bench, bench.settings)
        rows = grid(bench, results)
        cells += rows
        labels += [stem] + [""] * (len(rows) - 1)
        samples += measure(bench, results, stem)
    cells, labels = cells or [[None]], labels or ["no checkpoint"]
    width = max(map(len, cells))
    title = "contents down, styles across" + (f"; absent: {', '.join(str(row['variant']) for row in absent)}" if absent else "")
    sheet = table([row + [None] * (width - len(row)) for row in cells], row_labels=labels, title=title)
    listed = [*as_rows(samples), *absent]
    columns = dict.fromkeys(key for row in listed for key in row)
    save(args.out, "fig9_datasets", sheet, [{key: row.get(key, "n/a") for key in columns} for row in listed],
         summary(samples) if samples else "no checkpoint is present")  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
