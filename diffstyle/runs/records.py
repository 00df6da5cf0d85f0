"""What a run leaves in save_dir: pictures that say how they were made, run.json, grid.png; and how they are found again."""

from __future__ import annotations

import logging
import math
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import PIL
import torch
from PIL import Image

from diffstyle.errors import WorkError
from diffstyle.files import abandoned, write_json
from diffstyle.images import read_record, save_png, tile
from diffstyle.masks import mask_digest
from diffstyle.runs.inputs import Picture
from diffstyle.runs.plan import Pair, Plan, RunConfig
from diffstyle.version import __version__

log = logging.getLogger(__name__)
GRID_PIXELS = 64_000_000  # beyond it the cells of grid.png shrink


@dataclass
class Report:
    """What a run did."""

    grid: Path | None = None
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # already there, with the same settings
    failed: dict[str, str] = field(default_factory=dict)  # input or pair -> reason
    seconds: float = 0.0


# ---- folders -----------------------------------------------------------------------------------------------------


def sweep(folders: Iterable[Path]) -> None:
    """Remove what killed processes left half done."""
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if abandoned(path.name):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


# ---- records -----------------------------------------------------------------------------------------------------


def pair_record(stamp: Mapping[str, Any], cfg: RunConfig, pair: Pair) -> dict[str, Any]:
    """What goes into the PNG: all that the picture depends on, so that it can be recognised and made again.

    ``stamp`` says the same of the model.
    """
    settings = pair.settings(cfg.settings)
    return {
        "settings": asdict(settings) | {"mask_sha256": mask_digest(settings.mask)},
        "model": dict(stamp),
        "content": {"name": pair.content.path.name, "sha256": pair.content.digest},
        "style": {"name": pair.style.path.name, "sha256": pair.style.digest},
        "version": __version__,
    }


def is_done(stamp: Mapping[str, Any], cfg: RunConfig, pair: Pair) -> bool:
    """Whether both files of the pair are there with these very settings, whichever version made them."""
    record = pair_record(stamp, cfg, pair)
    found = (read_record(cfg.save_dir / name) or {} for name in (pair.result_name, pair.name))
    return all({**each, "version": __version__} == record for each in found)


def write_run(cfg: RunConfig, plan: Plan, model: Mapping[str, Any], report: Report) -> None:
    """run.json: the resolved settings, versions, checkpoint and inputs of a run, and how it went."""
    record = {
        "settings": asdict(cfg.settings),
        "run": {k: v for k, v in asdict(cfg).items() if k != "settings"},
        "model": model,
        "versions": {
            "diffstyle": __version__, "python": platform.python_version(), "torch": torch.__version__, "pillow": PIL.__version__,
        },
        "contents": [asdict(p) for p in plan.contents],
        "styles": [asdict(p) for p in plan.styles],
        "results": [
            {"content": p.content.name, "style": p.style.name, "stack": p.name, "result": p.result_name,
             **({"changes": dict(p.changes)} if p.changes else {})}
            for p in plan.pairs
        ],
        "done": len(report.done),
        "kept": len(report.kept),
        "failed": report.failed,
        "seconds": round(report.seconds, 2),
    }  # fmt: skip
    write_json(cfg.save_dir / "run.json", record)


# ---- the grid ----------------------------------------------------------------------------------------------------

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
    try:
        with Image.open(cfg.save_dir / pair.result_name) as image:
            return image.convert("RGB")
    except Exception:  # missing, or something else under its name
        return None
