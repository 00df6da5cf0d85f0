#!/usr/bin/env python3
"""Style mixing with every config whose checkpoint is on this machine (the paper's figure over all datasets).

To be seen: the same behaviour on every domain. A config without a checkpoint is named as absent, in an empty row and in the
CSV with the reason; nothing is downloaded (scripts/download.py does). On a CPU the 256x256 models take minutes a picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from common import AVATARS, ROOT, Row, measure, parser, run, save, start, summary, transfer
from diffstyle.errors import UsageError, WorkError
from diffstyle.figures.table import Cell, table
from diffstyle.images import to_image
from diffstyle.zoo.checkpoints import find_checkpoint
from diffstyle.zoo.config import load_config

PHOTOS = ROOT / "test_images/photos"
PAIRS = 3


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__, contents=2, styles=2)
    p.set_defaults(config="all", content_dir=None, style_dir=None)
    args = p.parse_args(argv)
    if args.model_path and args.config == "all":
        raise UsageError("--model_path: say with --config which model it is")
    found = sorted(path.stem for path in (ROOT / "configs").glob("*.yml") if path.stem != "custom")
    names = found if args.config == "all" else [args.config]
    given = args.content_dir, args.style_dir
    cells: list[list[Cell]] = []
    rows: list[Row] = []
    absent: list[Row] = []
    for name in names:
        try:
            config = load_config(name)
            args.model_path = str(find_checkpoint(config, Path(args.model_path) if args.model_path else None, download=False))
        except WorkError as error:
            print(f"{name}: absent ({error})")
            absent.append({"variant": Path(name).stem, "reason": str(error)})
            cells.append([])
            continue
        folder = AVATARS if config.image_size == 64 else PHOTOS
        args.config = name
        args.content_dir, args.style_dir = given[0] or folder / "contents", given[1] or folder / "styles"
        bench = start(args)
        results = transfer(bench, bench.settings)
        inputs: list[Image.Image] = [to_image(bench.contents[0]), to_image(bench.styles[0])]
        cells.append([*inputs, *(to_image(x) for x in results[0][:PAIRS])])
        rows += measure(bench, results, Path(name).stem)
        args.model_path = None
    width = max(map(len, cells), default=0) or PAIRS
    padded = [row + [None] * (width - len(row)) for row in cells]
    labels = [Path(name).stem + ("" if row else " (absent)") for name, row in zip(names, cells, strict=True)]
    columns = ["content", "style 1", *(f"in style {i + 1}" for i in range(width - 2))]
    sheet = table(padded, row_labels=labels, column_labels=columns)
    columns_of = dict.fromkeys(key for row in (*rows, *absent) for key in row)
    save(args.out, "all_configs", sheet, [{key: row.get(key, "n/a") for key in columns_of} for row in (*rows, *absent)],
         summary(rows) if rows else "no checkpoint is present")  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
