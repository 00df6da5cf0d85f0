#!/usr/bin/env python3
"""What the paper asked 50 people, measured: do results take their colours from the style and their shape from the content?

    python benchmarks/attributes.py --pairs 100 --out results/attributes

We drew the avatars, so the truth is known. For held-out pairs (content A, style B; seed 1, which training never sees)
each result R is compared with A, with B and with T, the avatar drawn with A's shape in B's colours:

- colours: mean RGB distance of R to B's and to A's colour over A's background, hair, skin and clothes (those that cover at
  least 2 % of both); a pair follows the style when R is nearer to B's.
- shape: every pixel of R is named background, hair, skin or clothes by the nearest of B's four colours; of the pixels that A and
  B name differently, the share that R names as A does, among those it names as either. A pair follows the content above 1/2.
- edges: correlation of R's gradient magnitude with T's, minus that with B's. Above 0 follows the content.
- glasses, beard: only pairs in which exactly one of A and B wears it; R nearer to T than to B where it is worn.

T is the ideal transfer, so each result also has

- psnr: PSNR of R to T, beside three baselines: B unchanged, A unchanged, and the means of B's background, hair, skin and
  clothes painted flat over A's regions;
- hair: share of A's hair pixels (and beard) that are nearer to B's hair colour than to its other three;
- gradient: mean gradient magnitude of R over T's; below 1 is blur, above it noise.

Prints two tables, a row per gamma and per omega: shares of pairs with 95 % bootstrap intervals, then psnr (median, 10th
percentile), hair and gradient (medians). Writes attributes.csv (one row a pair) and attributes.png.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_avatars import Avatar, region_masks, render, sample_attributes

import diffstyle
from diffstyle.errors import DiffstyleError

ROOT = Path(__file__).resolve().parents[1]
REGIONS = ("background", "hair", "skin", "clothes")
SMALL = 0.02  # share of the picture under which a region is not judged
MEASURES = ("colours", "shape", "edges", "glasses", "beard")  # shares of pairs that follow the rule
AMOUNTS = ("psnr", "hair", "gradient")


def labels(masks: dict[str, np.ndarray]) -> np.ndarray:
    """Index of the region (REGIONS; a beard has the hair's colour) that covers most of each pixel, -1 for none: (H, W)."""
    weights = np.stack([masks[r] + (masks["beard"] if r == "hair" else 0) for r in REGIONS])
    return np.where(weights.max(0) > 0.5, weights.argmax(0), -1)


def colours_of(avatar: Avatar) -> np.ndarray:
    """The four colours in the order of REGIONS, RGB 0..255: (4, 3)."""
    return np.array([getattr(avatar.colours, region) for region in REGIONS], dtype=float)


def gradient(image: np.ndarray) -> np.ndarray:
    """Gradient magnitude of an RGB image (H, W, 3), summed over channels: (H, W)."""
    return sum(np.hypot(*np.gradient(image[..., c])) for c in range(3))


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """PSNR in dB of two pictures in 0..255; the first is clipped, as a file would be."""
    error = np.square(image.clip(0, 255) - truth).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-10)))


def baselines(content: Avatar, style: Avatar, size: int) -> dict[str, float]:
    """PSNR to T of what takes no model: the style, the content, the style's mean colours in the content's regions."""
    truth = render(replace(content, colours=style.colours), size).astype(float)
    pictures = [render(avatar, size).astype(float) for avatar in (style, content)]
    where, regions = labels(region_masks(style, size)), labels(region_masks(content, size))
    overall = pictures[0].mean((0, 1))
    means = [pictures[0][where == i].mean(0) if (where == i).any() else overall for i in range(len(REGIONS))]
    flat = np.array([*means, overall])[regions]  # -1, covered by none, is the last
    return {
        "style unchanged": psnr(pictures[0], truth),
        "content unchanged": psnr(pictures[1], truth),
        "style's means in the content's regions": psnr(flat, truth),
    }


def measure(content: Avatar, style: Avatar, result: np.ndarray, size: int) -> dict[str, float]:
    """The measures of one pair, result (H, W, 3) in 0..255; NaN where one does not apply. Positive follows the rule."""
    a, b = region_masks(content, size), region_masks(style, size)
    a_labels, b_labels = labels(a), labels(b)
    truth = render(replace(content, colours=style.colours), size).astype(float)
    style_image = render(style, size).astype(float)
    found = dict.fromkeys(MEASURES + AMOUNTS, float("nan"))
    found["psnr"] = psnr(result, truth)
    found["gradient"] = float(gradient(result.clip(0, 255)).mean() / gradient(truth).mean())

    judged = [i for i, r in enumerate(REGIONS) if min(a[r].mean(), b[r].mean()) >= SMALL]
    to_style, to_content = [], []
    for i in judged:
        mean = result[a_labels == i].mean(0) if (a_labels == i).any() else None
        if mean is not None:
            to_style.append(np.linalg.norm(mean - colours_of(style)[i]))
            to_content.append(np.linalg.norm(mean - colours_of(content)[i]))
    found["colours"] = float(np.mean(to_content) - np.mean(to_style))

    named = np.linalg.norm(result[:, :, None] - colours_of(style), axis=-1).argmin(-1)
    hair = a_labels == REGIONS.index("hair")
    if hair.any():
        found["hair"] = float((named[hair] == REGIONS.index("hair")).mean())
    differ = (a_labels != b_labels) & (a_labels >= 0) & (b_labels >= 0)
    as_content, as_style = (differ & (named == a_labels)).sum(), (differ & (named == b_labels)).sum()
    if as_content + as_style:
        found["shape"] = float(as_content / (as_content + as_style) - 0.5)

    edges = gradient(result).ravel()
    found["edges"] = float(
        np.corrcoef(edges, gradient(truth).ravel())[0, 1] - np.corrcoef(edges, gradient(style_image).ravel())[0, 1]
    )

    for name in ("glasses", "beard"):
        where = np.maximum(a[name], b[name]) > 0.5
        if bool(a[name].any()) != bool(b[name].any()) and where.any():
            errors = [np.abs(result - image)[where].mean() for image in (truth, style_image)]
            found[name] = float(errors[1] - errors[0])
    return found


def interval(follows: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a share."""
    rng = np.random.default_rng(0)
    means = rng.choice(follows, (2000, len(follows))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def summary(rows: list[dict[str, float]]) -> dict[str, tuple[float, float, float, int]]:
    """Share of pairs that follow the rule, its interval, and how many pairs were judged, by measure."""
    result = {}
    for name in MEASURES:
        values = np.array([row[name] for row in rows])
        follows = (values[~np.isnan(values)] > 0).astype(float)
        if len(follows):
            result[name] = (float(follows.mean()), *interval(follows), len(follows))
    return result


def quantiles(rows: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Median and 10th percentile of the amounts, by name."""
    values = {name: [row[name] for row in rows] for name in AMOUNTS}
    return {name: (float(np.nanmedian(v)), float(np.nanpercentile(v, 10))) for name, v in values.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="avatars.yml")
    parser.add_argument("--model_path")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair: choose settings on others")
    parser.add_argument("--gammas", type=float, nargs="+", default=[round(0.1 * i, 1) for i in range(11)])
    parser.add_argument("--omegas", type=float, nargs="*", default=[0.3, 0.7], help="at --omega_gamma")
    parser.add_argument("--omega_gamma", type=float, default=0.6)
    parser.add_argument("--n_inv", type=int, default=50)
    parser.add_argument("--n_gen", type=int, default=50)
    parser.add_argument("--t_edit", type=int, default=400)
    parser.add_argument("--content_replace_step", type=int, default=50)
    parser.add_argument("--t_0", type=int, default=999)
    parser.add_argument("--batch_size", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("results/attributes"))
    args = parser.parse_args()
    try:
        model = diffstyle.load(args.config, args.model_path)
    except DiffstyleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code

    size = model.config.image_size
    avatars = [(sample_attributes(1, 2 * i), sample_attributes(1, 2 * i + 1)) for i in range(args.first, args.first + args.pairs)]
    contents, styles = (
        torch.stack([torch.tensor(render(pair[k], size)).permute(2, 0, 1) / 127.5 - 1 for pair in avatars]) for k in (0, 1)
    )
    settings = [(gamma, 0.0) for gamma in args.gammas] + [(args.omega_gamma, omega) for omega in args.omegas]
    latents = invert_all(model, contents, styles, args)
    rows: list[dict[str, float]] = []
    shares = {}
    amounts = {}
    print("| gamma | omega |" + "".join(f" {m} |" for m in MEASURES))
    print("|---|---|" + "---|" * len(MEASURES))
    for gamma, omega in settings:
        results = transfer_all(model, latents, args, gamma, omega)
        found = [measure(a, b, r, size) for (a, b), r in zip(avatars, results, strict=True)]
        rows += [{"pair": i, "gamma": gamma, "omega": omega, **row} for i, row in enumerate(found)]
        shares[gamma, omega], amounts[gamma, omega] = summary(found), quantiles(found)
        cells = (shares[gamma, omega].get(m) for m in MEASURES)
        texts = [f" {c[0]:.0%} [{c[1]:.0%}, {c[2]:.0%}] |" if c else " n/a |" for c in cells]
        print(f"| {gamma} | {omega} |" + "".join(texts), flush=True)

    print("\n| gamma | omega | PSNR to T, median | 10th percentile | hair in one colour | gradient |\n|---|---|---|---|---|---|")
    floors = [baselines(a, b, size) for a, b in avatars]
    for name in floors[0]:
        values = [floor[name] for floor in floors]
        print(f"| {name} | | {np.median(values):.2f} | {np.percentile(values, 10):.2f} | | |")
    for (gamma, omega), a in amounts.items():
        print(f"| {gamma} | {omega} | {a['psnr'][0]:.2f} | {a['psnr'][1]:.2f} | {a['hair'][0]:.0%} | {a['gradient'][0]:.2f} |")

    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "attributes.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["pair", "gamma", "omega", *MEASURES, *AMOUNTS])
        writer.writeheader()
        writer.writerows(rows)
    plot(shares, args.out / "attributes.png")
    print(args.out / "attributes.csv")
    return 0


def settings_of(args: argparse.Namespace, **more: Any) -> diffstyle.Settings:
    names = ("n_inv", "n_gen", "t_edit", "content_replace_step", "t_0")
    return diffstyle.Settings(**{name: getattr(args, name) for name in names}, **more)


def invert_all(
    model: diffstyle.Model, contents: torch.Tensor, styles: torch.Tensor, args: argparse.Namespace
) -> tuple[diffstyle.Inverted, diffstyle.Inverted]:
    """Contents and styles inverted once; every gamma and omega shares them."""
    s = asdict(settings_of(args))
    one, other = (diffstyle.invert(model, x, args.batch_size, **s) for x in (contents, styles))
    return one, other


def transfer_all(
    model: diffstyle.Model,
    latents: tuple[diffstyle.Inverted, diffstyle.Inverted],
    args: argparse.Namespace,
    gamma: float,
    omega: float,
) -> list[np.ndarray]:
    """The pairs' results at one setting, each (H, W, 3) in 0..255."""
    s = asdict(settings_of(args, gamma=gamma, omega=omega))
    x = diffstyle.transfer(model, *latents, args.batch_size, one_to_one=True, **s)
    return list(((x.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).double().numpy())


def plot(shares: dict[tuple[float, float], dict[str, tuple[float, float, float, int]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name in MEASURES:
        points = [(g, *s[name][:3]) for (g, omega), s in shares.items() if omega == 0 and name in s]
        gamma, share, low, high = np.array(points).T
        line = axes.plot(gamma, share, marker="o", label=f"{name} ({'style' if name == 'colours' else 'content'})")[0]
        axes.fill_between(gamma, low, high, color=line.get_color(), alpha=0.15)
    axes.set(xlabel=r"$\gamma$", ylabel="share of pairs", ylim=(-0.02, 1.02), title="Who is followed, held-out avatars")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
