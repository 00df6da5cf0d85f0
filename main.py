#!/usr/bin/env python3
"""The command line: flags to settings, errors to one line. Everything else is in diffstyle/."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from diffstyle.model import Model
    from diffstyle.settings import Settings

DESCRIPTION = """Style transfer with a frozen diffusion model: the result takes its content (face, shape) from one
picture and its style (colours, texture) from another. Every content in --content_dir is combined with every style in
--style_dir. The official DiffStyle command lines work unchanged."""

DEFAULT_STYLES = "./source_images/style"

# Accepted because the official scripts pass them; this mode of the official code does not read them either.
NO_EFFECT: dict[str, int | str | None] = {
    "n_test_step": 1, "n_train_step": 1, "align_face": 0, "user_defined_t_addnoise": 1, "lpips_edit_th": 1,
    "lpips_addnoise_th": 1, "eta": 1, "exp": 1, "comment": 1, "ni": 0, "bs_train": 1, "bs_test": 1, "n_train_img": 1,
    "n_test_img": 1, "n_precomp_img": 1, "sh_file_name": "?",
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """argparse, its errors without the usage, which would fill the screen."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (main.py --help lists the flags)\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="main.py",
        description=DESCRIPTION,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )

    what = parser.add_argument_group("what to do")
    what.add_argument("--diff_style", action="store_true", default=True, help="style transfer, the only mode")
    what.add_argument("--config", default="avatars.yml", help="model description: a name in configs/ or a path")
    what.add_argument("--model_path", help="checkpoint to use instead of the config's")
    what.add_argument("--content_dir", default="./source_images/content",
                      help="folder or file of contents; or dataset:NAME[:N] from configs/paths_config.py; or sample:N, "
                           "pictures drawn by the model itself")  # fmt: skip
    what.add_argument("--style_dir", default=DEFAULT_STYLES, help="folder or file of styles, or a source as above")
    what.add_argument("--pairs", metavar="CSV",
                      help="do the pairs of this list instead of all: columns content, style and, if wanted, gamma, omega, "
                           "seed, name for the row; files are looked up from the current folder, beside the list, and in "
                           "--content_dir and --style_dir")  # fmt: skip
    what.add_argument("--recursive", action="store_true", help="also look into the folders' folders")
    what.add_argument("--exif", action="store_true", help="turn photographs as their EXIF says (the official code does not)")
    what.add_argument("--layout", default="flat", metavar="flat|by-style|by-content",
                      help="put results into one folder, or one a style or a content")  # fmt: skip
    what.add_argument("--save_dir", default="./results", help="where grid.png and the pairs' pictures go")
    what.add_argument("--dry_run", action="store_true", help="print settings, pairs and network evaluations, then stop")
    what.add_argument("--grid_only", action="store_true", help="only lay out grid.png and run.json again from what is there")
    what.add_argument("--just_precompute", action="store_true", help="invert the pictures into --cache_dir, then stop")
    what.add_argument("--overwrite", action="store_true", help="make results again that are there with the same settings")

    method = parser.add_argument_group("the method (symbols of the paper)")
    method.add_argument("--gamma", "--hs_coeff", type=float, default=0.9, metavar="G",
                        help="gamma, the share of the content's bottleneck features h in the Slerp: 0 is the style picture, "
                             "0.3 to 0.4 is advised, above 0.6 pictures degrade")  # fmt: skip
    method.add_argument("--omega", type=float, metavar="W",
                        help="omega, style calibration: larger keeps more of the style, 0 is off (default: 0, or 0.3 with "
                             "--variant paper)")  # fmt: skip
    method.add_argument("--t_edit", "--user_defined_t_edit", type=int, default=400, metavar="T",
                        help="inject content at timesteps t >= t_edit")  # fmt: skip
    method.add_argument("--t_boost", "--t_noise", type=int, default=0, metavar="T",
                        help="quality boosting: add noise (eta 1) at timesteps t <= t_boost")  # fmt: skip
    method.add_argument("--dt_lambda", type=float, default=1.0, help="factor on the direction D_t at injections with t >= dt_end")
    method.add_argument("--dt_end", type=int, default=950, help="the timestep down to which dt_lambda acts")
    method.add_argument("--content_replace_step", type=int, default=50, metavar="N",
                        help="timesteps at which h is looked at; 0 or -1 is every step, many times stronger")  # fmt: skip
    method.add_argument("--use_mask", action="store_true", help="inject only inside the official box in the lower face")
    method.add_argument("--mask", metavar="FILE|x0,y0,x1,y1",
                        help="inject only here: a picture (white takes the content) or a rectangle in fractions")  # fmt: skip
    method.add_argument("--blend", default="slerp",
                        help="slerp: the method; lerp, replace, add: the paper's ablation")  # fmt: skip
    method.add_argument("--variant", default="official",
                        help="official: the published code's behaviour; paper: the text (norm-matched masks, noise at every "
                             "step with t <= t_boost, omega 0.3)")  # fmt: skip

    show = parser.add_argument_group("figures")
    show.add_argument("--report", action="store_true",
                      help="also write save_dir/index.html, a gallery to look at in any browser")  # fmt: skip
    show.add_argument("--sweep", action="append", default=[], metavar="KEY=V,V,...",
                      help="make every pair with each of these values (gamma, omega, t_edit, t_boost, dt_lambda, n_gen, "
                           "n_inv, solver, nfe, blend or variant) and draw one labelled figure a pair; give it again for a "
                           "second axis")  # fmt: skip
    show.add_argument("--animate", metavar="gamma|t[.gif|.png|.webp]",
                      help="animate every pair: the result over gamma, or x_t and P_t over the generation")  # fmt: skip

    steps = parser.add_argument_group("steps and noise")
    steps.add_argument("--n_inv_step", "--n_inv", type=int, default=40, metavar="N", help="timesteps of the inversion")
    steps.add_argument("--n_gen_step", "--n_gen", type=int, default=1000, metavar="N", help="timesteps of the generation")
    steps.add_argument("--t_0", type=int, default=999, help="the noisiest timestep")
    steps.add_argument("--solver", default="ddim",
                       help="ddim: the official walk, every step evaluated; abm3: its result from about 18 times fewer "
                            "evaluations; euler, heun, ab2, ab3, abm2: for comparison (benchmarks/README.md)")  # fmt: skip
    steps.add_argument("--nfe", type=int, default=40, metavar="N",
                       help="evaluations a walk of the other solvers, those at injections apart")  # fmt: skip
    steps.add_argument("--seed", type=int, default=1234, help="seed of the boosting noise")
    steps.add_argument("--noise", default="pair",
                       help="pair: noise depends on seed and the two pictures only; official: one global stream")  # fmt: skip

    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda (cuda:1 ...) or mps")
    machine.add_argument("--precision", default="fp32", help="fp32, tf32, bf16 or fp16; norms and the sampler stay fp32")
    machine.add_argument("--compile", action="store_true",
                         help="torch.compile the network: a minute at the start, less an evaluation")  # fmt: skip
    machine.add_argument("--batch_size", type=int, metavar="N",
                         help="pictures a network call; results do not depend on it (default: by free memory; halved when "
                              "memory runs out)")  # fmt: skip
    machine.add_argument("--shard", metavar="I/N",
                         help="do every N-th pair from the I-th on, for processes started one by one (Slurm arrays); under "
                              "torchrun the work is shared without it")  # fmt: skip
    machine.add_argument("--cache_dir", default="./precomputed", help="where inverted latents are kept for the next run")
    machine.add_argument("--no_cache", action="store_true", help="keep no latents after the run")
    machine.add_argument("--no_download", action="store_true", help="never fetch a missing checkpoint")
    machine.add_argument("--verbose", default="info", choices=["debug", "info", "warning", "critical"],
                         help="how much is said; debug shows tracebacks")  # fmt: skip

    ignored = parser.add_argument_group("accepted without effect (the official scripts pass them)")
    for name, nargs in NO_EFFECT.items():
        if nargs == 0:
            ignored.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS)
        else:
            ignored.add_argument(f"--{name}", nargs="?" if nargs == "?" else None, default=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code (0 done, 1 failed work, 2 wrong usage, 130 or 143 interrupted)."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=args.verbose.upper(), format="%(message)s", stream=sys.stderr, force=True)
    log = logging.getLogger("diffstyle")

    # Imported here so that --help and usage errors do not wait for torch.
    try:
        from diffstyle.errors import DiffstyleError, Interrupted
    except KeyboardInterrupt:
        return 130

    try:
        with interruptible():
            return work(args, log)
    except DiffstyleError as error:
        log.debug("", exc_info=True)
        log.critical("error: %s", " ".join(str(error).splitlines()))
        return error.exit_code
    except Interrupted as stop:
        so_far = stop.progress or "nothing was begun"
        log.critical("interrupted: %s; the same command goes on from there", so_far)
        return stop.exit_code
    except Exception as error:
        log.debug("", exc_info=True)
        text = " ".join(str(error).split())[:300]
        log.critical("error: %s: %s (--verbose debug shows where)", type(error).__name__, text)
        return 1


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted, once: what is being written is finished or removed, not cut off."""
    from diffstyle.errors import Interrupted

    def stop(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    main_thread = threading.current_thread() is threading.main_thread()
    wanted = (signal.SIGINT, signal.SIGTERM) if main_thread else ()
    # nohup and background jobs ignore SIGINT on purpose.
    before = {number: signal.getsignal(number) for number in wanted if signal.getsignal(number) != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def settings_of(args: argparse.Namespace) -> Settings:
    """The method's settings of a parsed command line."""
    from diffstyle.settings import Settings

    omega = args.omega if args.omega is not None else 0.3 if args.variant == "paper" else 0.0
    return Settings(
        gamma=args.gamma, omega=omega, t_edit=args.t_edit, t_boost=args.t_boost, dt_lambda=args.dt_lambda,
        dt_end=args.dt_end, n_inv=args.n_inv_step, n_gen=args.n_gen_step, content_replace_step=args.content_replace_step,
        t_0=args.t_0, variant=args.variant, blend=args.blend, mask="box" if args.use_mask else args.mask or "",
        noise=args.noise, seed=args.seed, solver=args.solver, nfe=args.nfe,
    )  # fmt: skip


def swept_settings(args: argparse.Namespace, values: Mapping[str, Any]) -> Settings:
    """The settings of the command line with some of them replaced, as if typed (a variant brings its own omega)."""
    dests = {"n_inv": "n_inv_step", "n_gen": "n_gen_step"}
    return settings_of(argparse.Namespace(**{**vars(args), **{dests.get(k, k): v for k, v in values.items()}}))


def work(args: argparse.Namespace, log: logging.Logger) -> int:
    from diffstyle.errors import UsageError, saying
    from diffstyle.figures.animations import animate_gamma, animate_t, check_animations
    from diffstyle.figures.gallery import write_report
    from diffstyle.figures.sweeps import draw_figures
    from diffstyle.figures.table import animation_format
    from diffstyle.runs.config import RunConfig
    from diffstyle.runs.plan import find_inputs, make_plan
    from diffstyle.runs.run import lay_out, precompute, run
    from diffstyle.runs.sweep import Axis, lay_out_points, make_points, parse_axes, run_sweep
    from diffstyle.runs.workers import find_share, join, leave
    from diffstyle.zoo.checkpoints import compile_model, load_model
    from diffstyle.zoo.config import load_config
    from diffstyle.zoo.device import pick_device, pick_dtype

    share = find_share(args.shard)
    if not share.first:
        log.setLevel(max(log.getEffectiveLevel(), logging.WARNING))
    unused = [f"--{name}" for name in NO_EFFECT if hasattr(args, name)]
    if unused:
        log.info("without effect on style transfer: %s", ", ".join(unused))
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        log.warning("CUDA_VISIBLE_DEVICES is set but empty, which hides every GPU")
    if args.use_mask and args.mask:
        raise UsageError("--use_mask and --mask: give one of them")
    if args.batch_size is not None and args.batch_size < 1:
        raise UsageError(f"--batch_size {args.batch_size}: use 1 or more")

    settings = settings_of(args)
    config = load_config(args.config)
    settings.check(config.timesteps)
    device, dtype = pick_device(args.device, share.local), pick_dtype(args.precision)
    cfg = RunConfig(
        content_dir=Path(args.content_dir),
        style_dir=Path(args.style_dir),
        save_dir=Path(args.save_dir),
        settings=settings,
        pairs=Path(args.pairs) if args.pairs else None,
        recursive=args.recursive,
        exif=args.exif,
        layout=args.layout,
        cache_dir=None if args.no_cache else Path(args.cache_dir),
        overwrite=args.overwrite,
        report=args.report,
        batch_size=args.batch_size,
        show_progress=args.verbose in ("info", "debug"),
    )

    @functools.cache
    def load() -> Model:
        path = Path(args.model_path) if args.model_path else None
        model = load_model(config, path, device, dtype, download=not args.no_download)
        if args.compile:
            compile_model(model)
        return model

    if args.just_precompute:
        paths = find_inputs(cfg, cfg.content_dir, "--content_dir")
        if args.style_dir != DEFAULT_STYLES:
            paths += find_inputs(cfg, cfg.style_dir, "--style_dir")
        paths = list(dict.fromkeys(paths))
        count = precompute(load(), cfg, paths, share)
        print(f"{count} of {len(paths)} pictures are in {cfg.cache_dir}")
        return 0 if count == len(paths) else 1

    animate, ending = animation_format(args.animate) if args.animate else ("", "")
    axes = parse_axes(args.sweep)
    if animate == "gamma" and "gamma" not in [axis.key for axis in axes]:
        axes.append(Axis("gamma", tuple(i / 10 for i in range(11))))
    points = make_points(axes, cfg, lambda values: swept_settings(args, values)) if axes else []
    for point in points:
        point.cfg.settings.check(config.timesteps)
    plan = make_plan(cfg)
    if swept := {axis.key for axis in axes} & {key for pair in plan.pairs for key, _ in pair.changes}:
        raise UsageError(f"--sweep or --animate of {min(swept)}: the rows of --pairs say it too; leave out one")
    if animate == "t" and not points:
        check_animations(plan, ending)
    if args.dry_run:
        resolved = {"config": config.name, "device": str(device), "precision": args.precision, **asdict(settings)}
        print(json.dumps(resolved, indent=1))
        print("\n".join(pair.name for pair in share.own(plan.pairs)).encode(errors="backslashreplace").decode())
        times = f" x {len(points)} settings" if points else ""
        total = plan.evaluations(*([point.cfg.settings for point in points] or [settings]))
        print(f"{len(plan.pairs)} pairs{times}, {total} network evaluations at most")
        return 0

    runs = [point.cfg for point in points] or [cfg]
    if args.grid_only:
        if not share.first:
            return 0
        if points:
            there, reports = lay_out_points(config, points, plan)
            runs = [point.cfg for point in there]
        else:
            reports = [lay_out(config, cfg, plan)]
        log.info("%d of %d pairs are there", sum(len(r.kept) for r in reports), len(plan.pairs) * max(1, len(points)))
    else:
        join(share, device)
        try:
            reports = run_sweep(load(), cfg, points, plan, share) if points else [run(load(), cfg, plan, share)]
        finally:
            leave(share)
        if not share.first:
            return 0  # failures are the first process's to tell: torchrun would end the others for an exit code
        for report in reports:
            log.info("%d pairs done, %d kept from before, %.1f s", len(report.done), len(report.kept), report.seconds)
        failed = {what: reason for report in reports for what, reason in report.failed.items()}
        for reason in failed.values():
            log.critical("failed: %s", " ".join(reason.splitlines()))
    grids = [report.grid for report in reports if report.grid]
    exit_code = 1 if not args.grid_only and any(report.failed for report in reports) else 0
    if len(grids) < len(reports):
        log.info("other shards are not done yet; the last one, or --grid_only, lays out the grid")
        return exit_code
    with saying(lambda: "the pairs are finished, their figures are not"):
        if args.report:
            for each in runs:
                log.info("gallery: %s", write_report(each.save_dir))
        if points:
            grids = draw_figures(cfg, axes, points, plan, config.image_size)
        if animate:
            over_t = animate == "t"
            made = animate_t(load(), cfg, plan, ending) if over_t else animate_gamma(cfg, points, plan, config.image_size, ending)
            log.info("%d animations, the first is %s", len(made), made[0] if made else "missing")
    print(grids[0])
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
