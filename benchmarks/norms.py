"""What the exact group norm costs: one evaluation of this working tree's networks beside those of another commit.

    python benchmarks/norms.py --base 3e15174

Both sides run in turns in one process and are compared pair by pair, in CPU time, so that a busy machine disturbs both.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from diffstyle.config import load_config  # noqa: E402
from diffstyle.device import keep_freed_memory  # noqa: E402

CASES = (("avatars", 1, 100), ("avatars", 8, 20), ("celeba", 1, 5), ("afhq", 1, 5))  # config, batch, pairs


def models_of(revision: str) -> ModuleType:
    """The package ``models`` as it stands in a commit, or in the working tree ("")."""
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]
    with tempfile.TemporaryDirectory() as folder:
        path = str(ROOT)
        if revision:
            archive = subprocess.run(["git", "archive", revision, "models"], cwd=ROOT, capture_output=True, check=True)
            subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
            path = folder
        sys.path.insert(0, path)
        try:
            return importlib.import_module("models")
        finally:
            sys.path.remove(path)


@torch.inference_mode()
def ratios(sides: list[ModuleType], name: str, batch: int, pairs: int) -> list[float]:
    """CPU time of the second side's evaluation over the first's, pair by pair."""
    config = load_config(name + ".yml")
    nets = []
    for side in sides:
        torch.manual_seed(0)
        net = side.build_unet(config.family, config.image_size, config.architecture).eval().requires_grad_(False)
        nets.append(net.to(memory_format=torch.channels_last))
    x = torch.randn(batch, 3, config.image_size, config.image_size).to(memory_format=torch.channels_last)
    t = torch.full((batch,), 500.0)

    def seconds(net: torch.nn.Module) -> float:
        start = time.process_time()
        net(x, t)
        return time.process_time() - start

    for net in nets:
        net(x, t)
    found = []
    for i in range(pairs):
        first, second = (0, 1) if i % 2 else (1, 0)
        taken = {first: seconds(nets[first]), second: seconds(nets[second])}
        found.append(taken[1] / taken[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", default="3e15174", help="the commit to compare with")
    parser.add_argument("--pairs", type=float, default=1.0, help="factor on the number of pairs")
    args = parser.parse_args()
    keep_freed_memory()
    sides = [models_of(args.base), models_of("")]
    for name, batch, pairs in CASES:
        found = ratios(sides, name, batch, max(2, round(pairs * args.pairs)))
        print(f"{name:8} batch {batch}: {statistics.median(found):.3f} of {args.base}'s time (median of {len(found)} pairs)", flush=True)


if __name__ == "__main__":
    main()
