#!/usr/bin/env python3
"""The command line: its flags. What they do is in diffstyle/commands.py."""

from __future__ import annotations

if __name__.endswith("__main__"):  # a program, not a module of another one: Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from diffstyle import flags
from diffstyle.console import end, exit_code, handling, lossy_streams
from diffstyle.errors import saying
from diffstyle.settings import Settings
from diffstyle.version import __version__

DESCRIPTION = """Style transfer with a frozen diffusion model: the result takes its content (face, shape) from one
picture and its style (colours, texture) from another. Every content in --content_dir is combined with every style in
--style_dir. The official DiffStyle command lines work unchanged, abbreviated flags too; those of its flags that style
transfer does not read are accepted without effect."""


class Parser(argparse.ArgumentParser):
    """argparse, its errors without the usage, which would fill the screen."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (main.py --help lists the flags)\n")


class OtherMode(argparse.Action):
    """A flag that starts something else in the official code."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(f"{self.option_strings[0]} belongs to the training, tests and editing of Asyrp, on which the official "
                     "code is built; they are not part of this, which is style transfer only")  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="main.py",
        description=DESCRIPTION,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,  # flags.expand does it
    )
    add_flags(parser)
    add_official_flags(parser)
    parser.set_defaults(**asdict(Settings()) | {"omega": None})  # None: the variant's
    return parser


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Our flags; those of the method are stored under the names of Settings' fields."""
    # fmt: off
    what = parser.add_argument_group("what to do")
    what.add_argument("--version", action="version", version=f"diffstyle {__version__}", help="print the version, then stop")
    what.add_argument("--diff_style", action="store_true", default=True, help="style transfer, the only mode")
    what.add_argument("--config", default="avatars.yml",
                      help="model description: a name in configs/, a path, a diffusers folder or hf:OWNER/NAME")
    what.add_argument("--model_path",
                      help="checkpoint to use instead of the config's: a file; or a diffusers folder or hf:OWNER/NAME on the "
                           "Hugging Face hub, which need no --config")
    what.add_argument("--content_dir", default=flags.CONTENT_DIR,
                      help="folder or file of contents; or dataset:NAME[:N] from configs/paths_config.py; or sample:N, "
                           "pictures drawn by the model itself")
    what.add_argument("--style_dir", default=flags.STYLE_DIR, help="folder or file of styles, or a source as above")
    what.add_argument("--pairs", metavar="CSV",
                      help="do the pairs of this list instead of all: columns content, style and, if wanted, gamma, omega, "
                           "seed, name for the row; files are looked up from the current folder, beside the list, and in "
                           "--content_dir and --style_dir")
    what.add_argument("--recursive", action="store_true", help="also look into the folders' folders")
    what.add_argument("--exif", action="store_true", help="turn photographs as their EXIF says (the official code does not)")
    what.add_argument("--layout", default="flat", metavar="flat|by-style|by-content",
                      help="put results into one folder, or one a style or a content")
    what.add_argument("--save_dir", default="./results", help="where grid.png and the pairs' pictures go")
    what.add_argument("--explore", type=int, nargs="?", const=0, metavar="PORT",
                      help="play in the browser instead: a page on this machine, with sliders, a mask to brush and the "
                           "command line of what is seen (docs/explore.md)")
    what.add_argument("--dry_run", action="store_true", help="print settings, pairs and network evaluations, then stop")
    what.add_argument("--grid_only", action="store_true", help="only lay out grid.png and run.json again from what is there")
    what.add_argument("--just_precompute", action="store_true", help="invert the pictures into --cache_dir, then stop")
    what.add_argument("--overwrite", action="store_true", help="make results again that are there with the same settings")

    method = parser.add_argument_group("the method (symbols of the paper)")
    method.add_argument("--gamma", "--hs_coeff", type=float, metavar="G",
                        help="gamma, the share of the content's bottleneck features h in the Slerp: 0 is the style picture, "
                             "0.3 to 0.4 is advised, above 0.6 pictures degrade")
    method.add_argument("--omega", type=float, metavar="W",
                        help="omega, style calibration: larger keeps more of the style, 0 is off (default: 0, or 0.3 with "
                             "--variant paper)")
    method.add_argument("--t_edit", "--user_defined_t_edit", type=number_or_auto, metavar="T",
                        help="inject content at timesteps t >= t_edit; auto: as scripts/intervals.py found it for the model")
    method.add_argument("--t_boost", "--t_noise", type=number_or_auto, metavar="T",
                        help="quality boosting: add noise (eta 1) at timesteps t <= t_boost; auto: as for t_edit")
    method.add_argument("--dt_lambda", type=float, help="factor on the direction D_t at injections with t >= dt_end")
    method.add_argument("--dt_end", type=int, help="the timestep down to which dt_lambda acts")
    method.add_argument("--content_replace_step", type=int, metavar="N",
                        help="timesteps at which h is looked at; 0 or -1 is every step, many times stronger")
    where = method.add_mutually_exclusive_group()
    where.add_argument("--use_mask", action="store_const", const="box", dest="mask",
                       help="inject only inside the official box in the lower face")
    where.add_argument("--mask", metavar="FILE|x0,y0,x1,y1",
                       help="inject only here: a picture (white takes the content) or a rectangle in fractions")
    method.add_argument("--blend", help="slerp: the method; lerp, replace, add: the paper's ablation")
    method.add_argument("--variant",
                        help="official: the published code's behaviour; paper: the text (norm-matched masks, noise at every "
                             "step with t <= t_boost, omega 0.3)")

    show = parser.add_argument_group("figures")
    show.add_argument("--report", action="store_true",
                      help="also write save_dir/index.html, a gallery to look at in any browser")
    show.add_argument("--sweep", action="append", default=[], metavar="KEY=V,V,...",
                      help="make every pair with each of these values (gamma, omega, t_edit, t_boost, dt_lambda, n_gen, "
                           "n_inv, solver, nfe, blend or variant) and draw one labelled figure a pair; give it again for a "
                           "second axis")
    show.add_argument("--animate", metavar="gamma|t[.gif|.png|.webp]",
                      help="animate every pair: the result over gamma, or x_t and P_t over the generation")

    steps = parser.add_argument_group("steps and noise")
    steps.add_argument("--n_inv_step", "--n_inv", dest="n_inv", type=int, metavar="N", help="timesteps of the inversion")
    steps.add_argument("--n_gen_step", "--n_gen", dest="n_gen", type=int, metavar="N", help="timesteps of the generation")
    steps.add_argument("--t_0", type=int, help="the noisiest timestep")
    steps.add_argument("--solver",
                       help="ddim: the official walk, every step evaluated; abm3: its result from about 20 times fewer "
                            "evaluations; euler, heun, ab2, ab3, abm2: for comparison (benchmarks/README.md)")
    steps.add_argument("--nfe", type=number_or_auto, metavar="N",
                       help="evaluations a walk of the other solvers, those at injections apart; auto: as few as "
                            "scripts/measure_budgets.py found for the model to come within --tolerance")
    steps.add_argument("--tolerance", type=float, default=45, metavar="DB",
                       help="for --nfe auto: how near, in dB PSNR, nine of ten pairs come to the 1000/1000-step pictures")
    steps.add_argument("--seed", type=int, help="seed of the boosting noise")
    steps.add_argument("--noise",
                       help="pair: noise depends on seed and the two pictures only; official: the single stream of a "
                            "run of the official main.py on a CPU; golden: that of the tests' recorded arrays")

    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda (cuda:1 ...) or mps")
    machine.add_argument("--precision", default="auto",
                         help="auto, fp32, tf32, tf32-conv, bf16 or fp16; norms and the sampler stay fp32. auto is the official "
                              "code's: tf32-conv (TF32 in convolutions) on CUDA, fp32 elsewhere")
    machine.add_argument("--compile", action="store_true",
                         help="torch.compile the network, once for all batch sizes: a minute or so at the start, less an "
                              "evaluation")
    machine.add_argument("--batch_size", type=int, metavar="N",
                         help="pictures a network call; results do not depend on it up to rounding, which on a GPU may be "
                              "seen in bf16 and fp16 (default: by free memory; halved when memory runs out)")
    machine.add_argument("--shard", metavar="I/N",
                         help="do every N-th pair from the I-th on, for processes started one by one (Slurm arrays); under "
                              "torchrun the work is shared without it")
    machine.add_argument("--cache_dir", default="./precomputed", help="where inverted latents are kept for the next run")
    machine.add_argument("--no_cache", action="store_true", help="keep no latents after the run")
    machine.add_argument("--no_download", action="store_true", help="never fetch a missing checkpoint")
    machine.add_argument("--verbose", default="info", type=level, metavar="debug|info|warning|error|critical",
                         help="how much is said; debug shows tracebacks")
    # fmt: on


def add_official_flags(parser: argparse.ArgumentParser) -> None:
    """The others of the official code; --help does not list them. Those given are collected in ``unused``."""
    types = {"int": int, "float": float, "str": str, "append": str}
    for flag, kind in flags.OFFICIAL.items():
        if kind == "other mode":
            parser.add_argument(flag, action=OtherMode, nargs=0, help=argparse.SUPPRESS)
        elif kind == "switch":
            parser.add_argument(flag, action=Unused, nargs=0, help=argparse.SUPPRESS)
        elif kind in types:
            # The recipes' $sh_file_name may be unset; --ni once stood alone.
            nargs = "?" if flag in ("--sh_file_name", "--ni") else None
            parser.add_argument(flag, action=Unused, nargs=nargs, type=types[kind], help=argparse.SUPPRESS)


class Unused(argparse.Action):
    """A flag of the official code that style transfer does not read."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, "unused", default=(), **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        namespace.unused = tuple(dict.fromkeys([*namespace.unused, self.option_strings[0]]))


def number_or_auto(word: str) -> int | str:
    """A whole number, or "auto": as a script found it for the model."""
    return word if word == "auto" else int(word)


def level(word: str) -> str:
    """A name of a logging level, as the official code takes it."""
    if not isinstance(logging.getLevelName(word.upper()), int):
        raise argparse.ArgumentTypeError(f"{word!r} is no level: use debug, info, warning, error or critical")
    return word.upper()


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Flags to values. Raises SystemExit where they are wrong."""
    parser = build_parser()
    try:
        words = flags.expand(sys.argv[1:] if argv is None else argv, parser._option_string_actions)
    except ValueError as error:
        parser.error(str(error))
    return parser.parse_args(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (0 done, 1 failed work, 2 wrong usage, 130 or 143 interrupted)."""

    def command() -> int:
        args = parse(argv)
        logging.basicConfig(level=args.verbose, format="%(message)s", stream=sys.stderr, force=True)
        with handling(end):
            from diffstyle.commands import work  # brings torch, which wrong flags need not wait for
        with saying(lambda: "nothing was begun"):
            return work(args)

    with lossy_streams():
        return exit_code(command, "--verbose debug shows where")


if __name__ == "__main__":
    sys.exit(main())
