#!/usr/bin/env python3
"""Correlation of ||h|| with the norm of the skip connections over t (the paper's motivation for matching norms).

Three curves: h and skips of the same picture; of different pictures; h_i + h_j with the skips of j. The paper sees a strong
correlation for the same picture, none for different ones and an in-between for the sum: so h may not be replaced or added
without care for its norm. Pictures are noised to t directly, each several times with noise of its own.
"""

from __future__ import annotations

import io
import math
import sys

import numpy as np
import torch
from PIL import Image

from common import Row, parser, run, save
from diffstyle.api import load
from diffstyle.files import open_folder
from diffstyle.images import load_image
from diffstyle.runs.inputs import list_images
from diffstyle.sampling import timestep

CURVES = ("same picture", "different pictures", "h_i + h_j, skips of j")


def correlations(h: torch.Tensor, skips: torch.Tensor, picture: torch.Tensor) -> list[float]:
    """Pearson's r of the three curves; h (N, D) flattened maps, skips (N,) norms, picture (N,) which picture it is."""
    i, j = (picture[:, None] != picture[None, :]).nonzero(as_tuple=True)
    norms = h.norm(dim=1)
    sums = torch.stack([(h[a] + h[b]).norm() for a, b in zip(i.tolist(), j.tolist(), strict=True)])
    cases = ((norms, skips), (norms[i], skips[j]), (sums, skips[j]))
    return [float(np.corrcoef(x.double().numpy(), y.double().numpy())[0, 1]) for x, y in cases]


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__, contents=6, styles=6)
    p.add_argument("--draws", type=int, default=4, help="noises a picture")
    p.add_argument("--timesteps", type=int, default=20, help="points of a curve")
    args = p.parse_args(argv)
    model = load(args.config, args.model_path, args.device)
    open_folder(args.out, "--out")
    paths = list_images(args.content_dir, "--content_dir")[: args.n_contents]
    paths += list_images(args.style_dir, "--style_dir")[: args.n_styles]
    x0 = torch.stack([load_image(path, model.config.image_size) for path in paths]).repeat(args.draws, 1, 1, 1)
    picture = torch.arange(len(paths)).repeat(args.draws)
    generator = torch.Generator().manual_seed(0)
    rows: list[Row] = []
    for t in np.linspace(0, model.config.timesteps - 1, args.timesteps).round().astype(int).tolist():
        abar = model.schedule(t)
        x = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * torch.randn(x0.shape, generator=generator)
        h, skips = [], []
        with torch.inference_mode():
            for part in x.split(args.batch_size):
                f = model.unet.encode(part.to(model.device), timestep(t, part.to(model.device)))
                h.append(f.h.flatten(1).float().cpu())
                skips.append(torch.stack([s.flatten(1).float().square().sum(1) for s in f.skips]).sum(0).sqrt().cpu())
        values = correlations(torch.cat(h), torch.cat(skips), picture)
        rows.append({"t": t, "samples": len(x0)} | dict(zip(CURVES, values, strict=True)))
    save(args.out, "correlation", draw(rows), rows)
    for curve in CURVES:
        print(f"mean over t, {curve}: {np.mean([float(row[curve]) for row in rows]):.2f}")


def draw(rows: list[Row]) -> Image.Image:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for curve in CURVES:
        axes.plot([row["t"] for row in rows], [row[curve] for row in rows], "o-", markersize=3, label=curve)
    axes.set(xlabel="t", ylabel="correlation of ‖h‖ with ‖skips‖", ylim=(-1, 1.05))
    axes.set_title(f"{rows[0]['samples']} samples a timestep")
    axes.grid(True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


if __name__ == "__main__":
    sys.exit(run(main))
