#!/usr/bin/env python3
"""Invert held-out avatars (seed 1) and regenerate them (gamma 0): PSNR, the floor under everything else.

python benchmarks/reconstruction.py --n 64 --steps 50 1000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from make_avatars import render, sample_attributes

import diffstyle
from diffstyle.pipeline import draw, invert

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="avatars.yml")
    parser.add_argument("--model_path")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--first", type=int, default=0, help="index of the first avatar, to share the work between processes")
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 1000], help="of inversion and generation")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--out", type=Path, help="also write a CSV with a row a picture")
    args = parser.parse_args()
    model = diffstyle.load(args.config, args.model_path)
    pictures = [render(sample_attributes(1, i), model.config.image_size) for i in range(args.first, args.first + args.n)]
    x = torch.stack([torch.tensor(p).permute(2, 0, 1) / 127.5 - 1 for p in pictures])
    rows = []
    for steps in args.steps:
        s = diffstyle.Settings(n_inv=steps, n_gen=steps)
        psnr: list[float] = []
        for batch in x.split(args.batch_size):
            x_T = invert(model, batch, s, [""] * len(batch), keep=()).x_T
            again, _ = draw(model, x_T, s, [""] * len(batch))
            error = (again.cpu().clamp(-1, 1) - batch).square().mean((1, 2, 3))
            psnr += (10 * torch.log10(4 / error)).tolist()
        rows += [f"{steps},{args.first + i},{value:.3f}" for i, value in enumerate(psnr)]
        low, median, high = np.percentile(psnr, [10, 50, 90])
        print(f"{steps}/{steps} steps, {len(psnr)} pictures: median {median:.1f} dB (10..90 %: {low:.1f}..{high:.1f})")
    if args.out:
        args.out.write_text("\n".join(["steps,avatar,psnr", *rows]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
