"""What the figure scripts share: arguments, inversions made once, variants of the settings side by side, PNG + PDF + CSV."""

from __future__ import annotations

import argparse
import csv
import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import diffstyle
from diffstyle.api import load
from diffstyle.console import at_least, exit_code
from diffstyle.errors import UsageError
from diffstyle.figures import measures
from diffstyle.figures.measures import Measure, Sample
from diffstyle.figures.table import Cell, table
from diffstyle.files import open_folder, write_whole
from diffstyle.images import load_image, save_png, to_image
from diffstyle.model import Model, ModelConfig
from diffstyle.pipeline import Inverted
from diffstyle.runs.inputs import list_images
from diffstyle.runs.places import check_kept, ways_to
from diffstyle.runs.sweep import show
from diffstyle.settings import Settings
from diffstyle.steps import event_timesteps

ROOT = Path(__file__).resolve().parents[2]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AVATARS = ROOT / "test_images/avatars"
MEASURES = ("edges_to_content", "perceptual_to_content_lite0", "histogram_to_style", "gram_to_style_lite0")
# For a model whose config says nothing: the paper's settings, but for the steps, of which the paper takes 1000.
PAPER: Mapping[str, float] = {"gamma": 0.3, "omega": 0.0, "t_edit": 400, "t_boost": 0, "n_inv": 50, "n_gen": 50,
                              "content_replace_step": 50, "t_0": 999}  # fmt: skip
LARGEST_CELL = 2048  # pixels; a figure of 10 x 10 such pictures takes 1.3 GB
Row = Mapping[str, str | float]
Variants = Mapping[str, Settings]  # label of the column -> settings
Results = Mapping[str, Tensor]  # label of the column -> (C, S, 3, H, W)


@dataclass(frozen=True)
class Bench:
    """A model and inverted pictures; every variant of the settings reads the same inversions."""

    model: Model
    settings: Settings  # of the command line and the config; variants change some of them
    contents: Tensor  # (C, 3, H, W) in [-1, 1]
    styles: Tensor  # (S, 3, H, W)
    content: Inverted
    style: Inverted
    batch_size: int
    out: Path
    cell: int  # side of a picture in the figure, pixels; 0 is the table's choice


# ---- arguments ---------------------------------------------------------------------------------------------------


def parser(doc: str | None, contents: int = 3, styles: int = 3, folder: Path = AVATARS / "styles") -> argparse.ArgumentParser:
    """The arguments of every figure; ``contents`` and ``styles`` are how many pictures it takes unless told otherwise."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", default="avatars.yml")
    p.add_argument("--model_path")
    p.add_argument("--device", default="auto")
    p.add_argument("--content_dir", type=Path, default=AVATARS / "contents")
    p.add_argument("--style_dir", type=Path, default=folder)
    p.add_argument("--n_contents", type=int, default=contents)
    p.add_argument("--n_styles", type=int, default=styles)
    for name in PAPER:
        kind = type(getattr(Settings(), name))
        p.add_argument(f"--{name}", type=kind, help=f"default: the config's section settings, else {PAPER[name]}")
    p.add_argument("--mask", default="", help="box, a picture, or x0,y0,x1,y1 in fractions")
    p.add_argument("--batch_size", type=int, default=6)
    p.add_argument("--cell", type=int, default=0, help="side of a picture in the figure, in pixels")
    p.add_argument("--out", type=Path, default=ROOT / "results/figures")
    return p


def numbers(text: str, flag: str, kind: type = float) -> list[float]:
    """ "0,0.3,1" to [0, 0.3, 1], each once. Raises UsageError."""
    try:
        values = list(dict.fromkeys(kind(word) for word in text.split(",")))
    except ValueError:
        raise UsageError(f"{flag} {text}: give {'whole ' if kind is int else ''}numbers with commas between them") from None
    if any(abs(value) > 1e9 for value in values):  # a curve is drawn over them
        raise UsageError(f"{flag} {text}: use numbers of at most 1e9")
    return values


def check(args: argparse.Namespace, **limits: int) -> None:
    """Raise UsageError where a number of the command line cannot be meant; ``limits`` are the least of further ones."""
    at_least(args, n_contents=1, n_styles=1, batch_size=1, cell=0, **limits)
    if args.cell > LARGEST_CELL:
        raise UsageError(f"--cell {args.cell}: use {LARGEST_CELL} at most")


def find_pictures(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Contents and styles, none of which lies where figures are written. Raises UsageError."""
    contents = list_images(args.content_dir, "--content_dir")[: args.n_contents]
    styles = list_images(args.style_dir, "--style_dir")[: args.n_styles]
    read = [*contents, *styles]
    check_kept([args.out / entry.name for path in read for entry in ways_to(path)], read, "choose another --out")
    return contents, styles


def run(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> int:
    """Call a figure's main; errors become one line and an exit code (2 wrong usage, 1 failed work)."""
    return exit_code(lambda: main(argv))


# ---- pictures ----------------------------------------------------------------------------------------------------


def settings_of(args: argparse.Namespace, config: ModelConfig) -> Settings:
    """What is said, else what the model's config says, else the paper's."""
    said = {name: value for name in PAPER if (value := getattr(args, name)) is not None}
    return Settings(**{**PAPER, **config.settings, **said}, mask=args.mask)  # type: ignore[arg-type]


def start(args: argparse.Namespace) -> Bench:
    """Load model and pictures and invert them. Raises DiffstyleError."""
    check(args)
    model = load(args.config, args.model_path, args.device)
    s = settings_of(args, model.config)
    open_folder(args.out, "--out")
    sides = []
    for paths in find_pictures(args):
        inverted = diffstyle.invert(model, paths, args.batch_size, **asdict(s))
        sides.append((torch.stack([load_image(p, model.config.image_size) for p in paths]), inverted))
    (contents, content), (styles, style) = sides
    return Bench(model, s, contents, styles, content, style, args.batch_size, args.out, args.cell)


def transfer(bench: Bench, s: Settings) -> Tensor:
    """Every content in every style: (C, S, 3, H, W) on the CPU, clipped to [-1, 1]."""
    return diffstyle.transfer(bench.model, bench.content, bench.style, bench.batch_size, **asdict(s)).clamp(-1, 1)


def transfer_each(bench: Bench, variants: Variants) -> Results:
    return {label: transfer(bench, s) for label, s in variants.items()}


def compare(bench: Bench, results: Results, title: str, shown: int = 3) -> Image.Image:
    """The figure with a column a variant and a row a pair (content i in style i)."""
    rows: list[list[Cell]] = []
    for i in range(min(shown, len(bench.contents), len(bench.styles))):
        inputs = [to_image(bench.contents[i]), to_image(bench.styles[i])]
        rows.append([*inputs, *(to_image(x[i, i]) for x in results.values())])
    return table(rows, column_labels=["content", "style", *results], title=title, cell=bench.cell)


def grid(bench: Bench, results: Tensor) -> list[list[Cell]]:
    """The cells of every content (down) in every style (across), with both beside."""
    rows: list[list[Cell]] = [[None, *map(to_image, bench.styles)]]
    return rows + [[to_image(x), *map(to_image, of_content)] for x, of_content in zip(bench.contents, results, strict=True)]


# ---- numbers -----------------------------------------------------------------------------------------------------


@functools.cache
def measured() -> list[Measure]:
    """The measures of the figures, none of which needs the diffusion model; n/a where the network is missing."""
    rows = [*measures.without_network(), *measures.on_lite0()]
    return [row for name in MEASURES for row in rows if row.name == name]


def measure(bench: Bench, results: Tensor, variant: str, rows: Sequence[Measure] | None = None) -> list[Sample]:
    """What each result of (C, S, 3, H, W) shares with its content and with its style."""
    contents, styles = (list(((x + 1) / 2).split(1)) for x in (bench.contents, bench.styles))  # the same tensors each time
    samples = []
    for c, of_content in enumerate(results):
        for i, result in enumerate(((of_content + 1) / 2).split(1)):
            sample = Sample(variant, str(c), str(i))
            for row in measured() if rows is None else rows:
                measures.measure(row, sample, result, contents[c], styles[i])
            samples.append(sample)
    return samples


def measure_each(bench: Bench, results: Results) -> list[Sample]:
    return [sample for label, x in results.items() for sample in measure(bench, x, label)]


def as_rows(samples: Sequence[Sample], more: Sequence[Row] = ()) -> list[Row]:
    """A CSV row a pair; ``more`` are further columns of each."""
    names = list(dict.fromkeys(name for s in samples for name in s.values))
    rows = [{"variant": s.variant, "content": s.content, "style": s.style, **{n: s.values.get(n, "n/a") for n in names}}
            for s in samples]  # fmt: skip
    return [row | dict(extra) for row, extra in zip(rows, more or [{}] * len(rows), strict=True)]


def summary(samples: Sequence[Sample], rows: Sequence[Measure] | None = None) -> str:
    """Values with 95 % intervals by variant, as Markdown; then what is missing and why."""
    rows = measured() if rows is None else rows
    others = {row.name: row for row in rows}
    lines = ["| variant |" + "".join(f" {row.name} ({row.better}) |" for row in rows), "|---|" + "---|" * len(rows)]
    for variant in dict.fromkeys(s.variant for s in samples):
        own = [s for s in samples if s.variant == variant]
        found = [measures.estimate(row, own, others) for row in rows]
        cells = [f" {cell[0]:.3g}{between(*cell[1:])} |" if cell else " n/a |" for cell in found]
        lines.append(f"| {variant} |" + "".join(cells))
    return "\n".join([*lines, *(f"\n{row.name}: n/a, {row.reason}" for row in rows if row.reason)])


def between(low: float, high: float) -> str:
    """An interval; nothing where a measure of whole sets has too few pictures for one."""
    return "" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]"


def curves(samples: Sequence[Sample], values: Sequence[float], label: str) -> Figure:
    """Each measure over a swept setting with its 95 % band; the variants of ``samples`` are ``values`` in this order."""
    variants = list(dict.fromkeys(s.variant for s in samples))
    groups = [[s for s in samples if s.variant == variant] for variant in variants]
    shown = [row for row in measured() if row.compute]
    figure, axes = plots(1, len(shown))
    for axis, row in zip(axes, shown, strict=True):
        found = [measures.estimate(row, group, {}) for group in groups]
        mean, low, high = zip(*(cell for cell in found if cell), strict=True)
        axis.plot(values, mean, "o-", markersize=3)
        axis.fill_between(values, low, high, alpha=0.2)
        axis.set(xlabel=label, title=row.name)
        axis.title.set_fontsize(9)
    return figure


# ---- files -------------------------------------------------------------------------------------------------------


def plots(rows: int, columns: int, width: float = 3.2, height: float = 2.8) -> tuple[Figure, list[Any]]:
    """A matplotlib figure and its axes, with a faint grid."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    for axis in axes.flat:
        axis.grid(True, alpha=0.3)
    return figure, list(axes.flat)


def save_plot(out: Path, name: str, figure: Figure) -> None:
    """NAME.png, and NAME.pdf as vectors."""
    figure.tight_layout()
    for ending in ("png", "pdf"):
        write_whole(out / f"{name}.{ending}", partial(figure.savefig, format=ending, dpi=150))
    figure.clear()
    print(out / f"{name}.png")


def save(out: Path, name: str, sheet: Image.Image | None, rows: Sequence[Row], text: str = "") -> None:
    """NAME.csv, and if they are given NAME.png and NAME.pdf and NAME.md, each whole or not at all; prints text and path."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(out / f"{name}.csv", lambda f: f.write(lines.getvalue().encode()))
    if text:
        write_whole(out / f"{name}.md", lambda f: f.write((text + "\n").encode()))
        print(text)
    if sheet:
        save_png(out / f"{name}.png", sheet)
        write_whole(out / f"{name}.pdf", partial(sheet.save, format="PDF", resolution=150))
        print(out / f"{name}.png")


def spread(s: Settings, n: int = 5) -> list[int]:
    """At most ``n`` of the timesteps at which content may be injected, from the noisiest down to 0."""
    events = event_timesteps(s.n_gen, s.content_replace_step, s.t_0)
    return [events[i] for i in sorted({round(i) for i in np.linspace(0, len(events) - 1, n)}, reverse=True)]


def sweep(name: str, doc: str | None, key: str, values: str, symbol: str, title: str, argv: list[str] | None) -> None:
    """A figure that varies one setting: NAME.png (pictures), NAME_curves (plot), NAME.csv, NAME.md."""
    p = parser(doc)
    p.add_argument("--values", default=values, help="" if values else "default: five of the timesteps at which h is looked at")
    args = p.parse_args(argv)
    said = numbers(args.values, "--values", type(getattr(Settings(), key))) if values or args.values else []
    bench = start(args)
    given: Sequence[Any] = said or spread(bench.settings)
    variants = {f"{symbol} = {show(value)}": replace(bench.settings, **{key: value}) for value in given}
    results = transfer_each(bench, variants)
    samples = measure_each(bench, results)
    save(args.out, name, compare(bench, results, title.format(**asdict(bench.settings))), as_rows(samples), summary(samples))
    save_plot(args.out, f"{name}_curves", curves(samples, given, symbol))
