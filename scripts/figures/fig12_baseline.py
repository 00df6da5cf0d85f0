#!/usr/bin/env python3
"""Figure 12: beside simpler ways to the same end (the paper stands beside DiffuseIT, which needs other networks).

Colour transfer: the content's pixels, moved in Lab so that their mean and covariance are the style's (the optimal linear map
of Pitie and Kokaram 2007). AdaIN: the same walk as ours, but h takes the content's map with the mean and deviation of each
channel of the style's (Huang and Belongie 2017) instead of Slerp.

    python scripts/figures/fig12_baseline.py --config celeba.yml --content_dir my/faces --style_dir my/paintings

Takes half a minute with the embedded model, five minutes on a GPU with a 256x256 one.
To be seen: colour transfer keeps every edge of the content and moves all its colours alike, whatever they belong to; ours gives
the hair the style's hair colour and the background its background's, but blurs.
AdaIN on h lies near replacing it.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
import warnings
from dataclasses import replace

import numpy as np
import torch

from common import Bench, as_rows, compare, measure_each, parser, run, save, start, summary, transfer_each
from diffstyle import sampling
from diffstyle.errors import WorkError
from diffstyle.solvers import SOLVERS


def root(m: np.ndarray) -> np.ndarray:
    """Square root of a symmetric matrix that has no negative eigenvalues."""
    values, vectors = np.linalg.eigh(m)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def colour_map(content: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Colours (N, 3) moved linearly so that their mean and covariance are those of ``style`` (M, 3)."""
    grain = 1e-3 * np.eye(3)  # a picture of one colour has no covariance to divide by
    c, s = (np.cov(side, rowvar=False) + grain for side in (content, style))
    half = root(c)
    inverse = np.linalg.inv(half)
    return (content - content.mean(0)) @ (inverse @ root(half @ s @ half) @ inverse) + style.mean(0)


def colour_transfer(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """One picture (3, H, W) in [-1, 1] in the colours of another."""
    try:
        from skimage.color import lab2rgb, rgb2lab
    except ImportError:
        raise WorkError("this figure needs scikit-image: pip install -r requirements-dev.txt") from None
    c, s = (rgb2lab(((x + 1) / 2).permute(1, 2, 0).numpy()) for x in (content, style))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # colours outside of sRGB are clipped, as they must be
        rgb = lab2rgb(colour_map(c.reshape(-1, 3), s.reshape(-1, 3)).reshape(c.shape))
    return torch.from_numpy(rgb).permute(2, 0, 1).float() * 2 - 1


def adain(h: torch.Tensor, h_content: torch.Tensor) -> torch.Tensor:
    """The content's map (N, C, H', W') with the mean and deviation that each channel has in ``h``."""
    (mean, std), (mean_c, std_c) = ((x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True)) for x in (h, h_content))
    return (h_content - mean_c) / (std_c + 1e-5) * std + mean


def adain_on_h(bench: Bench) -> torch.Tensor:
    """Every content in every style by AdaIN on h: (C, S, 3, H, W)."""
    model, s = bench.model, bench.settings
    x_T = bench.style.x_T.to(model.device)
    found = []
    for c in range(len(bench.content)):
        h = {t: maps[c : c + 1].to(model.device).expand(len(x_T), -1, -1, -1) for t, maps in bench.content.h.items()}
        *_, (_, x, _) = sampling.transfer(
            model.unet, x_T, h, s.transfer_walk(model.config.grid), model.schedule, adain, None, SOLVERS[s.solver]
        )
        found.append(x.cpu().clamp(-1, 1))
    return torch.stack(found)


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__).parse_args(argv)
    bench = start(args)
    moved = torch.stack([torch.stack([colour_transfer(c, s) for s in bench.styles]) for c in bench.contents])
    results = {"colour transfer": moved, "AdaIN on h": adain_on_h(bench)}
    results |= transfer_each(bench, {"ours": bench.settings, "ours, ω = 0.3": replace(bench.settings, omega=0.3)})
    samples = measure_each(bench, results)
    sheet = compare(bench, results, f"beside simpler ways, γ = {bench.settings.gamma:g}")
    save(args.out, "fig12_baseline", sheet, as_rows(samples), summary(samples))


if __name__ == "__main__":
    sys.exit(run(main))
