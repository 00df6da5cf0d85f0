"""The command line in-process, for the tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--n_inv_step", "6", "--n_gen_step", "6", "--content_replace_step", "6", "--device", "cpu"]


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and standard error of one command line."""
    try:
        code = main.main(argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, capsys.readouterr().err


def words_of(script: Path, tmp_path: Path, *extra: str) -> list[str]:
    """The arguments that a shell script gives to main.py, caught by a stand-in for Python."""
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\nshift\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    environment = {"PYTHON": str(stub), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", str(script), *extra], cwd=ROOT, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.splitlines()


def error_line(err: str) -> str:
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1, err
    return lines[0]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)
