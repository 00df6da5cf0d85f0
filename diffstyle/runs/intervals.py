"""t_edit and t_boost of a model, as scripts/intervals.py found them and wrote them beside its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from diffstyle.errors import UsageError
from diffstyle.files import file_hash


def intervals_file(checkpoint: Path) -> Path:
    """NAME.intervals.json beside the checkpoint."""
    return checkpoint.with_name(f"{checkpoint.stem}.intervals.json")


def read_intervals(checkpoint: Path) -> tuple[int, int]:
    """(t_edit, t_boost) of the model in this file. Raises UsageError where they were never found, or for other weights."""
    path = intervals_file(checkpoint)
    again = "python scripts/intervals.py --config CONFIG --model_path MODEL --images FOLDER"
    try:
        record = json.loads(path.read_text())
        t_edit, t_boost, digest = int(record["t_edit"]), int(record["t_boost"]), record["sha256"]
    except FileNotFoundError:
        raise UsageError(f"auto: {path} is missing; make it with {again}") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"auto: {path} cannot be read ({type(error).__name__}); make it again with {again}") from None
    if digest != file_hash(checkpoint):
        raise UsageError(f"auto: {path} was made for other weights than {checkpoint.name} holds; make it again with {again}")
    return t_edit, t_boost
