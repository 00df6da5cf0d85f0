"""dataset:NAME[:N], sample:N and --just_precompute: the original README's other ways of getting latents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_tools import error_line, pixels, run
from PIL import Image

import main
from diffstyle.configs.paths_config import DATASET_PATHS
from diffstyle.errors import UsageError
from diffstyle.pipeline import draw, transfer
from diffstyle.runs.sources import Source, initial_noise, parse_source
from diffstyle.settings import Settings
from golden_models import GOLDEN, golden_model


@pytest.mark.parametrize(
    ("spec", "source"),
    [
        ("dataset:AFHQ", Source("dataset", "AFHQ")),
        ("dataset:AFHQ:7", Source("dataset", "AFHQ", 7)),
        ("sample:3", Source("sample", count=3)),
        ("some/folder", None),
        ("datasets", None),
        ("sample", None),
    ],
)
def test_parse(spec: str, source: Source | None) -> None:
    assert parse_source(spec, "--content_dir") == source


@pytest.mark.parametrize("spec", ["sample:0", "sample:many", "sample:", "dataset:", "dataset:A:0", "dataset:A:b:3", "sample:-1"])
def test_malformed(spec: str) -> None:
    with pytest.raises(UsageError, match="write dataset:NAME"):
        parse_source(spec, "--content_dir")


def test_dataset(
    base: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    shutil.copy(GOLDEN / "images/contents/content_a.png", tree / "b.png")
    shutil.copy(GOLDEN / "images/contents/content_b.png", tree / "deep" / "a.png")
    (tree / "list.txt").write_text("not a picture")
    monkeypatch.setitem(DATASET_PATHS, "MINE", str(tree))
    assert main.main([*base, "--content_dir", "dataset:MINE:1", "--dry_run"]) == 0
    assert "2 pairs" in capsys.readouterr().out
    assert main.main([*base, "--content_dir", "dataset:MINE", "--dry_run"]) == 0
    assert "4 pairs" in capsys.readouterr().out
    for spec, words in (("dataset:MINNE", "not in DATASET_PATHS"), ("dataset:AFHQ", "is no folder")):
        code, err = run([*base, "--content_dir", spec], capsys)
        assert code == 2 and words in error_line(err)


def test_samples_regenerate_themselves(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A drawn picture's latents are those of its chain: at gamma 0 the style comes out as drawn, and nothing is inverted."""
    argv = [*base, "--content_dir", "sample:2", "--style_dir", "sample:2", "--gamma", "0"]
    assert main.main(argv) == 0
    out = tmp_path / "out"
    drawn = sorted((out / "samples").glob("*.png"))
    assert [p.name for p in drawn] == ["sample_1234_0000.png", "sample_1234_0001.png"]
    first = drawn[0].read_bytes()
    for style in drawn:
        result = pixels(out / f"result_content_sample_1234_0000_style_{style.name}")
        assert (np.abs(result - pixels(style)) <= 1).mean() > 0.99
    capsys.readouterr()
    assert main.main([*argv, "--content_dir", "sample:3"]) == 0  # more of them leaves the first ones alone
    assert drawn[0].read_bytes() == first and len(list((out / "samples").glob("*.png"))) == 3
    code, err = run([*argv, "--no_cache"], capsys)
    assert code == 2 and "needs the cache" in error_line(err)


def test_chain_is_the_generation(capsys: pytest.CaptureFixture[str]) -> None:
    """``draw`` walks exactly as a transfer at gamma 0 does, and keeps an h for every timestep that is read."""
    model, s = golden_model("ddpm"), Settings(n_gen=10, n_inv=7, content_replace_step=10, gamma=0.0)
    x_T = torch.stack([initial_noise(0, i, 32) for i in range(2)])
    x0, drawn = draw(model, x_T, s, ["a", "b"])
    assert sorted(drawn.h) == s.kept() and next(iter(drawn.h.values())).shape == (2, 64, 8, 8)
    again = transfer(model, drawn, drawn, s, lambda: torch.zeros(1))
    torch.testing.assert_close(x0, again, rtol=1e-3, atol=1e-3 * float(again.abs().max()))


def test_just_precompute(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    argv = [*base, "--content_dir", str(folder), "--just_precompute", "--batch_size", "5"]
    assert main.main(argv) == 0
    assert "14 of 14 pictures are in" in capsys.readouterr().out  # twelve contents, two styles
    assert not (tmp_path / "out").exists()


def test_precomputed_latents_are_used(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*base, "--just_precompute"]) == 0
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    assert len(files) == 8  # x_T and h of two contents and two styles
    assert main.main(base) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == files
    assert json.loads((tmp_path / "out/run.json").read_text())["done"] == 4
