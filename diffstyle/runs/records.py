"""What a run leaves in save_dir: pictures that say how they were made, run.json, grid.png; and how they are found again."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import PIL
import torch

from diffstyle.files import abandoned, write_json
from diffstyle.images import read_record
from diffstyle.masks import mask_digest
from diffstyle.model import Model
from diffstyle.runs.config import RunConfig
from diffstyle.runs.inputs import Picture
from diffstyle.runs.plan import Pair, Plan
from diffstyle.settings import Settings
from diffstyle.version import __version__

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What a run did."""

    grid: Path | None = None
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # already there, with the same settings
    failed: dict[str, str] = field(default_factory=dict)  # input or pair -> reason
    seconds: float = 0.0


# ---- folders -----------------------------------------------------------------------------------------------------


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove what killed processes left half done."""
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if abandoned(path.name):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


# ---- records -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stamp:
    """What all pictures of a run depend on, besides the settings."""

    model: Mapping[str, Any]
    mask: str  # sha256 of the mask's file, "" if it is none


def stamp_of(model: Model, settings: Settings) -> Stamp:
    """Raises UsageError or WorkError when the mask cannot be read."""
    grid = {} if settings.solver == "ddim" else {"grid": {k: list(v) for k, v in asdict(model.config.grid).items()}}
    return Stamp(model_stamp(model) | grid, mask_digest(settings.mask))


def pair_record(stamp: Stamp, cfg: RunConfig, pair: Pair) -> dict[str, Any]:
    """What goes into the PNG: all that the picture depends on, so that it can be recognised and made again."""
    return {
        "settings": asdict(pair.settings(cfg.settings)) | {"mask_sha256": stamp.mask},
        "model": dict(stamp.model),
        "content": {"name": pair.content.path.name, "sha256": pair.content.digest},
        "style": {"name": pair.style.path.name, "sha256": pair.style.digest},
        "version": __version__,
    }


def is_done(stamp: Stamp, cfg: RunConfig, pair: Pair) -> bool:
    """Whether both files of the pair are there, undamaged and with these very settings, whichever version made them."""
    record = pair_record(stamp, cfg, pair)
    found = (read_record(cfg.save_dir / name) or {} for name in (pair.result_name, pair.name))
    return all({**each, "version": __version__} == record for each in found)


def write_run(cfg: RunConfig, plan: Plan, model: Mapping[str, Any], outcome: Outcome) -> None:
    """run.json: the resolved settings, versions, checkpoint and inputs of a run, and how it went."""
    record = {
        "settings": asdict(cfg.settings),
        "run": {k: v for k, v in asdict(cfg).items() if k != "settings"},
        "model": model,
        "versions": {
            "diffstyle": __version__, "python": platform.python_version(), "torch": torch.__version__, "pillow": PIL.__version__,
        },
        "contents": [picture_record(p) for p in plan.contents],
        "styles": [picture_record(p) for p in plan.styles],
        "results": [
            {"content": p.content.name, "style": p.style.name, "stack": p.name, "result": p.result_name,
             **({"changes": dict(p.changes)} if p.changes else {})}
            for p in plan.pairs
        ],
        "done": len(outcome.done),
        "kept": len(outcome.kept),
        "failed": outcome.failed,
        "seconds": round(outcome.seconds, 2),
    }  # fmt: skip
    write_json(cfg.save_dir / "run.json", record)


def picture_record(picture: Picture) -> dict[str, Any]:
    return {"path": picture.path, "name": picture.name, "digest": picture.digest}


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcomes of all processes as one."""
    whole = Outcome()
    for outcome in outcomes:
        whole.done += outcome.done
        whole.kept += outcome.kept
        whole.failed |= outcome.failed
    return whole


def model_stamp(model: Model) -> dict[str, Any]:
    """The model's part of a record: all of it that a picture depends on."""
    return {"config": model.config.name, "sha256": model.digest, "precision": model.numbers}
