#!/usr/bin/env python3
"""How near results are to their contents and styles: reads what a run wrote (run.json) and measures every pair.

    python scripts/evaluate.py results/quickstart
    python scripts/evaluate.py results/sweep --identity arcface.pt

Writes metrics.csv (a row a pair), metrics.md (means with 95 % bootstrap intervals; what could not be computed, and why) and
metrics.png into the folder. A sweep's folder is measured combination by combination. Definitions: diffstyle/metrics.py.
Nothing is downloaded: VGG-19 and AlexNet are read from torch hub's cache, LPIPS heads from the package lpips, an identity
network from --identity; without them those rows are n/a. The diffusion model's own features serve as a space of their own.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.util
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffstyle.api import load
from diffstyle.errors import DiffstyleError, UsageError, WorkError
from diffstyle.figures import feature_networks, metrics
from diffstyle.files import write_whole
from diffstyle.images import load_image
from diffstyle.model import Model

ROOT = Path(__file__).resolve().parents[1]

Compute = Callable[[Tensor, Tensor, Tensor], Tensor]  # result, content, style, each (1, 3, H, W) in [0, 1], to (1,)


@dataclass(frozen=True)
class Measure:
    """One column. Without ``compute`` it is n/a, and ``reason`` says why."""

    name: str
    better: str  # "less" or "more"
    compute: Compute | None
    reason: str = ""


@dataclass(frozen=True)
class Pair:
    """One result of a run, with the files it was made from."""

    variant: str  # folder of a sweep, "" for a plain run
    content: str
    style: str
    plain: bool  # regenerated without content and noise: the result is the style picture, reconstructed
    files: tuple[Path, Path, Path]  # result, content, style


# ---- what a run wrote --------------------------------------------------------------------------------------------


def find_runs(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """run.json of ``folder``, or those of a sweep's sub-folders. Raises UsageError."""
    paths = [folder / "run.json"] if (folder / "run.json").is_file() else sorted(folder.glob("*/run.json"))
    if not paths:
        raise UsageError(f"{folder}: no run.json in it or in its sub-folders; give the --save_dir of a run")
    found = []
    for path in paths:
        try:
            record = json.loads(path.read_text())
            _ = record["model"]["image_size"], record["model"]["name"], pairs_of(path.parent, record, folder)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not the record of a run ({type(error).__name__}: {error})") from error
        found.append((path.parent, record))
    return found


def pairs_of(folder: Path, run: dict[str, Any], root: Path) -> list[Pair]:
    """The pairs of a run whose result is there; those that failed are left out."""
    inputs = [{p["name"]: Path(p["path"]) for p in run[side]} for side in ("contents", "styles")]
    variant = "" if folder == root else folder.name
    pairs = []
    for r in run["results"]:
        s = run["settings"] | r.get("changes", {})
        plain = s["gamma"] == 0 and s["blend"] != "replace" and s["t_boost"] == 0
        files = (folder / r["result"], inputs[0][r["content"]], inputs[1][r["style"]])
        if files[0].is_file():
            pairs.append(Pair(variant, r["content"], r["style"], plain, files))
    return pairs


# ---- the measures ------------------------------------------------------------------------------------------------


def attempt(name: str, better: str, build: Callable[[], Compute]) -> Measure:
    """The measure, or n/a with the reason if what it needs is not here."""
    try:
        return Measure(name, better, build())
    except (feature_networks.AbsentError, DiffstyleError) as error:
        return Measure(name, better, None, str(error))


def build_measures(model: Callable[[], Model], identity: Path | None, heads: Path | None) -> list[Measure]:
    """Every measure; those on networks are built, or are n/a."""

    def gram(space: Callable[[], metrics.Features]) -> Callable[[], Compute]:
        def build() -> Compute:
            features = space()
            return lambda r, c, s: metrics.gram_loss(features(r), features(s))

        return build

    def similarity(space: Callable[[], metrics.Embedding]) -> Callable[[], Compute]:
        def build() -> Compute:
            embed = space()
            try:
                embed(torch.zeros(1, 3, 64, 64))
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1][:100]
                raise WorkError(f"the network does not take pictures ({reason})") from error
            return lambda r, c, s: metrics.cosine(embed(r), embed(c))

        return build

    def lpips(to_content: bool) -> Callable[[], Compute]:
        def build() -> Compute:
            features, weights = feature_networks.alex_lpips(heads)
            return lambda r, c, s: metrics.lpips(features(r), features(c if to_content else s), weights)

        return build

    def own_lpips(to_content: bool) -> Callable[[], Compute]:
        def build() -> Compute:
            features = feature_networks.own_encoder(model())
            return lambda r, c, s: metrics.lpips(features(r), features(c if to_content else s))

        return build

    return [
        Measure("edges_to_content", "more", lambda r, c, s: metrics.edge_similarity(r, c)),
        Measure("edges_to_style", "less", lambda r, c, s: metrics.edge_similarity(r, s)),
        Measure("ssim_to_content", "more", lambda r, c, s: metrics.ssim(r, c)),
        Measure("ssim_to_style", "less", lambda r, c, s: metrics.ssim(r, s)),
        Measure("histogram_to_style", "less", lambda r, c, s: metrics.histogram_distance(r, s)),
        Measure("histogram_to_content", "more", lambda r, c, s: metrics.histogram_distance(r, c)),
        Measure("gram_to_style_filter_bank", "less", gram(lambda: metrics.filter_bank)()),
        attempt("gram_to_style_own_encoder", "less", gram(lambda: feature_networks.own_encoder(model()))),
        attempt("gram_to_style_vgg19", "less", gram(feature_networks.vgg_style)),
        attempt("identity_to_content", "more", similarity(lambda: feature_networks.torchscript_embedding(identity))),
        attempt("own_bottleneck_to_content", "more", similarity(lambda: feature_networks.own_bottleneck(model()))),
        attempt("lpips_to_content", "less", lpips(True)),
        attempt("lpips_to_style", "less", lpips(False)),
        attempt("uncalibrated_lpips_own_encoder_to_content", "less", own_lpips(True)),
        attempt("uncalibrated_lpips_own_encoder_to_style", "less", own_lpips(False)),
    ]


Row = dict[str, str | float]


def measure(pair: Pair, measures: Sequence[Measure], size: int, exif: bool) -> Row:
    """One row. Raises WorkError if a picture cannot be read."""
    result, content, style = ((load_image(f, size, exif and i > 0)[None] + 1) / 2 for i, f in enumerate(pair.files))
    row: Row = {"variant": pair.variant, "content": pair.content, "style": pair.style}
    for m in measures:
        row[m.name] = m.compute(result, content, style).item() if m.compute else "n/a"
    row["reconstruction_psnr"] = metrics.psnr(result, style).item() if pair.plain else "n/a"
    return row


# ---- the report --------------------------------------------------------------------------------------------------


def mean(rows: Sequence[Row], name: str) -> tuple[float, float, float] | None:
    own = [row for row in rows if row[name] != "n/a"]
    if not own:
        return None
    contents, styles = ([str(row[side]) for row in own] for side in ("content", "style"))
    return metrics.bootstrap([float(row[name]) for row in own], contents, styles)


def markdown(rows: Sequence[Row], measures: Sequence[Measure]) -> str:
    variants = list(dict.fromkeys(str(row["variant"]) for row in rows))
    lines = [
        f"{len(rows)} results. Mean over pairs [95 % bootstrap interval; contents and styles drawn again].", "",
        "| measure | better |" + "".join(f" {variant or 'all'} |" for variant in variants), "|---|---|" + "---|" * len(variants),
    ]  # fmt: skip
    for m in measures:
        cells = []
        for variant in variants:
            found = mean([row for row in rows if row["variant"] == variant], m.name)
            cells.append(f" {found[0]:.4g} [{found[1]:.4g}, {found[2]:.4g}] |" if found else " n/a |")
        lines.append(f"| {m.name} | {m.better} |" + "".join(cells))
    absent = [f"- {m.name}: n/a, {m.reason}" for m in measures if m.reason and mean(rows, m.name) is None]
    notes = "own_bottleneck compares h, which injection writes: a check of the method, not a judge of it."
    return "\n".join([*lines, "", *absent, *([""] if absent else []), notes])


def plot(rows: Sequence[Row], measures: Sequence[Measure], path: Path) -> None:
    """A bar with its interval for each variant, a panel a measure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [m for m in measures if mean(rows, m.name)]
    variants = list(dict.fromkeys(str(row["variant"]) for row in rows))
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.4 * columns, (0.9 + 0.35 * len(variants)) * lines), squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis, m in zip(axes.flat, shown, strict=False):
        for i, variant in enumerate(variants):
            found = mean([row for row in rows if row["variant"] == variant], m.name)
            if found:
                axis.errorbar(found[0], i, xerr=[[found[0] - found[1]], [found[2] - found[0]]], fmt="o", capsize=3)
        axis.set(yticks=range(len(variants)), yticklabels=variants, ylim=(len(variants) - 0.5, -0.5))
        axis.set_title(f"{m.name} ({m.better})", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(True, axis="x", alpha=0.3)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    write_whole(path, lambda f: f.write(buffer.getvalue()))


def work(args: argparse.Namespace) -> int:
    runs = find_runs(args.results_dir)
    record = runs[0][1]["model"]

    @functools.cache
    def model() -> Model:
        return load(args.config or record["name"], args.model_path or record.get("path"), args.device)

    measures = build_measures(model, args.identity, args.lpips_heads)
    rows, failed = [], 0
    for folder, run in runs:
        for pair in pairs_of(folder, run, args.results_dir):
            try:
                rows.append(measure(pair, measures, run["model"]["image_size"], run.get("run", {}).get("exif", False)))
            except WorkError as error:
                print(f"failed: {error}", file=sys.stderr)
                failed += 1
    if not rows:
        raise WorkError(f"{args.results_dir}: none of its results can be measured")
    reason = "no result was made without content and noise: gamma 0 (blend not replace) and t_boost 0"
    measures.append(Measure("reconstruction_psnr", "more", None, reason))

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(args.results_dir / "metrics.csv", lambda f: f.write(text.getvalue().encode()))
    table = markdown(rows, measures)
    write_whole(args.results_dir / "metrics.md", lambda f: f.write((table + "\n").encode()))
    print(table)
    if importlib.util.find_spec("matplotlib"):
        plot(rows, measures, args.results_dir / "metrics.png")
    else:
        print("metrics.png: n/a, it needs matplotlib (pip install matplotlib)")
    print(args.results_dir / "metrics.csv")
    return 1 if failed else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results_dir", type=Path, help="--save_dir of a run or of a sweep")
    parser.add_argument("--config", help="model whose features are used (default: the run's)")
    parser.add_argument("--model_path")
    parser.add_argument("--identity", type=Path, help="face recogniser as TorchScript: (N, 3, 112, 112) in [-1, 1] to (N, D)")
    parser.add_argument("--lpips_heads", type=Path, help="learned heads of LPIPS (default: those of the package lpips)")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    try:
        return work(args)
    except DiffstyleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
