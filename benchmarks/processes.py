#!/usr/bin/env python3
"""Throughput of 2 processes with 1 thread each against 1 process with 2 threads, on the same 64 pairs.

    python benchmarks/processes.py                       # the embedded model
    python benchmarks/processes.py --config celeba.yml --batch_size 1
    python benchmarks/processes.py --contents 2 --styles 2 --steps 4     # a quick look

Inversions and transfers; start-up (imports, weights) is told apart. On an idle machine of two cores or more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def paint(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        values = np.random.default_rng(i + 1000 * len(folder.name)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(values).resize((256, 256)).save(folder / f"{i:03d}.png")
    return folder


def measured(start: list[str], argv: list[str], out: Path, threads: int) -> tuple[float, float]:
    """Seconds of the whole command, and of the work in it."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    words = [*start, "main.py", *argv, "--save_dir", str(out), "--cache_dir", str(out / "cache"), "--verbose", "warning"]
    begin = time.time()
    subprocess.run(words, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.time() - begin, json.loads((out / "run.json").read_text())["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contents", type=int, default=8)
    parser.add_argument("--styles", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="of inversion and generation")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--config", default="avatars.yml")
    parser.add_argument("--model_path")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        root, steps = Path(name), str(args.steps)
        argv = ["--config", args.config, "--batch_size", str(args.batch_size), "--gamma", "0.3", "--device", "cpu"]
        argv += ["--content_dir", str(paint(root / "c", args.contents)), "--style_dir", str(paint(root / "st", args.styles))]
        argv += ["--n_inv", steps, "--n_gen", steps, "--content_replace_step", steps]
        argv += ["--model_path", args.model_path] if args.model_path else []
        one = measured([sys.executable], argv, root / "one", threads=2)
        two = measured(TORCHRUN, argv, root / "two", threads=1)
    pairs = args.contents * args.styles
    for title, (whole, work) in (("1 process, 2 threads", one), ("2 processes, 1 thread", two)):
        print(f"{title:22s} {pairs} pairs in {work:6.1f} s of work ({pairs / work:5.2f} a second), {whole:6.1f} s in all")
    print(f"throughput ratio, 2 processes to 1: {one[1] / two[1]:.2f} (with start-up {one[0] / two[0]:.2f})")


if __name__ == "__main__":
    main()
