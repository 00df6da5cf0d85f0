#!/usr/bin/env python3
"""Everything that is worth knowing of a card, in one command of less than ten minutes and one table.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --quick      # that it works, on any machine, in less than a minute

Evaluations of the full-size networks (random weights: speed does not depend on them) in every precision, plain and compiled,
against the fastest 3x3 convolution measured in the same precision; pairs a second of whole walks, inversions included; how
far the embedded model's pictures are from those of the CPU in fp32; and how far two small trained networks are from the official
code's own results (tests/golden/trained; on the CPU in fp32 they are within 1e-4).
"""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Iterator

import torch
from golden import parity
from meter import flops_of
from precision import WALKS, load, timed, transferred
from solvers import compare
from speed import CONVOLUTIONS, best, convolution, random_model
from torch.nn import functional as F

import diffstyle
from diffstyle.console import exit_code
from diffstyle.model import DTYPES, Model
from diffstyle.zoo.compiled import compile_model
from diffstyle.zoo.device import pick_device, pick_precision

NETWORKS = ("celeba", "afhq", "imagenet")  # the DDPM, the light ADM, the ADM
PRECISIONS = ("auto", "bf16", "fp16")


@torch.inference_mode()
def peak(device: torch.device, precision: str, repeat: int) -> float:
    """TFLOP/s of the fastest of the full-size networks' convolutions, eight pictures at once."""
    found = []
    for shape in CONVOLUTIONS:
        gflop, work = convolution(shape, device, DTYPES[precision], batch=8)
        found.append(gflop / best(work, repeat, device) / 1e3)
    return max(found)


@torch.inference_mode()
def evaluation(model: Model, batch: int, repeat: int) -> tuple[float, float]:
    """Seconds of an evaluation of ``batch`` pictures, and the GB of a card that it takes (0 on the CPU)."""
    size, device = model.config.image_size, model.device
    x = diffstyle.pipeline.to_model(model, torch.randn(batch, 3, size, size))
    t = torch.full((batch,), 500.0, device=device)
    if device.type != "cuda":
        return best(lambda: model.unet(x, t), repeat, device), 0.0
    torch.cuda.reset_peak_memory_stats(device)
    seconds = best(lambda: model.unet(x, t), repeat, device)
    return seconds, torch.cuda.max_memory_allocated(device) / 1e9


def evaluations(args: Namespace) -> Iterator[str]:
    """Rows: network, precision, plain or compiled, batch, evaluations/s, TFLOP/s, share of the peak, memory."""
    device = pick_device(args.device)
    for name in args.networks:
        for precision in args.precisions:
            top = peak(device, pick_precision(precision, device), args.repeat)
            model = random_model(name, Namespace(device=args.device, precision=precision))
            tflop = sum(flops_of(model.unet, model.config.image_size)) / 1e12
            for how in ["plain"] + ["compiled"] * (not args.no_compile):
                if how == "compiled":
                    compile_model(model)
                for batch in args.batches:
                    label = f"| {name} | {precision} ({model.precision}) | {how} | {batch} |"
                    try:
                        seconds, memory = evaluation(model, batch, args.repeat)
                    except torch.OutOfMemoryError:
                        yield f"{label} out of memory | | | |"
                        continue
                    rate = batch / seconds
                    yield f"{label} {rate:.1f} | {rate * tflop:.3g} | {rate * tflop / top:.0%} of {top:.3g} | {memory:.1f} |"
            del model
            if device.type == "cuda":
                torch.cuda.empty_cache()


def pairs(args: Namespace) -> Iterator[str]:
    """Rows: network, precision, walk, pairs/s. Every picture is inverted once, as content and style."""
    name = args.networks[0]
    for precision in args.precisions:
        model = random_model(name, Namespace(device=args.device, precision=precision))
        x = torch.rand(args.pairs, 3, model.config.image_size, model.config.image_size) * 2 - 1
        for walk in args.walks:
            _, seconds = timed(lambda m=model, x=x, w=walk: transferred(m, x, w, args))  # type: ignore[misc]
            yield f"| {name} | {precision} ({model.precision}) | {walk} | {args.pairs / seconds:.3g} |"


def errors(args: Namespace) -> Iterator[str]:
    """Rows: precision, PSNR of the embedded model's 50/50 pictures against the CPU's in fp32, and the largest error."""
    x, coarse = None, torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for precision in ("cpu", "fp32", *args.precisions):
        place = Namespace(**{**vars(args), **({"device": "cpu"} if precision == "cpu" else {})})
        model = load(place, "fp32" if precision == "cpu" else precision)
        found = transferred(model, F.interpolate(coarse, size=model.config.image_size, mode="bilinear"), "50/50", args)
        if x is None:
            x = found
            continue
        error = compare(found, x)
        yield f"| {precision} ({model.precision}) | {error['psnr_min']:.1f} | {error['max_error']:.4f} |"


def goldens(args: Namespace) -> Iterator[str]:
    """Rows: precision, network, case, results, and the worst relative error of them."""
    for precision in ("fp32", *args.precisions):
        for family, case, count, error in parity(args.device, precision, args.quick):
            yield f"| {precision} | {family} | {case} | {count} | {error:.1e} |"


def work(args: Namespace) -> None:
    """Print the card and the four tables, row by row."""
    device = pick_device(args.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"no card ({device})"
    print(f"{card}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    for header, rows in (
        ("network | precision | how | batch | evaluations/s | TFLOP/s | of the peak | GB", evaluations),
        ("network | precision | walk | pairs/s", pairs),
        ("precision | PSNR to the CPU's fp32, the least | max error", errors),
        ("precision | network | case | results | worst error, of the largest value", goldens),
    ):
        print(f"\n| {header} |\n|{'---|' * (header.count('|') + 1)}")
        for row in rows(args):
            print(row, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="the embedded network, batches 1 and 2, no compilation, one golden")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=["auto", *DTYPES])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--walks", nargs="+", default=["50/50", "abm3", "1000/1000"], choices=list(WALKS))
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--no_compile", action="store_true")
    parser.set_defaults(config="avatars.yml", model_path=None, gamma=0.4, t_edit=400, t_boost=0)
    args = parser.parse_args(argv)
    if args.quick:
        quick = {"networks": ["avatars"], "batches": [1, 2], "walks": ["50/50"], "pairs": 2, "repeat": 1, "no_compile": True}
        args = Namespace(**{**vars(args), **quick})
    args.batch_size = args.pairs
    return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
