#!/usr/bin/env python3
"""What the exact group norm costs: one evaluation of this tree's networks beside the same evaluation at another commit.

    python benchmarks/norms.py --base 3e15174

Both are evaluated in turns, each in a process of its own, and compared pair by pair in CPU time, so that whatever else runs
on the machine disturbs both alike. Prints the median ratio; below 1 this tree is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from diffstyle.zoo.config import load_config

ROOT = Path(__file__).resolve().parents[1]
CASES = (("avatars", 1, 200), ("avatars", 8, 40), ("celeba", 1, 6), ("afhq", 1, 6))  # config, batch, pairs
WORKER = """
import ctypes, json, sys, time, torch
try:
    from diffstyle.models import build_unet
except ImportError:  # before diffstyle was a package
    from models import build_unet
job = json.loads(sys.argv[1])
libc = ctypes.CDLL(None)
libc.mallopt(-4, 0), libc.mallopt(-1, 2**31 - 1)  # as diffstyle does on the CPU
torch.manual_seed(0)
unet = build_unet(job["family"], job["size"], job["architecture"]).eval().requires_grad_(False)
unet.to(memory_format=torch.channels_last)
x = torch.randn(job["batch"], 3, job["size"], job["size"]).to(memory_format=torch.channels_last)
t = torch.full((len(x),), 500.0)
with torch.inference_mode():
    unet(x, t)
    for _ in sys.stdin:
        start = time.process_time()
        unet(x, t)
        print(time.process_time() - start, flush=True)
"""


def start(tree: Path, name: str, batch: int) -> subprocess.Popen[str]:
    """A process that evaluates the network of a config, as ``tree`` has it, once for every line it is sent."""
    c = load_config(f"{name}.yml")
    job = {"family": c.family, "size": c.image_size, "architecture": dict(c.architecture), "batch": batch}
    command = [sys.executable, "-c", WORKER, json.dumps(job)]
    return subprocess.Popen(command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def seconds(worker: subprocess.Popen[str]) -> float:
    """CPU time of one evaluation."""
    assert worker.stdin and worker.stdout
    worker.stdin.write("\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def ratios(trees: tuple[Path, Path], name: str, batch: int, pairs: int) -> list[float]:
    """The second tree's time over the first's, pair by pair; who begins alternates."""
    workers = [start(tree, name, batch) for tree in trees]
    found = []
    for i in range(pairs):
        taken = {side: seconds(workers[side]) for side in ((0, 1) if i % 2 else (1, 0))}
        found.append(taken[1] / taken[0])
    for worker in workers:
        worker.communicate()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--base", default="3e15174", help="the commit to compare with")
    parser.add_argument("--pairs", type=float, default=1.0, help="factor on the number of pairs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", args.base], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        for name, batch, pairs in CASES:
            found = ratios((Path(folder), ROOT), name, batch, max(2, round(pairs * args.pairs)))
            spread = statistics.quantiles(found, n=4)
            print(f"{name:8} batch {batch}: {spread[1]:.3f} (quartiles {spread[0]:.3f} to {spread[2]:.3f}, {len(found)} pairs)",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
