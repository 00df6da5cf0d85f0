"""One labelled figure a pair from the pictures of a sweep."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from diffstyle.errors import WorkError
from diffstyle.figures.table import Cell, symbol, table
from diffstyle.files import StorageError
from diffstyle.images import load_image, save_png, to_image
from diffstyle.runs.config import RunConfig
from diffstyle.runs.inputs import picture_reader
from diffstyle.runs.names import shorten
from diffstyle.runs.plan import Pair, Plan
from diffstyle.runs.sweep import Axis, Point, Values, name_of, show

log = logging.getLogger(__name__)


@dataclass
class Figures:
    """The figures of a run: each that cannot be written fails by itself."""

    made: list[Path] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """In here ``path`` is made. Raises StorageError, after which no other could be."""
        try:
            yield
            self.made.append(path)
        except StorageError:
            raise
        except WorkError as error:
            log.critical("failed: %s", error)
            self.failed.append(path)


def draw_figures(figures: Figures, cfg: RunConfig, axes: Sequence[Axis], points: Sequence[Point], plan: Plan, size: int) -> None:
    """Draw one labelled figure a pair into save_dir, from the pictures that ``run_sweep`` made; none without axes."""
    for pair in plan.pairs if axes else ():
        draw_pair(figures, cfg, axes, points, pair, size)


def draw_pair(figures: Figures, cfg: RunConfig, axes: Sequence[Axis], points: Sequence[Point], pair: Pair, size: int) -> None:
    """One figure: the first axis across, the second down; a figure for each combination of any further ones."""
    across, down, further = axes[0], axes[1] if len(axes) > 1 else None, axes[2:]
    at = {tuple(p.values.items()): p.cfg.save_dir / pair.result_name for p in points}
    for rest in itertools.product(*(axis.values for axis in further)):
        fixed = dict(zip((axis.key for axis in further), rest, strict=True))
        rows = []
        for y in down.values if down else ("",):
            second = {down.key: y} if down else {}
            rows.append([picture(at[tuple({across.key: x, **second, **fixed}.items())], size) for x in across.values])
        sheet = table(
            rows,
            row_labels=[show(v) for v in down.values] if down else (),
            column_labels=[show(v) for v in across.values],
            row_title=symbol(down.key) if down else "",
            column_title=symbol(across.key),
            title=", ".join(f"{symbol(key)} = {show(value)}" for key, value in fixed.items()),
            beside=beside(pair, size),
        )
        path = cfg.save_dir / f"{figure_name('sweep', pair, fixed)}.png"
        with figures.writing(path):
            save_png(path, sheet, {"axes": {axis.key: axis.values for axis in axes}, "fixed": fixed})


def picture(path: Path, size: int) -> Cell:
    """One picture at the model's size; None where it could not be made or read, which is an empty cell."""
    try:
        return to_image(load_image(path, size))
    except WorkError:
        return None


def beside(pair: Pair, size: int) -> list[tuple[str, Image.Image]]:
    """Captioned content and style, those that can be read."""
    read, found = picture_reader(size), []
    for caption, each in (("content", pair.content), ("style", pair.style)):
        with contextlib.suppress(WorkError):  # the run has said so
            found.append((caption, read(each)))
    return found


def figure_name(kind: str, pair: Pair, values: Values) -> str:
    """The stem of a figure of a pair, short enough for a file system; ``values`` are what the figure does not vary."""
    return shorten("_".join([kind, pair.stem, *([name_of(values)] if values else [])]), 240)
