"""The trainer ends at random moments, by four signals, and goes on from there to the same files, bit for bit.

A few kills in CI. More, at other moments every time, by hand:

    FUZZ_KILLS=50 python -m pytest tests/fuzz/test_trainer_kills.py -s
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import train_ddpm

from batch_tools import CONFIG, end_or_kill, equal, leftovers, pictures, start, wait

KILLS = int(os.environ.get("FUZZ_KILLS", "4"))
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COMMON = "--batch 4 --iterations 8 --save_every 2 --report_every 4 --decay 5 --threads 1 --flip"
OPTIONS = {"pictures": "--twin 0.5 --skip_drop 0.5", "layers": "--transfer 1 --walks 0.5"}


def make_data(path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    draw = {name: rng.integers(0, 256, (16, 8, 8, depth), dtype=np.uint8) for name, depth in (("images", 3), ("weights", 4))}
    if kind == "pictures":
        np.savez(path, images=draw["images"])
    else:
        colours = rng.integers(0, 256, (50, 4, 3), dtype=np.uint8)
        np.savez(path, constant=draw["images"] // 2, weights=draw["weights"] // 8, colours=colours)


def content(out: Path) -> dict[str, Any]:
    """Weights and state as tensors, other files by their digest."""
    files = {name: digest for name, digest in pictures(out).items() if not name.endswith(".pt")}
    return {**files, **{path.name: torch.load(path, weights_only=True) for path in out.glob("*.pt")}}


def check_files(out: Path, losses: list[str]) -> None:
    """What a kill at any moment leaves is whole: weights that load, and the first lines of the losses."""
    content(out)
    if (out / "loss.csv").exists():
        lines = (out / "loss.csv").read_text().splitlines()
        assert lines == losses[: len(lines)]


@pytest.mark.usefixtures("few_steps_a_sample")
@pytest.mark.parametrize("kind", OPTIONS)
def test_kills_of_the_trainer(kind: str, tmp_path: Path) -> None:
    config, data, whole, parts = (tmp_path / name for name in ("tiny.yml", "data.npz", "whole", "parts"))
    config.write_text(CONFIG)
    make_data(data, kind)
    argv = ["--config", str(config), "--data", str(data), *COMMON.split(), *OPTIONS[kind].split(), "--out"]
    begin = time.monotonic()
    assert wait(start([*argv, str(whole)], command=train_ddpm.main), 120) == 0
    seconds, truth = time.monotonic() - begin, content(whole)
    losses = (whole / "loss.csv").read_text().splitlines()
    assert set(truth) == {"ema.pt", "last.pt", "loss.csv", *(f"samples_{i:07d}.png" for i in (4, 8))} and len(losses) == 3

    rng = random.Random(None if "FUZZ_KILLS" in os.environ else 0)
    kills = -(-KILLS // len(OPTIONS))
    signals = islice(cycle(SIGNALS), list(OPTIONS).index(kind) * kills, None)
    seen: Counter[str] = Counter()
    done, code = 0, -1
    while done < kills or code != 0:  # the last kill is gone on from, too
        child = start([*argv, str(parts)], command=train_ddpm.main)
        limit = rng.uniform(0, seconds * rng.choice([0.2, 0.6, 1.0])) if done < kills else 120
        code, number = end_or_kill(child, limit, signals, patience=60)
        if number is not None:
            done += code != 0
            seen[number.name] += code != 0
            assert code < 0 or not leftovers(tmp_path), f"{number.name} leaves {leftovers(tmp_path)}"
            check_files(parts, losses)
        if code == 0:
            assert equal(content(parts), truth) and not leftovers(tmp_path)
            seen["ends compared"] += 1
            shutil.rmtree(parts)
    print(f"{kind}: {dict(seen)}")
    assert done == kills
