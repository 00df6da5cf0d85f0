"""The same pairs under many settings: one run a combination into a folder of its own. A plain run is one combination of none.

All runs read one cache of latents, so what does not change n_inv is inverted once.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from diffstyle.errors import Interrupted, UsageError, WorkError
from diffstyle.files import open_folder, temporary_name
from diffstyle.model import Model, ModelConfig
from diffstyle.runs.config import RunConfig
from diffstyle.runs.plan import Plan
from diffstyle.runs.records import Outcome, remove_leftovers
from diffstyle.runs.run import lay_out, run
from diffstyle.runs.workers import ALONE, Share
from diffstyle.settings import Settings

log = logging.getLogger(__name__)
SWEPT = ("gamma", "omega", "t_edit", "t_boost", "dt_lambda", "n_gen", "n_inv", "solver", "nfe", "blend", "variant")
TYPES: dict[str, type] = {"float": float, "int": int, "str": str}
KEYS = {f.name: TYPES[str(f.type)] for f in fields(Settings) if f.name in SWEPT}
Values = Mapping[str, float | int | str]
MOST = 10_000  # combinations; each becomes a folder


@dataclass(frozen=True)
class Axis:
    """One setting and the values it is to take."""

    key: str
    values: tuple[float | int | str, ...]


@dataclass(frozen=True)
class Point:
    """One combination: its values, and the run that makes its pictures."""

    values: Values
    cfg: RunConfig


def parse_axes(specs: Sequence[str]) -> list[Axis]:
    """``--sweep gamma=0,0.3`` and so on, each key once."""
    axes: list[Axis] = []
    for spec in specs:
        key, equals, text = spec.partition("=")
        if key not in KEYS or not equals:
            raise UsageError(f"--sweep {spec}: use KEY=VALUE,VALUE,... with one of {', '.join(KEYS)}")
        if key in [axis.key for axis in axes]:
            raise UsageError(f"--sweep {spec}: {key} is swept already")
        words = [word.strip() for word in text.split(",")]
        try:
            values = tuple(dict.fromkeys(KEYS[key](word) for word in words))
        except ValueError:
            raise UsageError(f"--sweep {spec}: {key} takes {'whole ' if KEYS[key] is int else ''}numbers") from None
        axes.append(Axis(key, values))
    return axes


def show(value: float | int | str) -> str:
    """A value as few digits as tell it from all others: 0.5, 0, 0.1234567."""
    if isinstance(value, float) and float(f"{value:g}") != value:
        return repr(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def name_of(values: Values) -> str:
    """The folder of a combination: gamma=0.3,omega=0."""
    return ",".join(f"{key}={show(value)}" for key, value in values.items())


def make_points(axes: Sequence[Axis], cfg: RunConfig, settings: Callable[[Values], Settings]) -> list[Point]:
    """Every combination; ``settings`` resolves the values of one into complete settings.

    Without axes it is the one of no values, whose folder is save_dir itself. Raises UsageError for more than can be meant.
    """
    if (count := math.prod(len(axis.values) for axis in axes)) > MOST:
        raise UsageError(f"--sweep: {count} combinations of {', '.join(axis.key for axis in axes)}; use {MOST} at most")
    points = []
    for combination in itertools.product(*(axis.values for axis in axes)):
        values = dict(zip((axis.key for axis in axes), combination, strict=True))
        points.append(Point(values, replace(cfg, settings=settings(values), save_dir=cfg.save_dir / name_of(values))))
    return points


def run_sweep(model: Model, cfg: RunConfig, points: Sequence[Point], plan: Plan, share: Share = ALONE) -> list[Outcome]:
    """Make every point's pictures (this process's share of them)."""
    open_folder(cfg.save_dir, "--save_dir")
    remove_leftovers([cfg.save_dir])  # the points' runs look after their own folders
    latents = cfg.cache_dir or Path(share.from_first(str(cfg.save_dir / temporary_name())))
    outcomes: list[Outcome] = []
    try:
        for i, point in enumerate(points):
            if point.values:
                log.info("sweep %d of %d: %s", i + 1, len(points), name_of(point.values))
            outcomes.append(run(model, point.cfg, plan, share, latents))
        for outcome, point in zip(outcomes[:-1], points[:-1], strict=True):
            # Another shard may have been the last at this point, and be waiting for us at a later one.
            if share.first and not outcome.grid and not outcome.failed:
                outcome.grid = run(model, replace(point.cfg, overwrite=False), plan, share, latents).grid
    except Interrupted as stop:
        if len(points) > 1:
            stop.progress = f"{len(outcomes)} of {len(points)} settings; of the next, {stop.progress or 'nothing'}"
        raise
    finally:
        if not cfg.cache_dir and share.first:
            shutil.rmtree(latents, ignore_errors=True)
    return outcomes


def lay_out_points(config: ModelConfig, points: Sequence[Point], plan: Plan) -> list[tuple[Point, Outcome]]:
    """Grids and records again of the points of which something is on disk. Raises WorkError if there is none."""
    there, missing = [], []
    for point in points:
        try:
            there.append((point, lay_out(config, point.cfg, plan)))
        except WorkError as error:
            missing.append(error)
    if not there:
        raise missing[0]
    for each in missing:
        log.warning("%s", each)
    return there
