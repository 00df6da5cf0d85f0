"""Results written and latents read beside a GPU at work. Here the CPU plays the GPU: the thread is forced."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import main
from batch_tools import Tiny, leftovers, losing_latents, make_tiny, pictures, results
from diffstyle import images, pipeline
from diffstyle.errors import WorkError
from diffstyle.files import StorageError, write_whole
from diffstyle.runs import job
from diffstyle.runs.background import ROOM, Background, leaving
from diffstyle.runs.latents import LatentCache

CUDA = torch.device("cuda")


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    tiny = make_tiny(tmp_path)
    tiny.extra = ["--batch_size", "1"]
    return tiny


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "Background", lambda device: Background(CUDA))


# ---- the thread --------------------------------------------------------------------------------------------------


def test_tasks_are_done_in_order_and_few_wait() -> None:
    gate, done = threading.Event(), list[int]()
    with Background(CUDA) as background:

        def late(i: int) -> None:
            gate.wait(10)
            done.append(i)

        def put_all() -> None:
            for i in range(ROOM + 1):
                background.put(partial(late, i))

        putter = threading.Thread(target=put_all)
        putter.start()
        putter.join(0.3)
        assert putter.is_alive() and not done  # the last one finds no room
        gate.set()
        putter.join(10)
        assert not putter.is_alive()
    assert done == list(range(ROOM + 1))


def broken() -> None:
    raise WorkError("broken")


def test_an_error_of_a_task_is_raised_at_the_latest_at_the_end() -> None:
    done: list[int] = []
    with pytest.raises(WorkError, match="broken"), Background(CUDA) as background:
        background.put(broken)
        background.put(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(WorkError, match="broken"), Background(CUDA) as background:
        for _ in range(ROOM + 1):
            background.put(broken)
        done.append(2)
    assert done == [1]


def test_after_an_error_of_the_program_what_was_put_is_done() -> None:
    done: list[int] = []
    with pytest.raises(KeyError), Background(CUDA) as background:
        background.put(broken)
        background.put(lambda: done.append(1))
        raise KeyError
    assert done == [1]


def test_where_the_cpu_computes_there_is_no_thread() -> None:
    with Background(torch.device("cpu")) as background:
        seen: list[threading.Thread] = []
        background.put(lambda: seen.append(threading.current_thread()))
        assert seen == [threading.current_thread()] and background.ahead(lambda: 1) is None
        with pytest.raises(WorkError, match="broken"):
            background.put(broken)


# ---- runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", ["1", "2", "4"])
def test_no_result_depends_on_it(batch_size: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every result is written beside the work, and latents are read there for all batches but the first, few of them twice."""
    argv = tiny.argv("--batch_size", batch_size, "--t_boost", "300")
    assert main.main([*argv, "--save_dir", f"{tiny.root}/alone"]) == 0
    monkeypatch.setattr(job, "Background", lambda device: Background(CUDA))
    written: list[str] = []
    read: Counter[tuple[str, str]] = Counter()
    save_png = images.save_png

    def watched_save(path: Path, *rest: Any) -> None:
        written.append(threading.current_thread().name)
        save_png(path, *rest)

    def watched(kind: str) -> Any:
        real = getattr(LatentCache, kind)

        def get(self: LatentCache, digest: str, *rest: Any) -> Any:
            read[kind, threading.current_thread().name.split("_")[0]] += 1
            return real(self, digest, *rest)

        return get

    monkeypatch.setattr(job, "save_png", watched_save)
    for kind in ("get_h", "get_x_T"):
        monkeypatch.setattr(LatentCache, kind, watched(kind))
    assert main.main(argv) == 0
    assert len(written) == 12 and set(written) == {"background_0"}
    assert pictures(tiny.out) == pictures(tiny.root / "alone")
    contents, styles = {"1": (1, 1), "2": (1, 2), "4": (2, 3)}[batch_size]  # of the first batch
    assert read["get_h", "MainThread"] == contents and 1 <= read["get_h", "background"] <= 2
    assert read["get_x_T", "MainThread"] == styles and 2 <= read["get_x_T", "background"] <= 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(
    number: int, code: int, tiny: Tiny, threaded: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the second pair's result is half written: it and what else has been computed is finished, and counted."""
    assert main.main(tiny.argv("--save_dir", f"{tiny.root}/whole")) == 0
    calls: list[Path] = []

    def shaken(path: Path, write: Any) -> None:
        calls.append(path)

        def cut(f: Any) -> None:
            os.kill(os.getpid(), number)
            write(f)

        write_whole(path, cut if len(calls) == 4 else write)

    monkeypatch.setattr(images, "write_whole", shaken)
    assert main.main(tiny.argv()) == code
    done = len(results(tiny.out))
    assert 2 <= done <= 6 and len(calls) == 2 * done
    assert f"interrupted: {done} of 6 pairs are finished" in capsys.readouterr().err
    assert not leftovers(tiny.root)
    monkeypatch.undo()
    assert main.main(tiny.argv()) == 0
    assert pictures(tiny.out) == pictures(tiny.root / "whole")


def test_an_error_of_writing_fails_its_own_pairs(
    tiny: Tiny, threaded: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As without the thread: a folder has the name of one result, and of another the stack."""
    for name in ("result_content_c00_style_s01.png", "content_c01_style_s00.png"):
        (tiny.out / name).mkdir(parents=True)
    assert main.main(tiny.argv()) == 1
    said = capsys.readouterr().err
    assert len([p for p in tiny.out.glob("result_*.png") if p.is_file()]) == 4
    monkeypatch.undo()
    assert main.main(tiny.argv("--overwrite")) == 1
    assert capsys.readouterr().err == said and said.count("failed: ") == 2


def test_a_full_disk_ends_the_run(
    tiny: Tiny, threaded: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, *_: Any) -> None:
        raise StorageError(f"{path}: cannot be written: the disk is full")

    monkeypatch.setattr(job, "save_png", full)
    assert main.main(tiny.argv()) == 1
    assert "error: " in (said := capsys.readouterr().err) and "the disk is full" in said and not results(tiny.out)


def test_memory_that_runs_out(tiny: Tiny, threaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main.main(tiny.argv("--save_dir", f"{tiny.root}/whole")) == 0
    real = pipeline.transfer

    def tight(model: Any, content: Any, *rest: Any) -> torch.Tensor:
        if len(content) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, content, *rest)

    monkeypatch.setattr(job, "transfer", tight)
    assert main.main(tiny.argv("--batch_size", "4")) == 0
    assert pictures(tiny.out) == pictures(tiny.root / "whole")


def test_latents_lost_during_the_run(tiny: Tiny, threaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main.main(tiny.argv()) == 0
    whole = pictures(tiny.out)
    monkeypatch.setattr(job, "transfer", losing_latents(tiny, pipeline.transfer))
    assert main.main(tiny.argv("--overwrite")) == 0
    assert pictures(tiny.out) == whole


def test_on_the_cpu_nothing_leaves() -> None:
    x = torch.zeros(2, 3)
    assert leaving(x)() is x


# ---- a GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpus_results_are_those_without_the_thread(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = tiny.argv("--device", "cuda", "--batch_size", "2", "--t_boost", "300")
    assert main.main(argv) == 0
    monkeypatch.setattr(job, "Background", lambda device: Background(torch.device("cpu")))
    assert main.main([*argv, "--save_dir", f"{tiny.root}/alone"]) == 0
    beside, alone = results(tiny.out), results(tiny.root / "alone")
    assert beside.keys() == alone.keys() and all((beside[k] == alone[k]).all() for k in alone)
    with Image.open(tiny.out / "result_content_c00_style_s00.png") as one:
        assert one.size == (8, 8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_what_leaves_a_gpu_arrives_whole() -> None:
    x = torch.randn(64, 3, 256, 256, device="cuda")
    arrived = leaving(x * 2)
    wanted = x.cpu() * 2
    x.zero_()
    found: list[torch.Tensor] = []
    with Background(CUDA) as background:
        background.put(lambda: found.append(arrived()))
    assert torch.equal(found[0], wanted)
