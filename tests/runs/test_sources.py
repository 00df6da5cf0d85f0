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
from batch_tools import pictures
from diffstyle.configs.paths_config import DATASET_PATHS
from diffstyle.errors import UsageError
from diffstyle.images import read_record
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


def test_samples_do_not_depend_on_history(base: list[str], tmp_path: Path) -> None:
    """Whatever was drawn or cached before, a command line's files are those that an empty folder gives."""
    argv = [*base, "--content_dir", "sample:2", "--gamma", "0.5", "--batch_size", "1"]
    fresh = {}
    for n_gen in ("6", "8"):
        out = tmp_path / f"fresh{n_gen}"
        assert main.main([*argv, "--n_gen_step", n_gen, "--save_dir", str(out), "--cache_dir", str(tmp_path / f"c{n_gen}")]) == 0
        fresh[n_gen] = pictures(out)
    assert fresh["6"]["samples/sample_1234_0000.png"] != fresh["8"]["samples/sample_1234_0000.png"]
    for n_gen in ("6", "8", "6"):
        assert main.main([*argv, "--n_gen_step", n_gen]) == 0
        assert pictures(tmp_path / "out") == fresh[n_gen]


def test_a_drawn_picture_as_file_is_an_ordinary_input(base: list[str], tmp_path: Path) -> None:
    assert main.main([*base, "--content_dir", "sample:1", "--batch_size", "1"]) == 0
    drawn = tmp_path / "out/samples/sample_1234_0000.png"
    made = []
    for cache in ("cache", "empty"):  # the one that knows its drawing, and one that does not
        out = tmp_path / f"file_{cache}"
        more = ["--content_dir", str(drawn), "--save_dir", str(out), "--cache_dir", str(tmp_path / cache), "--batch_size", "1"]
        assert main.main([*base, *more]) == 0
        made.append(pictures(out))
    assert made[0] == made[1]
    name = "result_content_sample_1234_0000_style_style_a.png"
    as_sample, as_file = (read_record(folder / name) for folder in (tmp_path / "out", tmp_path / "file_cache"))
    assert as_sample and as_file and as_sample["content"] != as_file["content"]


@pytest.mark.parametrize("spoil", ["damaged", "another", "missing", "cache lost"])
def test_samples_are_drawn_again(spoil: str, base: list[str], tmp_path: Path) -> None:
    argv = [*base, "--content_dir", "sample:2", "--batch_size", "1"]
    assert main.main(argv) == 0
    whole = pictures(tmp_path / "out")
    drawn = tmp_path / "out/samples/sample_1234_0001.png"
    if spoil == "damaged":
        data = bytearray(drawn.read_bytes())
        data[len(data) // 2] ^= 1
        drawn.write_bytes(data)
    elif spoil == "another":
        shutil.copy(GOLDEN / "images/contents/content_a.png", drawn)
    elif spoil == "missing":
        drawn.unlink()
    else:
        shutil.rmtree(tmp_path / "cache")
    if spoil != "missing":  # then it is drawn although its results are there
        for path in (tmp_path / "out").glob("*.png"):
            path.unlink()
    assert main.main(argv) == 0 and pictures(tmp_path / "out") == whole


def test_planning_draws_nothing(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*base, "--content_dir", "sample:3", "--dry_run", "--model_path", "nowhere.pt"]) == 0
    # Three drawn in 6 evaluations each, two styles inverted in 5, six pairs of 6.
    assert "6 pairs, 64 network evaluations" in capsys.readouterr().out
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_just_precompute_draws(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*base, "--content_dir", "sample:2", "--just_precompute"]) == 0
    assert "4 of 4 pictures are in" in capsys.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    assert len(before) == 8 and len(list((tmp_path / "out/samples").iterdir())) == 2
    assert main.main([*base, "--content_dir", "sample:2"]) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == before
    other = [*base, "--content_dir", str(tmp_path / "out/samples"), "--style_dir", "sample:1", "--n_gen_step", "7"]
    code, err = run([*other, "--just_precompute"], capsys)
    assert code == 2 and "would write over it" in error_line(err)


def test_a_sweep_draws_its_samples_once(base: list[str], tmp_path: Path) -> None:
    sweep = ["--n_inv", "6", "--sweep", "n_inv=5,6", "--sweep", "n_gen=6,7"]
    argv = [*base, "--content_dir", "sample:1", "--batch_size", "1", *sweep]
    assert main.main(argv) == 0
    assert len(list((tmp_path / "out/samples").iterdir())) == 1
    contents = {str((read_record(path) or {})["content"]["sha256"]) for path in (tmp_path / "out").rglob("result_*style_a.png")}
    assert len(contents) == 1 and contents.pop().startswith("sample-")


def test_large_seeds_draw() -> None:
    assert not torch.equal(initial_noise(2**63 - 1, 0, 4), initial_noise(2**63 - 1, 1, 4))


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
