#!/usr/bin/env python3
"""Kill runs at random moments, by four signals over eight sets of options, and go on from there; by hand.

    PYTHONPATH=.:tests python tests/fuzz/kills.py [--kills 100] [--seed 0]

After each kill every result that is there is, byte for byte, that of a run in one go, and after a signal that a process
can answer nothing half done is left. Whenever a run gets to its end all of its files are those of the run in one go.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from batch_tools import Tiny, end_or_kill, leftovers, make_tiny, pictures, start, wait

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OPTIONS: dict[str, list[str]] = {
    "plain": [],
    "boosted, calibrated": ["--t_boost", "300", "--omega", "0.3"],
    "one stream of noise": ["--noise", "official", "--t_boost", "300"],
    "folders": ["--layout", "by-style", "--report"],
    "list": ["--pairs", "{root}/list.csv"],
    "sweep": ["--sweep", "gamma=0.2,0.4"],
    "samples": ["--content_dir", "sample:3"],
    "no cache": ["--no_cache", "--solver", "abm3", "--nfe", "4"],
}
LIST = "content,style,gamma,seed\n" + "".join(f"c0{i % 3}.png,s0{i % 4}.png,0.{i % 5},{i}\n" for i in range(12))


def made(folder: Path) -> dict[str, str]:
    """Every file by its digest, but those that hold times."""
    return {name: digest for name, digest in pictures(folder).items() if not name.endswith((".html", ".json", ".tmp"))}


def attack(tiny: Tiny, options: list[str], kills: int, rng: random.Random, signals: Iterator[signal.Signals]) -> Counter[str]:
    """Kill runs with ``options`` so often. Raises AssertionError where a promise is broken."""
    argv = tiny.argv("--batch_size", "1", *options)
    begin = time.monotonic()
    whole = tiny.root / "whole"
    assert wait(start([*argv, "--save_dir", str(whole), *cache(options, tiny.root / "whole_cache")]), 600) == 0
    seconds, truth = time.monotonic() - begin, made(whole)
    seen: Counter[str] = Counter()
    done, code = 0, -1
    while done < kills or code != 0:  # the last kill is gone on from, too
        child, limit = start(argv), rng.uniform(0, seconds * rng.choice([0.2, 0.6, 1.0])) if done < kills else 600
        code, number = end_or_kill(child, limit, signals, patience=120)
        if number is not None and code:
            done += 1
            seen[number.name] += 1
            if number != signal.SIGKILL and code > 0:
                assert not leftovers(tiny.root), f"{number.name} leaves {leftovers(tiny.root)}"
            if number != signal.SIGKILL and code < 0:
                seen[f"{number.name} unanswered"] += 1
            there = made(tiny.out) if tiny.out.is_dir() else {}
            wrong = [name for name, digest in there.items() if truth.get(name) != digest and Path(name).name != "grid.png"]
            assert not wrong, f"after {number.name}: {wrong}"
        if code == 0:
            assert made(tiny.out) == truth and not leftovers(tiny.root)
            seen["ends compared"] += 1
            shutil.rmtree(tiny.out)
            shutil.rmtree(tiny.root / "cache", ignore_errors=True)
    for folder in (whole, tiny.root / "whole_cache"):
        shutil.rmtree(folder, ignore_errors=True)
    return seen


def cache(options: list[str], folder: Path) -> list[str]:
    return [] if "--no_cache" in options else ["--cache_dir", str(folder)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script in the background inherits an ignored one,
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and under nohup this one
    rng, signals, total = random.Random(args.seed), itertools.cycle(SIGNALS), Counter[str]()
    for i, (name, options) in enumerate(OPTIONS.items()):
        share = args.kills * (i + 1) // len(OPTIONS) - args.kills * i // len(OPTIONS)
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            tiny = make_tiny(Path(folder), contents=3, styles=4)
            (Path(folder) / "list.csv").write_text(LIST)
            seen = attack(tiny, [word.format(root=folder) for word in options], share, rng, signals)
        print(f"{name}: {dict(seen)}", flush=True)
        total += seen
    print(f"all: {dict(total)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
