#!/usr/bin/env python3
"""Figure 4b: correlation of ||h|| with the norm of the skip connection beside it, over t: why norms must be matched.

Three curves of Pearson's r over pictures i: r_homo, ||h_i|| with ||g_i||, the skip of the same picture that enters the decoder
together with h; r_hetero, ||h_i|| with ||g_j|| of another picture; r_alt, ||h_i + h_j|| with ||g_j||. Pictures are noised to t
directly, each several times with noise of its own.

    python scripts/figures/fig4_correlation.py --config celeba.yml --n_contents 50 --n_styles 50 --content_dir my/faces \\
        --style_dir my/faces

Takes ten seconds with the embedded model, two minutes on a GPU with a 256x256 one.
To be seen: a strong correlation for the same picture, none for different ones, the sum in between.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import math
import sys
from pathlib import Path

import numpy as np
import torch

from common import Row, check, find_pictures, parser, plots, run, save, save_plot
from diffstyle.api import load
from diffstyle.files import open_folder
from diffstyle.images import load_image
from diffstyle.sampling import timestep

CURVES = {"r_homo": "same picture", "r_hetero": "different pictures", "r_alt": "h_i + h_j, skip of j"}


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
    check(args, draws=1, timesteps=1)
    model = load(args.config, args.model_path, args.device)
    open_folder(args.out, "--out")
    paths = sum(find_pictures(args), start=list[Path]())
    x0 = torch.stack([load_image(path, model.config.image_size) for path in paths]).repeat(args.draws, 1, 1, 1)
    picture = torch.arange(len(paths)).repeat(args.draws)
    generator = torch.Generator().manual_seed(0)
    rows: list[Row] = []
    for t in np.linspace(0, model.config.timesteps - 1, args.timesteps).round().astype(int).tolist():
        abar = model.schedule(t)
        x = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * torch.randn(x0.shape, generator=generator)
        h, skips = [], []
        with torch.inference_mode():
            for part in x.to(model.device).split(args.batch_size):
                f = model.unet.encode(part, timestep(t, part))
                h.append(f.h.flatten(1).float().cpu())
                skips.append(f.skips[-1].flatten(1).float().norm(dim=1).cpu())  # the innermost: the decoder takes it first
        values = correlations(torch.cat(h), torch.cat(skips), picture)
        rows.append({"t": t, "samples": len(x0)} | dict(zip(CURVES, values, strict=True)))

    figure, (axis,) = plots(1, 1, width=6.4, height=3.8)
    for curve, label in CURVES.items():
        axis.plot([row["t"] for row in rows], [row[curve] for row in rows], "o-", markersize=3, label=f"{curve}: {label}")
    axis.set(xlabel="t", ylabel="correlation of ‖h‖ with ‖g‖", ylim=(-1, 1.05), title=f"{len(x0)} samples a timestep")
    axis.legend()
    means = {curve: np.mean([float(row[curve]) for row in rows]) for curve in CURVES}
    save(args.out, "fig4_correlation", None, rows, "mean over t: " + ", ".join(f"{c} {m:.2f}" for c, m in means.items()))
    save_plot(args.out, "fig4_correlation", figure)


if __name__ == "__main__":
    sys.exit(run(main))
