"""What the figure scripts share: arguments, inversions made once, variants of the settings side by side, PNG + PDF + CSV."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import diffstyle
from diffstyle.api import load
from diffstyle.errors import DiffstyleError, UsageError
from diffstyle.figures.metrics import (
    bootstrap,
    edge_similarity,
    filter_bank,
    gram_loss,
    histogram_distance,
    ssim,
)
from diffstyle.figures.table import Cell, table
from diffstyle.files import open_folder, write_whole
from diffstyle.images import load_image, save_png, to_image
from diffstyle.model import Model
from diffstyle.pipeline import Inverted
from diffstyle.runs.inputs import list_images
from diffstyle.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
AVATARS = ROOT / "test_images/avatars"
MEASURES = ("edges_to_content", "ssim_to_content", "histogram_to_style", "gram_to_style")
Row = dict[str, str | float]
Variants = Mapping[str, Settings]  # label of the column -> settings
Results = Mapping[str, Tensor]  # label of the column -> (C, S, 3, H, W)


@dataclass(frozen=True)
class Bench:
    """A model and inverted pictures; every variant of the settings reads the same inversions."""

    model: Model
    settings: Settings  # of the command line; variants change some of them
    contents: Tensor  # (C, 3, H, W) in [-1, 1]
    styles: Tensor  # (S, 3, H, W)
    content: Inverted
    style: Inverted
    batch_size: int
    out: Path


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
    p.add_argument("--n_inv", type=int, default=50)
    p.add_argument("--n_gen", type=int, default=50)
    p.add_argument("--content_replace_step", type=int, default=50)
    p.add_argument("--gamma", type=float, default=0.6)
    p.add_argument("--omega", type=float, default=0.0)
    p.add_argument("--t_edit", type=int, default=200, help="the embedded model's; 400 for the paper's models")
    p.add_argument("--t_boost", type=int, default=0)
    p.add_argument("--batch_size", type=int, default=6)
    p.add_argument("--out", type=Path, default=ROOT / "results/figures")
    return p


def start(args: argparse.Namespace) -> Bench:
    """Load model and pictures and invert them. Raises DiffstyleError."""
    s = Settings(gamma=args.gamma, omega=args.omega, t_edit=args.t_edit, t_boost=args.t_boost, n_inv=args.n_inv,
                 n_gen=args.n_gen, content_replace_step=args.content_replace_step)  # fmt: skip
    model = load(args.config, args.model_path, args.device)
    open_folder(args.out, "--out")
    sides = []
    for folder, flag, n in ((args.content_dir, "--content_dir", args.n_contents), (args.style_dir, "--style_dir", args.n_styles)):
        paths = list_images(folder, flag)[:n]
        inverted = diffstyle.invert(model, paths, args.batch_size, **asdict(s))
        sides.append((torch.stack([load_image(p, model.config.image_size) for p in paths]), inverted))
    (contents, content), (styles, style) = sides
    return Bench(model, s, contents, styles, content, style, args.batch_size, args.out)


def transfer(bench: Bench, s: Settings) -> Tensor:
    """Every content in every style: (C, S, 3, H, W) on the CPU, clipped to [-1, 1]."""
    return diffstyle.transfer(bench.model, bench.content, bench.style, bench.batch_size, **asdict(s)).clamp(-1, 1)


def measure(bench: Bench, results: Tensor, variant: str) -> list[Row]:
    """One row a pair: what the result shares with its content and with its style (diffstyle.figures.metrics)."""
    rows: list[Row] = []
    for c, of_content in enumerate(results):
        r, styles = (of_content + 1) / 2, (bench.styles + 1) / 2
        content = ((bench.contents[c : c + 1] + 1) / 2).expand_as(r)
        columns = (
            edge_similarity(r, content), ssim(r, content), histogram_distance(r, styles),
            gram_loss(filter_bank(r), filter_bank(styles)),
        )  # fmt: skip
        for i, values in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            row: Row = {"variant": variant, "content": c, "style": i}
            rows.append(row | dict(zip(MEASURES, values, strict=True)))
    return rows


def transfer_each(bench: Bench, variants: Variants) -> Results:
    return {label: transfer(bench, s) for label, s in variants.items()}


def compare(bench: Bench, results: Results, title: str, shown: int = 3) -> tuple[Image.Image, list[Row]]:
    """The figure with a column a variant and a row a pair (content i in style i), and the numbers of all pairs."""
    rows: list[list[Cell]] = []
    for i in range(min(shown, len(bench.contents), len(bench.styles))):
        inputs = [to_image(bench.contents[i]), to_image(bench.styles[i])]
        rows.append([*inputs, *(to_image(x[i, i]) for x in results.values())])
    sheet = table(rows, column_labels=["content", "style", *results], title=title)
    return sheet, [row for label, x in results.items() for row in measure(bench, x, label)]


def summary(rows: Sequence[Row]) -> str:
    """Means over pairs with 95 % bootstrap intervals by variant, as Markdown."""
    lines = ["| variant |" + "".join(f" {name} |" for name in MEASURES), "|---|" + "---|" * len(MEASURES)]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        contents, styles = ([str(row[side]) for row in own] for side in ("content", "style"))
        cells = []
        for name in MEASURES:
            mean, low, high = bootstrap([float(row[name]) for row in own], contents, styles)
            cells.append(f" {mean:.3g} [{low:.3g}, {high:.3g}] |")
        lines.append(f"| {variant} |" + "".join(cells))
    return "\n".join(lines)


def save(out: Path, name: str, sheet: Image.Image, rows: Sequence[Row], text: str = "") -> None:
    """NAME.png, NAME.pdf, NAME.csv and, if there is a text, NAME.md, each whole or not at all; prints text and path."""
    save_png(out / f"{name}.png", sheet)
    pdf = io.BytesIO()
    sheet.save(pdf, format="PDF", resolution=150)
    write_whole(out / f"{name}.pdf", lambda f: f.write(pdf.getvalue()))
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(out / f"{name}.csv", lambda f: f.write(lines.getvalue().encode()))
    if text:
        write_whole(out / f"{name}.md", lambda f: f.write((text + "\n").encode()))
        print(text)
    print(out / f"{name}.png")


def run(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> int:
    """Call a figure's main; errors become one line and an exit code (2 wrong usage, 1 failed work)."""
    try:
        main(argv)
    except DiffstyleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def numbers(text: str, flag: str) -> list[float]:
    """ "0,0.3,1" to [0, 0.3, 1]."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag} {text}: give numbers with commas between them") from None
