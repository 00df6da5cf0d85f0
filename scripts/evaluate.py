#!/usr/bin/env python3
"""How near results are to their contents and styles: reads what a run wrote (run.json) and measures every pair.

    python scripts/evaluate.py results/quickstart
    python scripts/evaluate.py results/table --protocol paper --identity arcface.pt --inception inception-2015-12-05.pt

Writes into the folder: metrics.csv (a row a pair), metrics.md (each measure with its 95 % interval and the line that says how
it was computed; what could not be, and why), metrics.png, and metrics_images.csv (every picture compared, with its sha256). A
sweep's folder is measured combination by combination. The protocols are written down in docs/metrics.md:

    offline  pixels, EfficientNet-Lite0 (weights in a package) and the diffusion model's own features: always works
    faces    identity, expression and landmarks of photographs of faces, on small networks that lie in pretrained/metrics
    paper    FID, ID and Gram, the columns of the paper's table
    artfid   LPIPS, ArtFID's Frechet distance, ArtFID
    all      everything

Nothing is downloaded: VGG-19, AlexNet and Inception are read from torch hub's cache, LPIPS heads from the package lpips, others
from the flags. What is missing is n/a, with the reason; a file that is named and missing is an error.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import csv
import functools
import hashlib
import importlib.util
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from diffstyle.api import load
from diffstyle.console import exit_code, lossy_streams
from diffstyle.errors import UsageError, WorkError, one_line
from diffstyle.figures import measures, metrics
from diffstyle.figures.measures import Files, Measure, Sample
from diffstyle.files import kind_of, read_bytes, read_json, write_whole
from diffstyle.images import decode, dimensions, to_tensor
from diffstyle.model import Model
from diffstyle.runs.places import check_kept
from diffstyle.zoo.bounds import SIZE, brief, number

WRITTEN = ("metrics.csv", "metrics_images.csv", "metrics.md", "metrics.png")
LARGEST_RECORD = 100 << 20  # bytes of a run.json: half a million pairs
Table = Mapping[tuple[str, str], tuple[float, float, float]]  # (measure, variant) to value, low, high
RECONSTRUCTION = Measure(
    "reconstruction_psnr", "more", "offline", "dB, result against style where gamma is 0 and no noise is added",
    reason="no result was made without content and noise: gamma 0 (blend not replace) and t_boost 0",
)  # fmt: skip


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
    whole = kind_of(folder / "run.json") == "file"
    paths = [folder / "run.json"] if whole else sorted(folder.glob("*/run.json")) if kind_of(folder) == "folder" else []
    if not paths:
        raise UsageError(f"{folder}: no run.json in it or in its sub-folders; give the --save_dir of a run")
    found = []
    for path in paths:
        try:
            record = read_json(path, LARGEST_RECORD)
            check_record(record)
            pairs_of(path.parent, record, folder)
        except (WorkError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            said = one_line(error)[:200]
            raise UsageError(f"{path}: not the record of a run ({type(error).__name__}: {said})") from error
        found.append((path.parent, record))
    return found


def check_record(record: dict[str, Any]) -> None:
    """What is used of a record, apart from its pairs, has the type it was written with. Raises ValueError, LookupError or so."""
    model = record["model"]
    number("image_size", model["image_size"], int, metrics.SMALLEST, SIZE[2])
    for key, value in (("name", model["name"]), ("path", model.get("path") or "")):
        if not isinstance(value, str) or "\0" in value:
            raise ValueError(f"the model's {key} is {brief(value)}")
    if not isinstance(model["image_size"], int) or not isinstance(record.get("run", {}).get("exif", False), bool):
        raise ValueError("image_size must be an integer, exif true or false")
    settings = [record["settings"], *(record["settings"] | r.get("changes", {}) for r in record["results"])]
    if not all(isinstance(s[key], (int, float)) for s in settings if s for key in ("gamma", "t_boost")):
        raise ValueError("gamma and t_boost must be numbers")


def pairs_of(folder: Path, run: dict[str, Any], root: Path) -> list[Pair]:
    """The pairs of a run whose result is there; those that failed are left out.

    A result may be a link to a picture elsewhere, as an input may; what else lies in its place is refused when it is read.
    """
    inputs = [{p["name"]: Path(p["path"]) for p in run[side]} for side in ("contents", "styles")]
    variant = "" if folder == root else folder.name
    pairs = []
    for r in run["results"]:
        s = run["settings"] | r.get("changes", {})
        plain = s["gamma"] == 0 and s["blend"] != "replace" and s["t_boost"] == 0
        if Path(r["result"]).is_absolute() or ".." in Path(r["result"]).parts:
            raise ValueError(f"the result {brief(r['result'])} lies outside of the folder")
        if not all(isinstance(r[side], str) for side in ("content", "style")):
            raise ValueError(f"a pair of {brief(r['content'])} and {brief(r['style'])}")
        files = (folder / r["result"], inputs[0][r["content"]], inputs[1][r["style"]])
        if kind_of(files[0]):
            pairs.append(Pair(variant, r["content"], r["style"], plain, files))
    return pairs


# ---- measuring ---------------------------------------------------------------------------------------------------


@functools.lru_cache(64)
def picture(path: Path, size: int, exif: bool, whole: bool) -> tuple[Tensor, str]:
    """(1, 3, size, size) in [0, 1], read as a run reads its inputs, and the digest of the bytes that it was read from.

    The same tensor again for a style that many pairs share. Raises WorkError, also for one that is to be taken ``whole``, as a
    result is, and has another size: the record lies.
    """
    data = read_bytes(path)
    if whole and (found := dimensions(data, path)) != (size, size):
        raise WorkError(f"{path}: has {found[0]} x {found[1]} pixels, the run says {size} x {size}")
    return (to_tensor(decode(data, path, size, exif))[None] + 1) / 2, hashlib.sha256(data).hexdigest()


def measure(pair: Pair, rows: Sequence[Measure], size: int, exif: bool) -> tuple[Sample, list[str]]:
    """Everything that can be measured of one pair, and its files' digests. Raises WorkError if a picture cannot be read."""
    pictures = [picture(f, size, exif and i > 0, i == 0) for i, f in enumerate(pair.files)]
    result, content, style = (x for x, _ in pictures)
    sample = Sample(pair.variant, pair.content, pair.style)
    for row in rows:
        measures.measure(row, sample, result, content, style)
    if pair.plain:
        sample.values[RECONSTRUCTION.name] = metrics.psnr(result, style).item()
    return sample, [digest for _, digest in pictures]


def estimates(samples: Sequence[Sample], rows: Sequence[Measure]) -> Table:
    """Every measure of every combination of a sweep, where it has a value."""
    others = {row.name: row for row in rows}
    found = {}
    for variant in dict.fromkeys(s.variant for s in samples):
        own = [s for s in samples if s.variant == variant]
        for row in rows:
            if (estimate := measures.estimate(row, own, others)) is not None:
                found[row.name, variant] = estimate
    return found


# ---- the report --------------------------------------------------------------------------------------------------


def variants_of(found: Table) -> list[str]:
    return list(dict.fromkeys(variant for _, variant in found))


def markdown(found: Table, rows: Sequence[Measure], title: str) -> str:
    """The report: a line a measure, with the line of its protocol at the end; then what is absent and why."""
    variants = variants_of(found)
    lines = [title, "", "| measure | better |" + "".join(f" {v or 'all'} |" for v in variants) + " how |",
             "|---|---|" + "---|" * len(variants) + "---|"]  # fmt: skip
    for row in rows:
        cells = []
        for variant in variants:
            cell = found.get((row.name, variant))
            cells.append(f" {cell[0]:.4g} [{cell[1]:.4g}, {cell[2]:.4g}] |" if cell else " n/a |")
        lines.append(f"| {row.name} | {row.better} |{''.join(cells)} {row.how} |")
    absent = [row for row in rows if not any((row.name, v) in found for v in variants)]
    few = "two results and two styles are needed at the least"
    return "\n".join([*lines, "", *(f"- {row.name}: n/a, {row.reason or few}" for row in absent)])


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lambda f: f.write(text.getvalue().encode("utf-8", "backslashreplace")))


def image_list(pairs: Mapping[Pair, Sequence[str]]) -> list[dict[str, object]]:
    """Every picture that was compared, once, with the digest of what was compared."""
    listed: dict[Path, dict[str, object]] = {}
    for pair, digests in pairs.items():
        for side, path, digest in zip(("result", "content", "style"), pair.files, digests, strict=True):
            listed.setdefault(path, {"side": side, "variant": pair.variant, "file": path, "sha256": digest})
    return list(listed.values())


def plot(found: Table, rows: Sequence[Measure], path: Path) -> None:
    """A point with its interval for each variant, a panel a measure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    variants = variants_of(found)
    shown = [row for row in rows if any((row.name, v) in found for v in variants)]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.4 * columns, (0.9 + 0.35 * len(variants)) * lines), squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis, row in zip(axes.flat, shown, strict=False):
        for i, variant in enumerate(variants):
            if cell := found.get((row.name, variant)):
                axis.errorbar(cell[0], i, xerr=[[cell[0] - cell[1]], [cell[2] - cell[0]]], fmt="o", capsize=3)
        axis.set(yticks=range(len(variants)), ylim=(len(variants) - 0.5, -0.5))
        axis.set_yticklabels([one_line(variant) for variant in variants], parse_math=False)  # a folder may be called $x$
        axis.set_title(f"{row.name} ({row.better})", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(True, axis="x", alpha=0.3)
    figure.tight_layout()
    write_whole(path, partial(figure.savefig, format="png", dpi=110))
    plt.close(figure)


def check_files(args: argparse.Namespace) -> Files:
    """The networks named on the command line. Raises UsageError for one that is not there."""
    files = {flag: getattr(args, flag) for flag in ("identity", "lpips_heads", "inception", "art_inception")}
    for flag, path in files.items():
        if path is not None and not path.is_file():
            raise UsageError(f"--{flag} {path}: no such file")
    return Files(**files)


def work(args: argparse.Namespace) -> int:
    files = check_files(args)
    runs = find_runs(args.results_dir)
    record = runs[0][1]["model"]

    @functools.cache
    def model() -> Model:
        path = args.model_path or record.get("path")  # a record may come from anywhere: nothing that it names is fetched
        return load(args.config or record["name"], path, args.device, "fp32", download=False)

    read = [file for folder, run in runs for pair in pairs_of(folder, run, args.results_dir) for file in pair.files]
    networks = [path for path in vars(files).values() if path]
    check_kept([args.results_dir / name for name in WRITTEN], [*dict.fromkeys(read), *networks], "move it elsewhere")
    rows = measures.build(args.protocol, model, files)
    samples, pairs, failed = [], {}, 0
    picture.cache_clear()  # of another call in this process
    for folder, run in runs:
        for pair in pairs_of(folder, run, args.results_dir):
            try:
                sample, digests = measure(pair, rows, run["model"]["image_size"], run.get("run", {}).get("exif", False))
                samples.append(sample)
                pairs[pair] = digests
            except WorkError as error:
                print(f"failed: {error}", file=sys.stderr)
                failed += 1
    if not samples:
        raise WorkError(f"{args.results_dir}: none of its results can be measured")
    if args.protocol in ("offline", "all"):
        rows = [*rows, RECONSTRUCTION]

    found = estimates(samples, rows)
    size = record["image_size"]
    title = (f"Protocol {args.protocol}: {len(samples)} results as saved, contents and styles centre-cropped and resized to "
             f"{size}x{size} as the run read them. Value [95 % interval].")  # fmt: skip
    table = markdown(found, rows, title)
    columns = [row.name for row in rows if not row.embed and not row.product]
    write_csv(args.results_dir / "metrics.csv", [
        {"variant": s.variant, "content": s.content, "style": s.style} | {name: s.values.get(name, "n/a") for name in columns}
        for s in samples
    ])  # fmt: skip
    write_csv(args.results_dir / "metrics_images.csv", image_list(pairs))
    write_whole(args.results_dir / "metrics.md", lambda f: f.write((table + "\n").encode("utf-8", "backslashreplace")))
    print(table)
    if not found:
        print("metrics.png: n/a, there is nothing to draw")
    elif importlib.util.find_spec("matplotlib"):
        plot(found, rows, args.results_dir / "metrics.png")
    else:
        print("metrics.png: n/a, it needs matplotlib (pip install matplotlib)")
    print(args.results_dir / "metrics.csv")
    return 1 if failed else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results_dir", type=Path, help="--save_dir of a run or of a sweep")
    parser.add_argument("--protocol", choices=(*measures.PROTOCOLS, "all"), default="offline")
    parser.add_argument("--config", help="model whose features are used (default: the run's)")
    parser.add_argument("--model_path")
    parser.add_argument("--identity", type=Path, help="face recogniser as TorchScript: (N, 3, 112, 112) in [-1, 1] to (N, D)")
    parser.add_argument("--lpips_heads", type=Path, help="learned heads of LPIPS (default: those of the package lpips)")
    parser.add_argument("--inception", type=Path, help="inception-2015-12-05.pt (default: torch hub's cache)")
    parser.add_argument("--art_inception", type=Path, help="ArtFID's Inception as TorchScript: (N, 3, H, W) in [0, 1] to (N, D)")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    with lossy_streams():
        return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
