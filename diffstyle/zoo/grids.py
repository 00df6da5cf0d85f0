"""Where and how often the solvers ask a model, as two scripts found it and wrote it beside the model's config.

scripts/search_grid.py finds where, scripts/measure_budgets.py how often.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import read_json
from diffstyle.model import ModelConfig
from diffstyle.steps import USUAL, Grid

MOST = 200  # points; a searched grid has about 25
Budgets = tuple[tuple[int, float], ...]  # see ModelConfig.budgets


def grid_file(config: Path) -> Path:
    """grids/NAME.json beside the config NAME.yml."""
    return config.parent / "grids" / f"{config.stem}.json"


def read_grid(config: Path, timesteps: int) -> tuple[Grid, Budgets]:
    """The model's own grid and budgets, or the usual grid where none was searched. UsageError: the file is no grid."""
    path = grid_file(config)
    if not path.is_file():
        return USUAL, ()
    try:
        record = read_json(path)
        return to_grid(record, timesteps), to_budgets(record, timesteps)
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


def to_budgets(record: dict[str, Any], timesteps: int) -> Budgets:
    """Raises ValueError that says what is wrong."""
    nfes, psnrs = record.get("nfe", []), record.get("psnr", [])
    if [nfes, psnrs] == [[], []]:
        return ()
    if not isinstance(nfes, list) or not rising(nfes, int, 1, timesteps):
        raise ValueError(f"nfe must be 2 to {MOST} rising whole numbers from 1 to {timesteps}")
    if not isinstance(psnrs, list) or len(psnrs) != len(nfes) or not all(number(v, (int, float), 0, 1000) for v in psnrs):
        raise ValueError("psnr must be as many numbers as nfe, from 0 to 1000")
    return tuple(zip(nfes, map(float, psnrs), strict=True))


def fewest(config: ModelConfig, tolerance: float) -> int:
    """The fewest evaluations (--nfe) from which on nine of ten pairs are within ``tolerance`` dB of the official 1000/1000 walk.

    Raises UsageError where that was not measured, or no measured number reaches it.
    """
    if not config.budgets:
        raise UsageError(f"--nfe auto: how many evaluations {config.name} needs is not known; give a number, or have it measured "
                         "by python scripts/measure_budgets.py")  # fmt: skip
    found = None
    for nfe, psnr in reversed(config.budgets):
        if not psnr >= tolerance:
            break
        found = nfe
    if found is None:
        nfe, psnr = config.budgets[-1]
        raise UsageError(f"--tolerance {tolerance}: {nfe} evaluations, the most that were measured, reach {psnr} dB; use that or "
                         "less, or --solver ddim")  # fmt: skip
    return found


def rising(values: list[Any], kind: Any, least: float, most: float) -> bool:
    if not 2 <= len(values) <= MOST:
        return False
    return all(number(v, kind, least, most) for v in values) and all(a < b for a, b in pairwise(values))


def number(value: Any, kind: Any, least: float, most: float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value) and least <= value <= most
