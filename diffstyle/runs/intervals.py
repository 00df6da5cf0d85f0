"""t_edit and t_boost of a model, as scripts/intervals.py found them and wrote them beside its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import file_hash, kind_of, read_json

LARGEST = 4 << 20  # bytes of a table; that of 1,000 timesteps has 40 kB
MOST = 10_000  # timesteps that a model can have


def intervals_file(checkpoint: Path) -> Path:
    """NAME.intervals.json beside the checkpoint."""
    return checkpoint.with_name(f"{checkpoint.stem}.intervals.json")


def read_intervals(checkpoint: Path) -> tuple[int, int]:
    """(t_edit, t_boost) of the model in this file. Raises UsageError where they were never found, or for other weights."""
    path = intervals_file(checkpoint)
    again = "python scripts/intervals.py --config CONFIG --model_path MODEL --images FOLDER"
    if not kind_of(path):
        raise UsageError(f"auto: {path} is missing; make it with {again}")
    try:
        record = read_json(path, LARGEST)
        t_edit, t_boost, digest = timestep(record["t_edit"]), timestep(record["t_boost"]), record["sha256"]
    except (WorkError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"auto: {path} cannot be read ({type(error).__name__}); make it again with {again}") from None
    if digest != file_hash(checkpoint):
        raise UsageError(f"auto: {path} was made for other weights than {checkpoint.name} holds; make it again with {again}")
    return t_edit, t_boost


def timestep(value: Any) -> int:
    """``value`` itself. Raises ValueError for what scripts/intervals.py does not write."""
    if type(value) is not int or not 0 <= value < MOST:
        raise ValueError("no timestep")
    return value
