"""A network small enough for thousands of pairs, and pictures for it."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import main
from diffstyle.console import SIGNALS
from diffstyle.models import build_unet

ROOT = Path(__file__).resolve().parents[1]
FEW_STEPS = ["--n_inv", "2", "--n_gen", "2"]  # where the files matter, not the walk
ARCHITECTURE = {"ch": 32, "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": []}
CONFIG = """data: {dataset: CelebA_HQ, image_size: 8}
model: {type: ddpm, ch: 32, ch_mult: [1], num_res_blocks: 1, attn_resolutions: []}
"""


@dataclass
class Tiny:
    """A folder with a tiny model, contents and styles, and the command line that uses them."""

    root: Path
    extra: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.root / "out"

    def argv(self, *more: str) -> list[str]:
        r = self.root
        words = ["--config", f"{r}/tiny.yml", "--model_path", f"{r}/tiny.pt", "--content_dir", f"{r}/c", "--style_dir", f"{r}/s"]
        words += ["--save_dir", f"{r}/out", "--cache_dir", f"{r}/cache", "--device", "cpu"]
        words += ["--n_inv", "5", "--n_gen", "6", "--content_replace_step", "4", "--gamma", "0.4", "--verbose", "warning"]
        return [*words, *self.extra, *more]


def make_tiny(root: Path, contents: int = 2, styles: int = 3) -> Tiny:
    torch.manual_seed(0)
    torch.save(build_unet("ddpm", 8, ARCHITECTURE).state_dict(), root / "tiny.pt")
    (root / "tiny.yml").write_text(CONFIG)
    for side, count in (("c", contents), ("s", styles)):
        for i in range(count):
            paint(root / side / f"{side}{i:02d}.png", i + 100 * (side == "s"))
    return Tiny(root)


def paint(path: Path, seed: int, size: tuple[int, int] = (12, 10)) -> Path:
    """A small random picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def losing_latents(tiny: Tiny, transfer: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``transfer``, before whose second call the cache is emptied."""
    calls = list[int]()

    def vandal(*args: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            for path in (tiny.root / "cache").iterdir():
                path.unlink()
        return transfer(*args)

    return vandal


def pictures(folder: Path) -> dict[str, str]:
    """Every file of a save_dir but run.json, with a digest of its bytes."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "run.json")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def results(folder: Path) -> dict[str, np.ndarray]:
    """The pixels of every bare result."""
    files = (p for p in sorted(folder.rglob("result_*.png")))
    return {str(p.relative_to(folder)): np.asarray(Image.open(p)).astype(int) for p in files}


def torchrun(argv: list[str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "main.py", *argv]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def two_ranks(argv: list[str], log: Path, script: str = "") -> list[int | None]:
    """The exit codes of a command line in two processes that ``start_two_ranks``."""
    return [wait(child, 240) for child in start_two_ranks(argv, log, script)]


def start_two_ranks(argv: list[str], log: Path, script: str = "") -> list[int]:
    """Two processes at a command line of main.py that are told what torchrun tells, but are forks; ``log`` has what they say.

    Those of a ``script`` are programs of their own: one that trains cannot be forked where autograd has been at work.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    begin: Callable[..., int] = functools.partial(spawn, script) if script else start
    return [begin(argv, log, **common, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]


def spawn(script: str, argv: list[str], log: Path, **environ: str) -> int:
    """Run a script as a program of its own."""
    words = [sys.executable, str(ROOT / script), *argv]
    said = [(os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), (os.POSIX_SPAWN_DUP2, 1, 2)]
    return os.posix_spawn(sys.executable, words, {**os.environ, "OMP_NUM_THREADS": "1", **environ}, file_actions=said)


def start(argv: list[str], log: str | Path = os.devnull, command: Callable[[list[str]], int] = main.main, **environ: str) -> int:
    """Run a command line in a process of its own, at once: a fork of this one, which has everything imported."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what comes too early waits for the child's own handlers
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return child
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as where a program begins, whose traceback nobody sees
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.environ.update(environ)
        with open(log, "a", buffering=1) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = file
            torch.set_num_threads(1)  # a fork has none of the parent's threads
            tqdm.set_lock(threading.RLock())  # forks share the usual one: who is killed with it stops all others for ever
            code = command(argv)
    finally:
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """The exit code of a child, or None if it is still at work after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.001)


def end_or_kill(
    child: int, seconds: float, signals: Iterator[signal.Signals], patience: float
) -> tuple[int, signal.Signals | None]:
    """The exit code of a child, and the next of ``signals`` if that was needed: it was still at work after ``seconds``.

    Raises AssertionError if the signal ends it neither at once nor with the code that stands for it, within ``patience`` seconds.
    """
    code = wait(child, seconds)
    if code is not None:
        return code, None
    number = next(signals)
    os.kill(child, number)
    code = wait(child, patience)
    assert code is not None and code in (0, -number, 128 + number), f"{number.name}: exit code {code}"
    return code, number


def leftovers(root: Path) -> list[Path]:
    return [p for p in root.rglob("*") if p.suffix == ".tmp"]


def equal(a: Any, b: Any) -> bool:
    """Whether two nests of tensors and numbers are the same to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, list) else bool(a == b)
