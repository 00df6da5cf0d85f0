#!/usr/bin/env python3
"""Peak memory of a run of 2,000 pairs against one of 20, start-up time, and planning time over the number of pairs.

    python benchmarks/memory.py            # three minutes on one core; prints a table

The network is tiny and its latents are not (1.3 MB a content): a run that kept them would show it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffstyle.models import build_unet
from diffstyle.runs.config import RunConfig
from diffstyle.runs.plan import make_plan
from diffstyle.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
SIZE = 32
QUICK = ["--n_inv", "10", "--n_gen", "5", "--content_replace_step", "10", "--gamma", "0.4", "--device", "cpu"]
FIRST_CALL = """
import sys, time
import main
from diffstyle.models.ddpm import DDPM
def encode(self, x, t):
    print("\\nfirst call", time.time() - float(sys.argv[1]), "s", file=sys.stderr)
    raise SystemExit(0)
DDPM.encode = encode
main.main(sys.argv[2:])
"""


def paint(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(folder)))
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(folder / f"{i:04d}.png")
    return folder


def make_model(root: Path) -> list[str]:
    """A network of random weights, as flags."""
    torch.manual_seed(0)
    shape = {"ch": 32, "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": []}
    torch.save(build_unet("ddpm", SIZE, shape).state_dict(), root / "tiny.pt")
    text = ", ".join(f"{key}: {value}" for key, value in shape.items())
    (root / "tiny.yml").write_text(f"data: {{dataset: CelebA_HQ, image_size: {SIZE}}}\nmodel: {{type: ddpm, {text}}}\n")
    return ["--config", str(root / "tiny.yml"), "--model_path", str(root / "tiny.pt")]


def flags(root: Path, contents: int, styles: int) -> list[str]:
    c, s = paint(root / f"c{contents}", contents), paint(root / f"s{styles}", styles)
    out = root / f"out{contents * styles}"
    return ["--content_dir", str(c), "--style_dir", str(s), "--save_dir", str(out), "--cache_dir", str(out / "cache")]


def measured(argv: list[str]) -> tuple[float, float]:
    """Seconds and peak MB (resident) of one command line in its own process."""
    begin = time.time()
    process = subprocess.Popen([sys.executable, "main.py", *argv, "--verbose", "warning"], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"main.py failed: {argv}")
    return time.time() - begin, usage.ru_maxrss / 1024


def start_up(argv: list[str]) -> float:
    """Seconds from the start of the interpreter to the first network call."""
    words = [sys.executable, "-c", FIRST_CALL, str(time.time()), *argv, "--overwrite", "--no_cache"]
    said = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stderr
    return float(said.split("first call")[1].split()[0])


def planning(root: Path, side: int) -> float:
    folder = paint(root / f"plan{side}", side)
    begin = time.time()
    make_plan(RunConfig(folder, folder, root / "nowhere", Settings()))
    return time.time() - begin


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = make_model(root)
        small, large = [*model, *flags(root, 4, 5), *QUICK], [*model, *flags(root, 100, 20), *QUICK]
        few = measured(small)
        print(f"   20 pairs: {few[1]:6.0f} MB {few[0]:6.1f} s", flush=True)
        many = measured(large)
        print(f" 2000 pairs: {many[1]:6.0f} MB {many[0]:6.1f} s")
        again = measured(large)
        print(f" 2000 again: {again[1]:6.0f} MB {again[0]:6.1f} s (all kept from before)")
        print(f"difference of peaks: {many[1] - few[1]:.0f} MB (300 allowed)")
        print(f"start-up: {min(start_up(small) for _ in range(3)):.1f} s to the first network call (4 allowed)")
        for side in (10, 32, 100, 316):
            seconds = planning(root, side)
            print(f"planning {side * side:6d} pairs: {seconds:6.2f} s, {seconds / side**2 * 1e6:5.0f} us a pair")


if __name__ == "__main__":
    main()
