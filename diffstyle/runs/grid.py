"""grid.png: the results of a run laid out as one picture."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from diffstyle.errors import WorkError
from diffstyle.images import read_result, save_png, tile
from diffstyle.runs.config import RunConfig
from diffstyle.runs.inputs import Picture
from diffstyle.runs.plan import Pair, Plan

log = logging.getLogger(__name__)
GRID_PIXELS = 64_000_000  # beyond it the cells of grid.png shrink
Row = list[Image.Image | None]


def write_grid(cfg: RunConfig, plan: Plan, size: int, read: Callable[[Picture], Image.Image]) -> Path:
    """Lay out grid.png from the results on disk; a missing picture is a grey cell, large grids get smaller cells.

    A product of two folders is a table as the official code's, a list of pairs a sheet of their stacks.
    """
    if plan.is_product():
        columns, count, rows = len(plan.styles) + 1, len(plan.contents) + 1, table(cfg, plan, read)
    else:
        columns = math.ceil(math.sqrt(3 * len(plan.pairs)))
        count, rows = 3 * math.ceil(len(plan.pairs) / columns), sheet(cfg, plan, columns, read)
    cell = max(1, min(size, int(math.sqrt(GRID_PIXELS / (columns * count))) - 1))
    if cell < size:
        log.info("grid.png: %d x %d pictures, shown at %d pixels each", columns, count, cell)
    path = cfg.save_dir / "grid.png"
    save_png(path, tile(rows, columns, cell, count), {"settings": asdict(cfg.settings)})
    return path


def table(cfg: RunConfig, plan: Plan, read: Callable[[Picture], Image.Image]) -> Iterator[Row]:
    """An empty cell, styles across, contents down."""
    yield [None, *(shown(s, read) for s in plan.styles)]
    across = len(plan.styles)
    for i, content in enumerate(plan.contents):
        yield [shown(content, read), *(saved(cfg, p) for p in plan.pairs[i * across : (i + 1) * across])]


def sheet(cfg: RunConfig, plan: Plan, columns: int, read: Callable[[Picture], Image.Image]) -> Iterator[Row]:
    """Style, content and result of each pair, one below the other."""
    for start in range(0, len(plan.pairs), columns):
        part = plan.pairs[start : start + columns]
        fill: Row = [None] * (columns - len(part))
        yield [*(shown(p.style, read) for p in part), *fill]
        yield [*(shown(p.content, read) for p in part), *fill]
        yield [*(saved(cfg, p) for p in part), *fill]


def shown(picture: Picture, read: Callable[[Picture], Image.Image]) -> Image.Image | None:
    try:
        return read(picture)
    except WorkError:
        return None


def saved(cfg: RunConfig, pair: Pair) -> Image.Image | None:
    return read_result(cfg.save_dir / pair.result_name)
