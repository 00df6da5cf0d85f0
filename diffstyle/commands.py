"""What the command does: prepare -> precompute_only, or a plan of the pairs -> show | laid_out | made -> finish."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from diffstyle.errors import UsageError, saying
from diffstyle.explore import serve
from diffstyle.figures.animations import animate_gamma, animate_t, check_animations
from diffstyle.figures.gallery import write_report
from diffstyle.figures.sweeps import Figures, draw_figures
from diffstyle.figures.table import animation_format
from diffstyle.flags import CONTENT_DIR, STYLE_DIR
from diffstyle.model import Model, ModelConfig
from diffstyle.runs.config import RunConfig
from diffstyle.runs.intervals import read_intervals
from diffstyle.runs.plan import Plan, find_inputs, make_plan
from diffstyle.runs.records import Outcome
from diffstyle.runs.run import precompute
from diffstyle.runs.sweep import Axis, Point, lay_out_points, make_points, parse_axes, run_sweep
from diffstyle.runs.workers import Share, find_share, join, leave
from diffstyle.settings import Settings
from diffstyle.zoo.checkpoints import find_checkpoint, load_model
from diffstyle.zoo.compiled import compile_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.device import pick_device, pick_precision
from diffstyle.zoo.folders import weights_file
from diffstyle.zoo.grids import fewest

log = logging.getLogger(__name__)
Made = list[tuple[Point, Outcome]]
ALL_GAMMAS = Axis("gamma", tuple(i / 10 for i in range(11)))


@dataclass(frozen=True)
class Order:
    """A command line, understood."""

    args: Namespace
    share: Share
    config: ModelConfig
    device: torch.device
    precision: str  # a key of DTYPES
    cfg: RunConfig
    axes: list[Axis]
    points: list[Point]  # a plain run is a sweep over nothing: one point, without values
    animate: str  # "gamma", "t" or ""
    ending: str  # of animations
    load: Callable[[], Model]  # the model, loaded when first asked for


def work(args: Namespace) -> int:
    """Do what a parsed command line says; returns the exit code. Raises DiffstyleError."""
    if args.explore is not None:
        return explore(args)
    order = prepare(args)
    if args.just_precompute:
        return precompute_only(order)
    plan = planned(order)
    if args.dry_run:
        return show(order, plan)
    if args.grid_only:
        outcomes, failed = laid_out(order, plan), False
    else:
        outcomes = made(order, plan)
        failed = any(outcome.failed for _, outcome in outcomes)
    if outcomes and all(outcome.grid for _, outcome in outcomes):
        failed |= not finish(order, plan, outcomes)
    elif order.share.first:
        log.info("other shards are not done yet; the last one, or --grid_only, lays out the grid")
    return 1 if failed else 0


def explore(args: Namespace) -> int:
    """Show the page to play with until it is interrupted; without folders of the user's it begins with the examples."""

    check_names(args)

    def there(folder: str, default: str) -> str | None:
        return None if folder == default and not Path(folder).is_dir() else folder

    serve(
        config=args.config,
        model_path=args.model_path,
        device=args.device,
        precision=args.precision,
        content_dir=there(args.content_dir, CONTENT_DIR),
        style_dir=there(args.style_dir, STYLE_DIR),
        save_dir=args.save_dir,
        cache_dir=args.cache_dir,
        port=args.explore or None,
        download=not args.no_download,
    )
    return 0


def settings_of(args: Namespace, values: Mapping[str, Any] | None = None) -> Settings:
    """The method's settings of a command line, some of them replaced by ``values`` as if they had been typed."""
    names = {field.name for field in fields(Settings)}
    return Settings.of(**{**{name: value for name, value in vars(args).items() if name in names}, **(values or {})})


def check_names(args: Namespace) -> None:
    """Raise UsageError for a path that no file can have."""
    for name in ("config", "model_path", "content_dir", "style_dir", "pairs", "mask", "save_dir", "cache_dir"):
        path = getattr(args, name) or "."
        try:
            os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: a null byte
            if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
                raise UsageError(f"--{name} {path[:60]!r}...: no file can have such a name ({error.args[-1]})") from None


def prepare(args: Namespace) -> Order:
    """Everything that is known before a picture or the network is looked at. Raises UsageError."""
    share = find_share(args.shard)
    if not share.first:
        logging.getLogger("diffstyle").setLevel(max(log.getEffectiveLevel(), logging.WARNING))
    if args.unused:
        log.info("without effect on style transfer: %s", ", ".join(args.unused))
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        log.warning("CUDA_VISIBLE_DEVICES is set but empty, which hides every GPU")
    if args.batch_size is not None and args.batch_size < 1:
        raise UsageError(f"--batch_size {args.batch_size}: use 1 or more")

    check_names(args)
    config = load_config(args.config, args.model_path, not args.no_download)
    if "auto" in (args.t_edit, args.t_boost):
        args = with_intervals(args, config)
    if args.nfe == "auto":
        args = Namespace(**{**vars(args), "nfe": fewest(config, args.tolerance)})
        log.info("--nfe auto: %d evaluations", args.nfe)
    cfg = run_config(args)
    device = pick_device(args.device, share.local)
    precision = pick_precision(args.precision, device)
    animate, ending = animation_format(args.animate) if args.animate is not None else ("", "")
    axes = parse_axes(args.sweep)
    if animate == "gamma" and "gamma" not in [axis.key for axis in axes]:
        axes.append(ALL_GAMMAS)
    points = make_points(axes, cfg, functools.partial(settings_of, args))
    for point in points:
        point.cfg.settings.check(config.timesteps)

    @functools.cache
    def load() -> Model:
        path = Path(args.model_path) if args.model_path else None
        model = load_model(config, path, device, precision, download=not args.no_download)
        if args.compile:
            compile_model(model)
        return model

    return Order(args, share, config, device, precision, cfg, axes, points, animate, ending, load)


def with_intervals(args: Namespace, config: ModelConfig) -> Namespace:
    """``args`` with "auto" replaced by what scripts/intervals.py found for the checkpoint. Raises UsageError."""
    path = find_checkpoint(config, args.model_path, not args.no_download)
    found = dict(zip(("t_edit", "t_boost"), read_intervals(weights_file(path)), strict=True))
    return Namespace(**{**vars(args), **{name: t for name, t in found.items() if getattr(args, name) == "auto"}})


def run_config(args: Namespace) -> RunConfig:
    return RunConfig(
        content_dir=Path(args.content_dir),
        style_dir=Path(args.style_dir),
        save_dir=Path(args.save_dir),
        settings=settings_of(args),
        pairs=Path(args.pairs) if args.pairs else None,
        recursive=args.recursive,
        exif=args.exif,
        layout=args.layout,
        cache_dir=None if args.no_cache else Path(args.cache_dir),
        overwrite=args.overwrite,
        report=args.report,
        batch_size=args.batch_size,
        show_progress=log.isEnabledFor(logging.INFO),
    )


def precompute_only(order: Order) -> int:
    """Invert the pictures of both sides into the cache."""
    cfg = order.cfg
    paths = find_inputs(cfg, cfg.content_dir, "--content_dir")
    if order.args.style_dir != STYLE_DIR:
        paths += find_inputs(cfg, cfg.style_dir, "--style_dir")
    paths = list(dict.fromkeys(paths))
    count = precompute(order.load(), cfg, paths, order.share)
    print(f"{count} of {len(paths)} pictures are in {cfg.cache_dir}")
    return 0 if count == len(paths) else 1


def planned(order: Order) -> Plan:
    """The pairs; says what is odd about their settings. Raises UsageError where the list and another flag contradict."""
    plan = make_plan(order.cfg)
    if swept := {axis.key for axis in order.axes} & {key for pair in plan.pairs for key, _ in pair.changes}:
        raise UsageError(f"--sweep or --animate of {min(swept)}: the rows of --pairs say it too; leave out one")
    if order.animate == "t" and not order.axes:
        check_animations(plan, order.ending)
    settings = dict.fromkeys(pair.settings(point.cfg.settings) for point in order.points for pair in plan.pairs)
    for doubt in dict.fromkeys(doubt for each in settings for doubt in each.doubts(order.config.timesteps)):
        log.warning("%s", doubt)
    return plan


def show(order: Order, plan: Plan) -> int:
    """Print what would be done."""
    settings = [point.cfg.settings for point in order.points]
    resolved = {"config": order.config.name, "device": str(order.device), "precision": order.precision}
    print(json.dumps({**resolved, **asdict(order.cfg.settings)}, indent=1))
    for pair in order.share.own(plan.pairs):
        print(pair.name)
    times = f" x {len(settings)} settings" if order.axes else ""
    print(f"{len(plan.pairs)} pairs{times}, {plan.evaluations(*settings, grid=order.config.grid)} network evaluations at most")
    return 0


def laid_out(order: Order, plan: Plan) -> Made:
    """Grids and run.json again from what is on disk."""
    if not order.share.first:
        return []
    there = lay_out_points(order.config, order.points, plan)
    kept = sum(len(outcome.kept) for _, outcome in there)
    log.info("%d of %d pairs are there", kept, len(plan.pairs) * len(order.points))
    return there


def made(order: Order, plan: Plan) -> Made:
    """Make every point's pictures, with the other processes; empty in those that do not speak for all."""
    join(order.share, order.device)
    try:
        outcomes = run_sweep(order.load(), order.cfg, order.points, plan, order.share)
    finally:
        leave(order.share)
    if not order.share.first:
        return []  # failures are the first process's to tell: torchrun would end the others for an exit code
    for each in outcomes:
        log.info("%d pairs done, %d kept from before, %.1f s", len(each.done), len(each.kept), each.seconds)
    failed = {what: reason for each in outcomes for what, reason in each.failed.items()}
    for reason in failed.values():
        log.critical("failed: %s", " ".join(reason.splitlines()))
    return list(zip(order.points, outcomes, strict=True))


def finish(order: Order, plan: Plan, outcomes: Made) -> bool:
    """Galleries, figures and animations of the pictures on disk; prints the first figure, or the grid where there is none.

    Returns whether all of them could be written.
    """
    cfg, size = order.cfg, order.config.image_size
    galleries, figures, animations = Figures(), Figures(), Figures()
    with saying(lambda: "the pairs are finished, their figures are not"):
        if order.args.report:
            for point, _ in outcomes:
                with galleries.writing(point.cfg.save_dir / "index.html"):
                    log.info("gallery: %s", write_report(point.cfg.save_dir))
        draw_figures(figures, cfg, order.axes, order.points, plan, size)
        if order.animate == "gamma":
            animate_gamma(animations, cfg, order.points, plan, size, order.ending)
        elif order.animate == "t":
            animate_t(animations, order.load(), cfg, plan, order.ending)
        if order.animate:
            log.info("%d animations, the first is %s", len(animations.made), next(iter(animations.made), "missing"))
    print(figures.made[0] if figures.made else outcomes[0][1].grid)
    return not (galleries.failed or figures.failed or animations.failed)
