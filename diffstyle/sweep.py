"""The same pairs under many settings: one run a combination into a folder of its own, one labelled figure a pair.

All runs read one cache of latents, so what does not change n_inv is inverted once.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from PIL import Image

from diffstyle.checkpoints import Model
from diffstyle.config import ModelConfig
from diffstyle.errors import Interrupted, UsageError, WorkError
from diffstyle.figure import Cell, save_animation, symbol, table
from diffstyle.images import load_image, open_folder, save_png, temporary_name, to_image, to_tensor
from diffstyle.inputs import fold, picture_reader, shorten
from diffstyle.noise import pair_noise
from diffstyle.pipeline import invert_batch
from diffstyle.plan import Pair, Plan, RunConfig
from diffstyle.results import Report, sweep
from diffstyle.run import lay_out, run
from diffstyle.settings import Settings
from diffstyle.trajectory import walk
from diffstyle.workers import ALONE, Share

log = logging.getLogger(__name__)
SWEPT = ("gamma", "omega", "t_edit", "t_boost", "dt_lambda", "n_gen", "n_inv", "solver", "nfe", "blend", "variant")
TYPES: dict[str, type] = {"float": float, "int": int, "str": str}
KEYS = {f.name: TYPES[str(f.type)] for f in fields(Settings) if f.name in SWEPT}
Values = Mapping[str, float | int | str]


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
    """Every combination; ``settings`` resolves the values of one into complete settings."""
    points = []
    for combination in itertools.product(*(axis.values for axis in axes)):
        values = dict(zip((axis.key for axis in axes), combination, strict=True))
        points.append(Point(values, replace(cfg, settings=settings(values), save_dir=cfg.save_dir / name_of(values))))
    return points


def run_sweep(model: Model, cfg: RunConfig, points: Sequence[Point], plan: Plan, share: Share = ALONE) -> list[Report]:
    """Make every point's pictures (this process's share of them)."""
    open_folder(cfg.save_dir, "--save_dir")
    sweep([cfg.save_dir])  # the points' runs look after their own folders
    cache = cfg.cache_dir or Path(share.from_first(str(cfg.save_dir / temporary_name())))
    runs = [replace(point.cfg, cache_dir=cache) for point in points]
    reports: list[Report] = []
    try:
        for i, (point, each) in enumerate(zip(points, runs, strict=True)):
            log.info("sweep %d of %d: %s", i + 1, len(points), name_of(point.values))
            reports.append(run(model, each, plan, share))
        for report, each in zip(reports, runs, strict=True):
            # Another shard may have been the last at this point, and be waiting for us at a later one.
            if share.first and not report.grid and not report.failed:
                report.grid = run(model, replace(each, overwrite=False), plan, share).grid
    except Interrupted as stop:
        stop.progress = f"{len(reports)} of {len(points)} settings; of the next, {stop.progress or 'nothing'}"
        raise
    finally:
        if not cfg.cache_dir and share.first:
            shutil.rmtree(cache, ignore_errors=True)
    return reports


def lay_out_points(config: ModelConfig, points: Sequence[Point], plan: Plan) -> tuple[list[Point], list[Report]]:
    """Grids and records again of the points of which something is on disk. Raises WorkError if there is none."""
    there, reports = [], []
    for point in points:
        try:
            reports.append(lay_out(config, point.cfg, plan))
            there.append(point)
        except WorkError as error:
            log.warning("%s", error)
    if not there:
        raise WorkError(f"--grid_only: nothing of the {len(points)} settings is there")
    return there, reports


def draw_figures(cfg: RunConfig, axes: Sequence[Axis], points: Sequence[Point], plan: Plan, size: int) -> list[Path]:
    """Draw one labelled figure a pair into save_dir, from the pictures that ``run_sweep`` made."""
    return [path for pair in plan.pairs for path in draw_pair(cfg, axes, points, pair, size)]


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


def draw_pair(cfg: RunConfig, axes: Sequence[Axis], points: Sequence[Point], pair: Pair, size: int) -> Iterator[Path]:
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
        save_png(path, sheet, {"axes": {axis.key: axis.values for axis in axes}, "fixed": fixed})
        yield path


# ---- animations --------------------------------------------------------------------------------------------------


def animate_gamma(cfg: RunConfig, points: Sequence[Point], plan: Plan, size: int, ending: str) -> list[Path]:
    """One animation over gamma a pair, and for each combination of the other settings, from the pictures of a sweep."""
    groups: dict[tuple[tuple[str, float | int | str], ...], list[Point]] = {}
    for point in points:
        groups.setdefault(tuple((k, v) for k, v in point.values.items() if k != "gamma"), []).append(point)
    paths = []
    for pair, (others, group) in itertools.product(plan.pairs, groups.items()):
        frames = [
            table([[*(image for _, image in beside(pair, size)), picture(p.cfg.save_dir / pair.result_name, size)]],
                  column_labels=["content", "style", f"{symbol('gamma')} = {p.cfg.settings.gamma:g}"])
            for p in sorted(group, key=lambda p: p.cfg.settings.gamma)
        ]  # fmt: skip
        paths.append(cfg.save_dir / f"{figure_name('gamma', pair, dict(others))}.{ending}")
        save_animation(paths[-1], frames, 0.3)
    return paths


def check_animations(plan: Plan, ending: str) -> None:
    """Without a sweep, animations lie beside the pairs' pictures and must be none of them. Raises UsageError."""
    files = {fold(name): pair for pair in plan.pairs for name in (pair.name, pair.result_name)}
    for pair in plan.pairs:
        name = f"{figure_name('t', pair, {})}.{ending}"
        if fold(name) in files:
            other = files[fold(name)].stem
            raise UsageError(f"--animate t.{ending}: the animation of {pair.stem} and the picture of {other} are both {name}; "
                             "give the row another name")  # fmt: skip


def animate_t(model: Model, cfg: RunConfig, plan: Plan, ending: str, frames: int = 50) -> list[Path]:
    """One animation a pair over the generation: x_t and the predicted clean image P_t. The walk is DDIM's, every step."""
    size, paths = model.config.image_size, []
    read = picture_reader(size)
    for pair in plan.pairs:
        s = pair.settings(cfg.settings)
        try:
            content, style = (to_tensor(read(p))[None] for p in (pair.content, pair.style))
        except WorkError:
            continue  # the run has said so
        h, x_T = invert_batch(model, content, s, s.kept()).h, invert_batch(model, style, s).x_T
        noise = pair_noise(s.seed, [(pair.content.digest, pair.style.digest)], (3, size, size))
        sheets = []
        for t, x, P in walk(model, x_T, h, s, noise, frames):
            part = "the result" if t < 0 else "inject" if t >= s.t_edit else "boost" if t <= s.t_boost else "DDIM"
            cells: list[Cell] = [to_image(content[0]), to_image(style[0]), to_image(x[0]), to_image(P[0])]
            sheets.append(table([cells], column_labels=["content", "style", "x_t", "P_t"], title=f"t = {max(t, 0)}: {part}"))
        paths.append(cfg.save_dir / f"{figure_name('t', pair, {})}.{ending}")
        save_animation(paths[-1], sheets)
    return paths
