"""The trainer under what happens to it: signals, a full disk, wrong numbers and files. One line, and an exact resume."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import train_ddpm
import training.data
from PIL import Image
from test_train import TINY, command, layers, pictures  # type: ignore[import-not-found]  # pytest finds it

from batch_tools import equal
from diffstyle.files import temporary_name

pytestmark = pytest.mark.usefixtures("few_steps_a_sample")
COMMON = ("--batch", "4", "--report_every", "3", "--save_every", "2", "--flip", "--iterations")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(TINY)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, images=pictures(8))
    return path


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of standard error, behind progress bars; there is no traceback before it."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text.rstrip("\n").split("\n")[-1].split("\r")[-1]


def assert_same_runs(whole: Path, parts: Path) -> None:
    assert (whole / "loss.csv").read_bytes() == (parts / "loss.csv").read_bytes()
    for name in ("ema.pt", "last.pt"):
        assert equal(*(torch.load(folder / name, weights_only=True) for folder in (whole, parts)))
    assert sorted(p.name for p in whole.iterdir()) == sorted(p.name for p in parts.iterdir())


@pytest.mark.parametrize(("number", "at", "code"), [(signal.SIGINT, 3, 130), (signal.SIGTERM, 4, 143)])
def test_a_signal_inside_a_step_waits_for_its_end(
    number: int, at: int, code: int, config: Path, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Between the weights' step and the average's; at 3 a report is due, too. Resumed, all is that of one run."""
    assert train_ddpm.main(command(config, tmp_path / "whole", data, *COMMON, "6")) == 0
    step, calls = torch.optim.Adam.step, []

    def stepped(self: torch.optim.Adam, *args: Any) -> Any:
        step(self, *args)
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(torch.optim.Adam, "step", stepped)
    parts = command(config, tmp_path / "parts", data, *COMMON, "6")
    assert train_ddpm.main(parts) == code
    assert the_line(capsys) == f"interrupted: saved at iteration {at}; the same command goes on from there"
    assert torch.load(tmp_path / "parts/last.pt", weights_only=True)["iteration"] == at
    assert train_ddpm.main(parts) == 0
    assert len(calls) == 6
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_pictures_are_read(
    number: int, code: int, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(pictures(1)[0]).save(folder / "a.png")
    monkeypatch.setattr(training.data, "load_image", lambda *_: os.kill(os.getpid(), number))
    assert train_ddpm.main(command(config, tmp_path / "out", folder)) == code
    assert the_line(capsys) == "interrupted"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow beyond this: what a full disk is, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_last_save(config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_ddpm.main(command(config, tmp_path / "whole", data, *COMMON, "6")) == 0
    out = tmp_path / "parts"
    assert train_ddpm.main(command(config, out, data, *COMMON, "6", "--save_every", "1", "--iterations", "2")) == 0
    with largest_file(50_000):  # loss.csv and samples fit, weights do not
        assert train_ddpm.main(command(config, out, data, *COMMON, "6")) == 1
    assert the_line(capsys).startswith(f"error: {out / 'ema.pt'}: cannot be written (")
    assert torch.load(out / "last.pt", weights_only=True)["iteration"] == 2
    assert not list(out.glob(".*"))
    (out / "samples_0000002.png").unlink()  # of the end at 2, which the uninterrupted run has not
    (out / "loss.csv").unlink()
    assert train_ddpm.main(command(config, out, data, *COMMON, "6")) == 0
    assert equal(*(torch.load(tmp_path / name / "ema.pt", weights_only=True) for name in ("whole", "parts")))


def test_memory_that_runs_out_keeps_the_last_save(
    config: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss, out = train_ddpm.Trainer.loss, tmp_path / "out"

    def tight(self: train_ddpm.Trainer) -> torch.Tensor:
        if self.iteration == 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return loss(self)

    monkeypatch.setattr(train_ddpm.Trainer, "loss", tight)
    assert train_ddpm.main(command(config, out, data, *COMMON, "6")) == 1
    assert the_line(capsys) == "error: out of memory: lower --batch or take a smaller network, or close other programs"
    assert torch.load(out / "last.pt", weights_only=True)["iteration"] == 2
    assert {p.name for p in out.iterdir()} == {"ema.pt", "last.pt", "loss.csv", "samples_0000003.png"}


def test_what_a_killed_trainer_left_is_removed(config: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    killed = ("import os, signal, pathlib\nfrom diffstyle.files import write_whole\n"
              f"write_whole(pathlib.Path({str(out / 'last.pt')!r}), lambda f: os.kill(os.getpid(), signal.SIGKILL))")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", killed], cwd=Path(train_ddpm.__file__).parents[1]).returncode == -9
    assert len(list(out.glob(".*.tmp"))) == 1
    other = out / temporary_name().replace(f".{os.getpid()}.", f".{os.getppid()}.")  # of a process that lives
    other.touch()
    assert train_ddpm.main(command(config, out, data, "--iterations", "0")) == 0
    assert list(out.glob(".*")) == [other]
    assert {p.name for p in out.iterdir()} == {other.name, "ema.pt", "last.pt"}


WRONG = ["--warmup -1", "--save_every 0", "--report_every 0", "--batch -1", "--batch 0", "--lr nan", "--lr inf", "--lr 0",
         "--ema nan", "--iterations -1", "--decay -1", "--threads 0", "--twin 2", "--skip_drop nan", "--t_power inf", "--seed -1",
         "--transfer_from -5", f"--seed {10**40}", "--batch x"]  # fmt: skip


@pytest.mark.parametrize("flags", WRONG)
def test_wrong_numbers(flags: str, config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train_ddpm.main(command(config, tmp_path / "out", data, *flags.split()))
    text = capsys.readouterr().err
    assert stop.value.code == 2 and text.count("\n") == 1 and text.startswith(f"error: argument {flags.split()[0]}: ")
    assert not (tmp_path / "out").exists()


def test_warmup_0_is_none(config: Path, data: Path, tmp_path: Path) -> None:
    for name, warmup in (("none", "0"), ("one", "1")):
        assert train_ddpm.main(command(config, tmp_path / name, data, *COMMON, "2", "--warmup", warmup)) == 0
    assert equal(*(torch.load(tmp_path / name / "ema.pt", weights_only=True) for name in ("none", "one")))


@pytest.mark.parametrize(("section", "said"), [
    ("prediction: v", "its prediction is v"), ("prediction: x0", "its prediction is x0"),
    ("num_diffusion_timesteps: 900", "num_diffusion_timesteps is 900"),
])  # fmt: skip
def test_configs_that_are_not_trained(
    section: str, said: str, config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(f"{TINY}diffusion: {{{section}}}\n")
    assert train_ddpm.main(command(config, tmp_path / "out", data, "--iterations", "1")) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: tiny: ") and said in text and text.count("\n") == 1
    assert not (tmp_path / "out").exists()


ARRAYS = {
    "float": {"images": np.zeros((2, 8, 8, 3))}, "empty": {"images": np.zeros((0, 8, 8, 3), np.uint8)},
    "grey": {"images": np.zeros((2, 8, 8), np.uint8)}, "none": {"other": np.zeros(3)},
    "objects": {"images": np.array([None])},
    "colours": layers() | {"colours": np.zeros((5, 3, 3), np.uint8)}, "shapes": layers() | {"weights": layers(3)["weights"]},
    "no_colours": layers() | {"colours": np.zeros((0, 4, 3), np.uint8)},
}  # fmt: skip


@pytest.mark.parametrize("kind", [*ARRAYS, "missing", "text", "half", "folder", "pipe", "npy", "method"])
def test_data_that_is_none(kind: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.npz"
    if kind in ARRAYS:
        np.savez(path, **ARRAYS[kind])  # type: ignore[arg-type]
    if kind in ("half", "method"):
        np.savez_compressed(path, images=pictures(64))
    if kind == "half":
        path.write_bytes(path.read_bytes()[:-30])
    if kind == "method":  # the one byte that says how the array is packed, in both of its headers
        at = zipfile.ZipFile(path).start_dir
        bytes_ = bytearray(path.read_bytes())
        bytes_[8] = bytes_[at + 10] = 97
        path.write_bytes(bytes_)
    if kind == "text":
        path.write_text("PK\3\4 no npz")
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, pictures(2))
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    assert train_ddpm.main(command(config, tmp_path / "out", path, "--iterations", "1")) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: --data {path}: ") and text.count("\n") == 1


@pytest.mark.parametrize(("kind", "code"), [
    ("file", 1), ("below", 1), ("long", 2), ("csv", 1), ("row", 1), ("half", 2), ("list", 2), ("pipe", 1),
])  # fmt: skip
def test_an_out_that_cannot_be_used(
    kind: str, code: int, config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("x" * 300) if kind == "long" else tmp_path / "out"
    if kind in ("file", "below"):
        out.touch()
        out = out / "below" if kind == "below" else out
    elif kind != "long":
        out.mkdir()
    if kind == "csv":
        (out / "loss.csv").mkdir()
    if kind == "row":
        (out / "loss.csv").write_text("iteration,loss\nmany,0.5\n")
    if kind == "half":
        (out / "last.pt").write_bytes(b"half a file")
    if kind == "list":
        torch.save([], out / "last.pt")
    if kind == "pipe":
        os.mkfifo(out / "last.pt")
    assert train_ddpm.main(command(config, out, data, "--batch", "2", "--iterations", "1")) == code
    assert the_line(capsys).startswith("error: ")
