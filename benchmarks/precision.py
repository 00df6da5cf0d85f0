#!/usr/bin/env python3
"""What a precision costs: PSNR of its pictures against fp32's, over the official 1000/1000 steps, 50/50 and abm3.

    python benchmarks/precision.py                    # embedded model, 2 pairs; about 5 minutes on one core
    python benchmarks/precision.py --walks 50/50 abm3 --pairs 8
    python benchmarks/precision.py --device cuda      # TF32 as the card has it

Held-out pictures (drawn from a seed that training never sees), each in the style of another; seconds are those of all pairs.
On the CPU TF32 is emulated: the inputs and weights of convolutions (and, for tf32, of dense layers) are rounded to 10 bits of
mantissa, the sums stay fp32. Attention's products are not rounded there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from solvers import compare, held_out
from torch import Tensor, nn

import diffstyle
from diffstyle.console import exit_code
from diffstyle.model import DTYPES, Model

WALKS: dict[str, dict[str, Any]] = {
    "1000/1000": {"n_inv": 1000, "n_gen": 1000},
    "50/50": {"n_inv": 50, "n_gen": 50},
    "abm3": {"n_inv": 1000, "n_gen": 1000, "solver": "abm3"},
}
DROPPED = 13  # bits of fp32's mantissa that TF32 has not


def round_to_tf32(x: Tensor) -> Tensor:
    """fp32 numbers rounded to 10 bits of mantissa, to the nearest, of two equally near ones to the even."""
    bits = x.contiguous().view(torch.int32)
    bits = bits + ((1 << (DROPPED - 1)) - 1) + ((bits >> DROPPED) & 1)
    return (bits & (-1 << DROPPED)).view(torch.float32).view(x.shape)


def emulate_tf32(unet: nn.Module, precision: str) -> None:
    """Let the layers that ``precision`` rounds see rounded inputs and weights, in place."""
    kinds: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d) + ((nn.Linear,) if precision == "tf32" else ())
    for module in unet.modules():
        if isinstance(module, kinds):
            weight = module.weight
            assert isinstance(weight, Tensor)
            weight.data = round_to_tf32(weight.data)
            module.register_forward_pre_hook(lambda _, inputs: tuple(round_to_tf32(x) for x in inputs))


def load(args: argparse.Namespace, precision: str) -> Model:
    """The model in ``precision``, emulated where the device has none of it."""
    model = diffstyle.load(args.config, args.model_path, args.device, precision)
    if precision.startswith("tf32") and model.precision == "fp32":
        emulate_tf32(model.unet, precision)
    return model


def transferred(model: Model, x: Tensor, walk: str, args: argparse.Namespace) -> Tensor:
    """Every picture of x (N, 3, H, W) in the style of the next one: (N, 3, H, W)."""
    s: dict[str, Any] = {"gamma": args.gamma, "t_edit": args.t_edit, "t_boost": args.t_boost, **WALKS[walk]}
    content = diffstyle.invert(model, x, args.batch_size, **s)
    style = content[[(i + 1) % len(x) for i in range(len(x))]]
    return diffstyle.transfer(model, content, style, args.batch_size, one_to_one=True, **s)


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def work(args: argparse.Namespace) -> None:
    """Print the table, row by row."""
    exact = load(args, "fp32")
    x = torch.cat(held_out(args.pairs // 2, exact.config.image_size))
    print("| walk | precision | seconds | median PSNR | least | max error |\n|---|---|---|---|---|---|")
    references = {}
    for precision in ("fp32", *args.precisions):
        model = exact if precision == "fp32" else load(args, precision)
        for walk in args.walks:
            found, seconds = timed(lambda m=model, w=walk: transferred(m, x, w, args))  # type: ignore[misc]
            if precision == "fp32":
                references[walk] = found
                print(f"| {walk} | fp32 | {seconds:.1f} | | | |", flush=True)
                continue
            error = compare(found, references[walk])
            print(f"| {walk} | {precision} | {seconds:.1f} | {error['psnr_median']:.1f} | {error['psnr_min']:.1f} "
                  f"| {error['max_error']:.3f} |", flush=True)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="avatars.yml")
    parser.add_argument("--model_path", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--walks", nargs="+", default=list(WALKS), choices=list(WALKS))
    parser.add_argument(
        "--precisions", nargs="+", default=["tf32-conv", "bf16", "fp16"], choices=[p for p in DTYPES if p != "fp32"]
    )
    parser.add_argument("--pairs", type=int, default=2, help="an even number")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--gamma", type=float, default=0.4)
    parser.add_argument("--t_edit", type=int, default=400)
    parser.add_argument("--t_boost", type=int, default=0)
    args = parser.parse_args(argv)
    return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
