"""benchmarks/gpu.py and scripts/test_gpu.sh on a machine that has no card."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import golden
import gpu
import precision
import pytest
import speed
import torch

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_without_a_card(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(precision.WALKS, "50/50", {"n_inv": 6, "n_gen": 6})
    monkeypatch.setattr(gpu, "CONVOLUTIONS", speed.CONVOLUTIONS[-1:])  # one says as much here as all
    argv = ["--device", "cpu", "--quick", "--precisions", "auto", "bf16"]
    assert gpu.main(argv) == 0
    said = capsys.readouterr().out
    assert said.startswith("no card (cpu), PyTorch ")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("| ")]
    evaluations = [row for row in rows if len(row) == 8][1:]
    assert [row[:4] for row in evaluations] == [
        ["avatars", precision, "plain", batch] for precision in ("auto (fp32)", "bf16 (bf16)") for batch in ("1", "2")
    ]
    assert all(float(row[4]) > 0 and float(row[5]) > 0 and re.fullmatch(r"\d+% of [\d.e-]+", row[6]) for row in evaluations)
    assert [row[:3] for row in rows if len(row) == 4][1:] == [["avatars", p, "50/50"] for p in ("auto (fp32)", "bf16 (bf16)")]
    exact, auto, bf16 = (float(row[1]) for row in [row for row in rows if len(row) == 3][1:])
    assert exact == auto > 200 and 20 < bf16 < 100  # the same computation twice, and another
    found = [row for row in rows if len(row) == 5][1:]
    assert [tuple(row[:4]) for row in found] == [(p, "adm", "inv50_gen50", "1") for p in ("fp32", "auto", "bf16")]
    exact, auto, bf16 = (float(row[4]) for row in found)
    assert exact == auto < 1e-4 and bf16 > 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_official_runs_on_a_card() -> None:
    """In fp32; the official runs themselves are up to 9e-5 from their walks in fp64."""
    assert all(error < 5e-4 for _, _, _, error in golden.parity("cuda", "fp32", few=False))


def test_no_card_is_an_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().err.startswith("error: --device cuda: no CUDA GPU is visible")


def test_the_gpu_tests_do_not_pass_by_being_skipped(tmp_path: Path) -> None:
    """With a stand-in for the environment's interpreter that sees no card."""
    for name in ("scripts/test_gpu.sh", "requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "scripts/environment.sh").write_text("environment() { PYTHON=false; }\n")
    done = subprocess.run(["bash", str(tmp_path / "scripts/test_gpu.sh")], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: no CUDA GPU is visible to PyTorch here")
