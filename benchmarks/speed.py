#!/usr/bin/env python3
"""How fast the networks run, against what this machine can do at all: its measured matmul and convolution peak.

    python benchmarks/speed.py --out results/speed

Three parts: peaks (fp32 matmul; the 3x3 convolutions of the full-size networks), networks (ms per evaluation and share of
the convolution peak for the embedded model and the full-size ones with random weights at 256x256, each in a process of its
own, so that its peak memory is known), stages (where the time of one pair goes). Writes speed.csv and stages.csv.

The peak is given twice: the fastest single convolution ever seen in the row's process ("burst", some 30 ms long), and the
same convolution kept up for as long as an evaluation takes, in turns with the evaluations ("sustained"). Where other tenants
share the machine, only the second is met with the same luck as the evaluation; of both, the best of --repeat counts.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from meter import flops_of

from diffstyle.diffusion import linear_schedule
from diffstyle.model import DTYPES, Model
from diffstyle.models import build_unet
from diffstyle.models.layers import memory_format, to_precision
from diffstyle.noise import pair_noise
from diffstyle.pipeline import invert, transfer
from diffstyle.settings import Settings
from diffstyle.zoo.compiled import compile_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.device import pick_device, pick_precision

ROOT = Path(__file__).resolve().parents[1]

# (channels in, out, resolution) of the convolutions that do most of the full-size networks' work
CONVOLUTIONS = [(128, 128, 256), (128, 128, 128), (256, 256, 64), (256, 256, 32), (512, 512, 16)]
MEMORY = {"celeba": 2.5, "afhq": 2.0}  # GB at batch 1 that the project allows
FULL_SIZE = ("celeba", "afhq")  # the DDPM and the light ADM


def seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def best(work: Callable[[], object], repeat: int, device: torch.device) -> float:
    """Seconds of the fastest of ``repeat`` runs after one to warm up."""
    return min([seconds(work, device) for _ in range(repeat + 1)][1:])


def convolution(
    shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype, batch: int = 1
) -> tuple[float, Callable[[], object]]:
    """GFLOP of a 3x3 convolution of ``batch`` pictures, and the convolution."""
    c_in, c_out, size = shape
    conv = torch.nn.Conv2d(c_in, c_out, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    x = torch.randn(batch, c_in, size, size, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    return batch * 2 * 9 * c_in * c_out * size**2 / 1e9, lambda: conv(x)


@torch.inference_mode()
def peaks(device: torch.device, dtype: torch.dtype, repeat: int) -> dict[str, float]:
    """GFLOP/s of a large matmul and of every 3x3 convolution, in bursts."""
    a, b = (torch.randn(2048, 2048, device=device, dtype=dtype) for _ in range(2))
    found = {"matmul": 2 * 2048**3 / best(lambda: a @ b, repeat, device) / 1e9}
    for shape in CONVOLUTIONS:
        gflop, work = convolution(shape, device, dtype)
        found["convolution {}->{} at {}".format(*shape)] = gflop / best(work, repeat, device)
    return found


def random_model(name: str, args: argparse.Namespace) -> Model:
    """The network of a config with random weights: speed does not depend on them."""
    config, device = load_config(name), pick_device(args.device)
    precision = pick_precision(args.precision, device)
    torch.manual_seed(0)
    unet = build_unet(config.family, config.image_size, config.architecture).eval().requires_grad_(False)
    to_precision(unet, DTYPES[precision]).to(device).to(memory_format=memory_format(device))
    return Model(unet, config, linear_schedule(), device, precision, "random weights", Path("-"))


@torch.inference_mode()
def network(name: str, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    """One network at one batch size: ms per picture and evaluation, GFLOP/s, the peak memory of this process."""
    model = random_model(name, args)
    size, device = model.config.image_size, model.device
    gflop = sum(flops_of(model.unet, size)) / 1e9
    if args.compile:
        compile_model(model)
    x = torch.randn(batch, 3, size, size, device=device).to(memory_format=memory_format(device))
    t = torch.full((batch,), 500.0, device=device)
    f = model.unet.encode(x, t)
    for _ in range(2):
        model.unet.decode(f)
    gpu = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 if gpu is None else gpu

    works = [convolution(shape, device, model.dtype) for shape in CONVOLUTIONS]
    one, work = max(works, key=lambda pair: pair[0] / best(pair[1], 3, device))
    times, burst, sustained = [], 0.0, 0.0
    for _ in range(args.repeat):
        encode = seconds(lambda: model.unet.encode(x, t), device) / batch
        decode = seconds(lambda: model.unet.decode(f), device) / batch
        times.append((encode + decode, encode, decode))
        convolutions: list[float] = []
        while sum(convolutions) < batch * (encode + decode):
            convolutions.append(seconds(work, device))
        burst = max(burst, one / min(convolutions))
        sustained = max(sustained, one * len(convolutions) / sum(convolutions))
    total, encode, decode = min(times)
    return {
        "network": name, "batch": batch, "ms": 1e3 * total, "encode_ms": 1e3 * encode, "decode_ms": 1e3 * decode,
        "gflop": gflop, "gflops": gflop / total, "sustained": sustained, "burst": burst, "memory_gb": memory,
    }  # fmt: skip


def in_own_process(name: str, batch: int, args: argparse.Namespace) -> dict[str, Any] | None:
    command = [sys.executable, __file__, "--row", name, str(batch), "--repeat", str(args.repeat), "--device", args.device,
               "--precision", args.precision, "--threads", str(args.threads)]  # fmt: skip
    done = subprocess.run(command + ["--compile"] * args.compile, capture_output=True, text=True)
    if done.returncode:
        print(f"{name} at batch {batch}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


def stages(args: argparse.Namespace, solver: str) -> dict[str, float]:
    """Seconds of every stage of one pair of the embedded architecture at n_inv 50, n_gen 50."""
    start = time.perf_counter()
    model = random_model("avatars", args)
    if args.compile:
        compile_model(model)
    found = {"build": time.perf_counter() - start}
    s, size = Settings(gamma=0.4, n_inv=50, n_gen=50, solver=solver), model.config.image_size
    x = torch.rand(2, 3, size, size) * 2 - 1

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        found[name] = time.perf_counter() - start
        return result

    content = timed("content inversion", lambda: invert(model, x[:1], s, ["a"], latent=False))
    style = timed("style inversion", lambda: invert(model, x[1:], s, ["b"], keep=()))
    noise = pair_noise(s.seed, [("a", "b")], (3, size, size))
    timed("transfer", lambda: transfer(model, content, style, s, noise))
    one, grid = network("avatars", 1, args)["ms"] / 1e3, model.config.grid
    found["of it networks, about"] = one * (2 * s.inversion_evaluations(grid=grid) + s.transfer_evaluations(grid) + 30 * 0.75)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=["avatars", *FULL_SIZE])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--row", nargs=2, metavar=("NETWORK", "BATCH"), help="one measurement only, as JSON")
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.row:
        print(json.dumps(network(args.row[0], int(args.row[1]), args)))
        return 0

    args.out.mkdir(parents=True, exist_ok=True)
    device = pick_device(args.device)
    precision = pick_precision(args.precision, device)
    print(f"{device}, {precision}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    top = peaks(device, DTYPES[precision], max(args.repeat, 5))
    for name, rate in top.items():
        print(f"peak {name}: {rate:.0f} GFLOP/s")
    print("\n| network | batch | ms per evaluation | encode | decode | GFLOP/s | of sustained peak | of burst peak | memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for name in args.networks:
        for batch in args.batches:
            row = in_own_process(name, batch, args)
            if row is None:
                continue  # out of memory, most likely
            rows.append(row)
            limit = MEMORY.get(name) if batch == 1 else None
            memory = f"{row['memory_gb']:.2f} GB" + (f" (limit {limit})" if limit else "")
            print(f"| {name} | {batch} | {row['ms']:.1f} | {row['encode_ms']:.1f} | {row['decode_ms']:.1f} "
                  f"| {row['gflops']:.0f} | {row['gflops'] / row['sustained']:.0%} of {row['sustained']:.0f} "
                  f"| {row['gflops'] / row['burst']:.0%} of {row['burst']:.0f} | {memory} |", flush=True)  # fmt: skip
    print("\n| stage of one pair, 50/50 steps | ddim, s | abm3, s |\n|---|---|---|")
    ddim, abm3 = stages(args, "ddim"), stages(args, "abm3")
    for stage in ddim:
        print(f"| {stage} | {ddim[stage]:.2f} | {abm3[stage]:.2f} |")

    for path, table in ((args.out / "speed.csv", rows), (args.out / "stages.csv", [ddim, abm3])):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]) if table else [])
            writer.writeheader()
            writer.writerows(table)
    print(args.out / "speed.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
