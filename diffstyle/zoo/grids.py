"""Where the solvers ask a model, as scripts/search_grid.py found it and wrote it beside the model's config."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import read_json
from diffstyle.steps import USUAL, Grid

MOST = 200  # points; a searched grid has about 25


def grid_file(config: Path) -> Path:
    """grids/NAME.json beside the config NAME.yml."""
    return config.parent / "grids" / f"{config.stem}.json"


def read_grid(config: Path, timesteps: int) -> Grid:
    """The model's own grid, or the usual one where none was searched. Raises UsageError where the file is no grid."""
    path = grid_file(config)
    if not path.is_file():
        return USUAL
    try:
        record = read_json(path)
        return to_grid(record, timesteps)
    except (ValueError, WorkError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise UsageError(f"{path}: {why}; make it again with python scripts/search_grid.py, or remove it") from None


def to_grid(record: Any, timesteps: int) -> Grid:
    """Raises ValueError that says what is wrong."""
    if not isinstance(record, dict):
        raise ValueError("a grid is an object with t and share")
    ts, shares = record.get("t"), record.get("share")
    if not isinstance(ts, list) or not rising(ts, int, -1, timesteps - 1):
        raise ValueError(f"t must be 2 to {MOST} rising whole numbers from -1 to {timesteps - 1}")
    if (
        not isinstance(shares, list)
        or not rising(shares, (int, float), 0, 1)
        or len(shares) != len(ts)
        or (shares[0], shares[-1]) != (0, 1)
    ):
        raise ValueError("share must be as many rising numbers as t, from 0 to 1")
    return Grid(tuple(ts), tuple(map(float, shares)))


def rising(values: list[Any], kind: Any, least: float, most: float) -> bool:
    if not 2 <= len(values) <= MOST:
        return False
    fine = all(isinstance(v, kind) and not isinstance(v, bool) and math.isfinite(v) and least <= v <= most for v in values)
    return fine and all(a < b for a, b in pairwise(values))
