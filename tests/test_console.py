"""Signals at awkward moments: during imports, while Python cleans up, twice in a row; and memory that runs out."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffstyle import console
from diffstyle.console import exit_code, interruptible
from diffstyle.errors import Interrupted

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = "import sys; from diffstyle.__main__ import main; sys.exit(main())"  # what pip makes of [project.scripts]
HARMFUL = """import os, signal
try:
    os.kill(os.getpid(), signal.{})
    for _ in range(1000): pass
except BaseException as error:
    raise {}
"""
WHEN = [("argparse", signal.SIGINT), ("torch", signal.SIGINT), ("torch", signal.SIGTERM)]


@pytest.mark.parametrize("command", [["main.py"], ["-m", "diffstyle"], ["-c", INSTALLED]], ids=["file", "module", "installed"])
@pytest.mark.parametrize(("module", "number"), WHEN)
def test_a_signal_during_imports_is_one_line(module: str, number: signal.Signals, command: list[str], tmp_path: Path) -> None:
    """Also where the module makes another error of what is raised, as C extensions do."""
    turned = "ImportError('initialization failed') from error" if module == "torch" else "error"
    (tmp_path / f"{module}.py").write_text(HARMFUL.format(number.name, turned))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    process = subprocess.run(
        [sys.executable, *command, "--dry_run"], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (process.returncode, process.stderr, process.stdout) == (128 + number, "interrupted\n", "")


@pytest.mark.parametrize("script", ["train_ddpm.py", "evaluate.py", "intervals.py", "figures/table1.py"])
@pytest.mark.parametrize(("module", "number"), WHEN)
def test_a_signal_during_a_scripts_imports_is_one_line(module: str, number: signal.Signals, script: str, tmp_path: Path) -> None:
    turned = "ImportError('initialization failed') from error" if module == "torch" else "error"
    (tmp_path / f"{module}.py").write_text(HARMFUL.format(number.name, turned))
    process = subprocess.run(
        [sys.executable, f"scripts/{script}"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (process.returncode, process.stderr, process.stdout) == (128 + number, "interrupted\n", "")


@pytest.mark.parametrize("script", sorted(
    [*(ROOT / "scripts").glob("[cdeist]*.py"), *(ROOT / "scripts/figures").glob("[!c]*.py")]  # not make_*.py, not common.py
), ids=lambda path: path.stem)  # fmt: skip
def test_no_import_of_a_script_comes_before(script: Path) -> None:
    """What the two tests above see in a few programs is the first thing in all of them."""
    _, future, first, *_ = ast.parse(script.read_text()).body
    assert ast.unparse(future) == "from __future__ import annotations"
    assert ast.unparse(first).endswith("from diffstyle.console import until_work\n    until_work()")


def test_only_a_program_takes_the_signals() -> None:
    code = "import signal, main; assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL; import diffstyle; diffstyle.nothing"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1 and process.stderr.endswith("has no attribute 'nothing'\n")


class Closing:
    """Receives a signal where Python drops what is raised."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_got_lost_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "PATIENCE", 0)
    with pytest.raises(Interrupted) as stop, interruptible():
        thing = Closing()
        del thing
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.value.exit_code == 130


def test_an_impatient_second_signal_cuts_nothing_off() -> None:
    cleaned = False
    with pytest.raises(Interrupted), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned = True
    assert cleaned


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
])  # fmt: skip
def test_memory_that_runs_out(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise error

    assert exit_code(work) == exit_code(work, "look there", "lower --batch") == 1
    lines = ("use fewer or smaller pictures", "lower --batch")
    assert capsys.readouterr().err == "".join(f"error: out of memory: {line}, or close other programs\n" for line in lines)


def test_other_errors_are_not_taken_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError):
        exit_code(work)
    assert exit_code(work, "look there") == 1
    assert capsys.readouterr().err == "error: RuntimeError: mat1 and mat2 shapes cannot be multiplied (look there)\n"
