"""Many processes, and processes that are killed: torchrun on the CPU, and kill -9 at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

import main
from batch_tools import leftovers, make_tiny, pictures, results, start, torchrun, two_ranks, wait
from diffstyle.errors import UsageError, WorkError
from diffstyle.runs import workers
from diffstyle.runs.workers import Share, find_share, join

ROOT = Path(__file__).resolve().parents[2]
KILLS = 25
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_kill_9_at_random_moments(tmp_path: Path, batch_size: int) -> None:
    """24 pairs, killed 25 times in all and resumed each time: the same files as without, nothing half, nothing left over.

    Whenever a run gets through it is checked and begun anew. At batch size 1 pictures are equal byte for byte.
    """
    tiny = make_tiny(tmp_path, contents=4, styles=6)
    tiny.extra = ["--batch_size", str(batch_size), "--t_boost", "300"]
    begin = time.monotonic()
    assert wait(start(tiny.argv("--save_dir", f"{tmp_path}/whole", "--cache_dir", f"{tmp_path}/whole_cache")), 120) == 0
    whole, alone = time.monotonic() - begin, pictures(tmp_path / "whole")
    assert len(alone) == 49  # 24 pairs and the grid

    rng = random.Random(batch_size)
    kills, code = 0, None
    while kills < KILLS or code != 0:  # the last kill is resumed from, too
        child = start(tiny.argv())
        code = wait(child, rng.uniform(0, whole * rng.choice([0.2, 0.6, 1.0])) if kills < KILLS else 120)
        if code is None:
            os.kill(child, signal.SIGKILL)
            code = wait(child, 10)
        if code == -signal.SIGKILL:
            kills += 1
            continue
        assert code == 0
        assert not leftovers(tmp_path)
        if batch_size == 1:
            assert pictures(tiny.out) == alone
        else:
            want, have = results(tmp_path / "whole"), results(tiny.out)
            assert want.keys() == have.keys()
            assert all(np.abs(want[k] - have[k]).max() <= 1 for k in want)
        assert len(json.loads((tiny.out / "run.json").read_text())["results"]) == 24
        for path in [*tiny.out.iterdir(), *(tmp_path / "cache").iterdir()]:
            path.unlink()
    assert kills == KILLS


def test_a_killed_fork_holds_no_lock_of_the_others(tmp_path: Path) -> None:
    """Of the tests' own forks: programs that are started share no lock."""

    def hold(_: list[str]) -> int:
        with tqdm.get_lock():
            (tmp_path / "held").touch()
            time.sleep(60)
        return 1

    def ask(_: list[str]) -> int:
        with tqdm.get_lock():
            return 0

    tqdm.get_lock()  # made here once, as by any bar
    child = start([], command=hold)
    while not (tmp_path / "held").exists():
        assert wait(child, 0.01) is None
    os.kill(child, signal.SIGKILL)
    assert wait(child, 10) == -signal.SIGKILL
    child = start([], command=ask)
    code = wait(child, 20)
    if code is None:
        os.kill(child, signal.SIGKILL)
    assert code == 0


@pytest.mark.slow
def test_two_processes_on_the_same_folders(tmp_path: Path) -> None:
    """Nobody told them of each other: the work is done twice at worst, and nothing breaks."""
    tiny = make_tiny(tmp_path, contents=3, styles=4)
    assert main.main(tiny.argv("--batch_size", "1", "--save_dir", f"{tmp_path}/alone", "--no_cache")) == 0
    children = [start(tiny.argv("--batch_size", "1")) for _ in range(3)]
    assert [wait(child, 120) for child in children] == [0, 0, 0]
    assert pictures(tiny.out) == pictures(tmp_path / "alone") and not leftovers(tmp_path)


def ranks_of(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(c) for c in children if "main.py" in Path(f"/proc/{c}/cmdline").read_text()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks in /proc")
def test_torchrun(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, contents=4, styles=6)
    (tmp_path / "c" / "bad.png").write_bytes(b"no picture")
    tiny.extra = ["--batch_size", "1", "--n_gen", "60"]
    assert main.main(tiny.argv("--save_dir", f"{tmp_path}/alone", "--cache_dir", f"{tmp_path}/cache1")) == 1

    # One rank is killed in the middle of a long run: torchrun ends the other, whose pictures stay.
    process = torchrun(tiny.argv())
    deadline = time.monotonic() + 120
    while len(results(tiny.out)) < 4:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "interrupted: " in said and "of this process (0 of 2)" in said
    assert 4 <= len(results(tiny.out)) < 24

    # The re-run, now without a cache folder, finishes the rest; the failure of one input is told once, by the first. Those of
    # both runs are the pictures that one process makes.
    assert two_ranks(tiny.argv("--no_cache"), tmp_path / "log") == [1, 0]  # the first reports
    assert (tmp_path / "log").read_text().count("failed: ") == 1
    record = json.loads((tiny.out / "run.json").read_text())
    assert record["done"] + record["kept"] == 24 and record["kept"] >= 4
    assert pictures(tiny.out) == pictures(tmp_path / "alone") and not leftovers(tmp_path)


# ---- without processes -------------------------------------------------------------------------------------------


def test_torchrun_is_recognised() -> None:
    assert find_share(None, TORCHRUN) == Share(3, 4, True, 1, 2) and not find_share(None, TORCHRUN).first
    assert find_share(None, {"WORLD_SIZE": "4", "RANK": "1"}) == Share()  # somebody else's variables
    assert find_share(None, {**TORCHRUN, "WORLD_SIZE": "1"}) == Share()
    assert find_share("1/4", {}) == Share(1, 4)
    with pytest.raises(UsageError, match="torchrun shares the work"):
        find_share("0/2", TORCHRUN)


@pytest.mark.parametrize("shard", ["²/4", "4/4", "-1/4", "1", "1/", "/4", "1/2/3", "1" * 5000 + "/3", "0/" + "9" * 5000, "٣/٤"])
def test_no_shard(shard: str) -> None:
    with pytest.raises(UsageError, match="use i/n with i from 0"):
        find_share(shard, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORLD_SIZE", "x"), ("WORLD_SIZE", "0"), ("WORLD_SIZE", None), ("RANK", None), ("RANK", "4"), ("RANK", "-1"),
     ("LOCAL_RANK", "²"), ("LOCAL_WORLD_SIZE", "0")],
)  # fmt: skip
def test_a_broken_torchrun_environment(name: str, value: str | None) -> None:
    environ = {key: text for key, text in {**TORCHRUN, name: value}.items() if text is not None}
    with pytest.raises(UsageError, match=f"torchrun's variable {name} is"):
        find_share(None, environ)


def test_torchrun_without_a_master(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="MASTER_ADDR"):
        join(find_share(None, TORCHRUN), torch.device("cpu"))


def test_each_process_takes_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffstyle.zoo.device import pick_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(pick_device("auto", local)) for local in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert str(pick_device("cuda:1", 0)) == "cuda:1"


def test_end_of_another_process_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    share = Share(0, 2, True)

    def broken(*args: object, **more: object) -> None:
        raise RuntimeError("[gloo] Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "gather_object", broken)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broken)
    monkeypatch.setattr(torch.distributed, "init_process_group", broken)
    for call in (lambda: share.gather(1), lambda: share.from_first("x")):
        with pytest.raises(WorkError, match="run again to finish the rest"):
            call()
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    with pytest.raises(WorkError, match="do not find each other"):
        workers.join(share, torch.device("cpu"))
    assert threads and threads[0] >= 1
    workers.leave(share)
    assert Share().gather(5) == [5] and Share().from_first("y") == "y"
