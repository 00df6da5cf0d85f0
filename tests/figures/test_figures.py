"""Every figure script on a small random network: the files, and numbers that must come out whatever the weights are."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import h_operations
import numpy as np
import pytest
import torch
import yaml
from correlation import correlations
from PIL import Image

import common
from golden_models import ARCHITECTURES, GOLDEN

FIGURES = Path(common.__file__).parent


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    config = tmp_path / "tiny.yml"
    model = {"type": "ddpm", **ARCHITECTURES["ddpm"]}
    config.write_text(yaml.safe_dump({"data": {"dataset": "CelebA_HQ", "image_size": 32}, "model": model}))
    return [
        "--config", str(config), "--model_path", str(GOLDEN / "ddpm/model.pt"), "--device", "cpu",
        "--content_dir", str(GOLDEN / "images/contents"), "--style_dir", str(GOLDEN / "images/styles"),
        "--n_contents", "2", "--n_styles", "2", "--n_inv", "3", "--n_gen", "3", "--content_replace_step", "3",
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip


def make(name: str, argv: list[str]) -> list[dict[str, str]]:
    """Run a figure and see that its three files are there; the rows of its CSV."""
    assert common.run(importlib.import_module(f"figures.{name}").main, argv) == 0
    out = Path(argv[argv.index("--out") + 1])
    with Image.open(out / f"{name}.png") as sheet:
        assert min(sheet.size) > 100
    assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    return list(csv.DictReader((out / f"{name}.csv").open()))


def column(rows: list[dict[str, str]], key: str, **where: str) -> list[float]:
    return [float(row[key]) for row in rows if all(row[k] == v for k, v in where.items())]


def test_gamma(base: list[str]) -> None:
    rows = make("gamma", [*base, "--values", "0,1"])
    assert len(rows) == 2 * 2 * 2
    untouched = column(rows, "edges_to_content", variant="γ = 0")
    assert untouched != column(rows, "edges_to_content", variant="γ = 1")
    # at gamma 0 the content has no say: the same picture whatever the content
    styles = [column(rows, "histogram_to_style", variant="γ = 0", content=c) for c in "01"]
    assert styles[0] == pytest.approx(styles[1], abs=1e-6)


def test_omega_t_edit_and_grids(base: list[str]) -> None:
    omega = make("omega", [*base, "--values", "0,0.3"])
    assert {row["variant"] for row in omega} == {"not calibrated", "ω = 0.3"}
    t_edit = make("t_edit", [*base, "--values", "1000,0"])
    assert len(t_edit) == 8
    never = [column(t_edit, "gram_to_style", variant="t_edit = 1000", content=c) for c in "01"]
    assert never[0] == pytest.approx(never[1], rel=1e-5)  # nothing is injected
    for name in ("style_mixing", "art"):
        assert len(make(name, base)) == 4


def test_local_mixing_changes_what_the_mask_covers(base: list[str]) -> None:
    rows = make("local_mixing", base)
    assert {row["change_outside"] for row in rows if row["variant"] == "everywhere"} == {"n/a"}
    assert all(float(row["change_inside"]) > 0 for row in rows)


def test_h_operations_print_the_order_that_comes_out(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = make("h_operations", base)
    means = {b: np.mean(column(rows, "edges_to_content", variant=b)) for b in h_operations.BLENDS}
    assert f"edges to content {' < '.join(sorted(means, key=lambda b: means[b]))};" in capsys.readouterr().out


def test_correlation(base: list[str]) -> None:
    rows = make("correlation", [*base, "--timesteps", "2", "--draws", "3"])
    assert [row["t"] for row in rows] == ["0", "999"]
    assert all(-1 <= float(row["same picture"]) <= 1 for row in rows)


def test_correlations_of_known_maps() -> None:
    h = torch.eye(4) * torch.tensor([1.0, 2.0, 3.0, 4.0])  # orthogonal: the norm of a sum is known
    skips, picture = torch.tensor([10.0, 20.0, 30.0, 40.0]), torch.arange(4)
    same, different, sums = correlations(h, skips, picture)
    assert same == pytest.approx(1)
    assert different == pytest.approx(-1 / 3)  # all ordered pairs of four distinct values
    i, j = np.nonzero(~np.eye(4, dtype=bool))
    assert sums == pytest.approx(np.corrcoef(np.hypot(i + 1, j + 1), j + 1)[0, 1])


def test_absent_checkpoints_are_named_as_absent(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    present = make("all_configs", base)
    assert {row["variant"] for row in present} == {"tiny"}
    rows = make("all_configs", [*base[:2], *base[4:]])  # no --model_path
    assert len(rows) == 1 and "checkpoint" in rows[0]["reason"]
    assert "absent" in capsys.readouterr().out


def test_errors_are_one_line(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    import gamma

    assert common.run(gamma.main, [*base, "--values", "a"]) == 2
    assert common.run(gamma.main, [*base, "--values", "2"]) == 2
    assert common.run(gamma.main, [*base[:2], "--model_path", "/nowhere.pt", *base[4:]]) in (1, 2)
    assert len(capsys.readouterr().err.strip().splitlines()) == 3


START_EACH = """
import runpy, sys, torch
clean = list(sys.path)
for script in sys.argv[1:]:
    sys.path[:] = clean
    for name in [n for n in sys.modules if n.split(".")[0] in ("diffstyle", "models", "figures")]:
        del sys.modules[name]
    runpy.run_path(script)
"""


@pytest.mark.slow
def test_scripts_start_from_anywhere(tmp_path: Path) -> None:
    """As all.sh starts them, without pytest's own path, which finds every import. One interpreter: torch loads slowly."""
    scripts = sorted(str(path) for path in FIGURES.glob("*.py") if path.stem not in ("common", "grid"))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", START_EACH, *scripts]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert len(scripts) == 9 and done.returncode == 0, done.stderr


def test_a_checkpoint_needs_its_config(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Which of all configs would it belong to?"""
    import all_configs

    assert common.run(all_configs.main, base[2:]) == 2
    assert "--model_path" in capsys.readouterr().err
