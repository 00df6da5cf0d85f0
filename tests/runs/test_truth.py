"""What a run says of its results is true: their digests, that they are whole, that they are there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_tools import pixels, run

import main
from batch_tools import FEW_STEPS, Tiny, make_tiny, paint, pictures, results
from diffstyle import images, pipeline
from diffstyle.images import read_record
from diffstyle.runs import job

NAME = "content_c00_style_s00.png"
RESULT = f"result_{NAME}"


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    tiny = make_tiny(tmp_path)
    tiny.extra = ["--batch_size", "1", *FEW_STEPS]
    return tiny


def report(tiny: Tiny) -> dict[str, Any]:
    return json.loads((tiny.out / "run.json").read_text())  # type: ignore[no-any-return]


def during(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something while the run makes its ``number``-th pair."""
    calls: list[int] = []

    def transfer(*args: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == number:
            act()
        return pipeline.transfer(*args)

    monkeypatch.setattr(job, "transfer", transfer)


# ---- inputs that change ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before inversion", "after inversion"])
def test_changed_input_fails_its_own_pairs(
    tiny: Tiny, moment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(tiny.argv()) == 0
    whole = pictures(tiny.out)
    photo = tiny.root / "s" / "s01.png"
    kept = photo.read_bytes()
    shutil.rmtree(tiny.out)
    if moment == "before inversion":
        shutil.rmtree(tiny.root / "cache")
    real = job.Job.__init__

    def late(self: Any, *args: Any) -> None:  # the plan is made, the work not begun
        paint(photo, 999)
        real(self, *args)

    monkeypatch.setattr(job.Job, "__init__", late)
    code, err = run(tiny.argv(), capsys)
    assert code == 1 and "s01.png: changed during the run" in err
    assert len(results(tiny.out)) == 4 and not [name for name in results(tiny.out) if "s01" in name]
    monkeypatch.undo()
    photo.write_bytes(kept)
    assert main.main(tiny.argv()) == 0
    assert pictures(tiny.out) == whole, "the cache holds nothing of the other picture under this one's digest"


def test_changed_mask_fails_what_follows(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    mask = paint(tiny.root / "mask.png", 7)
    tiny.extra += ["--mask", str(mask)]
    during(monkeypatch, 3, lambda: paint(mask, 8))
    code, err = run(tiny.argv(), capsys)
    assert code == 1 and "mask.png: changed during the run" in err and len(results(tiny.out)) == 2
    monkeypatch.undo()
    assert main.main(tiny.argv()) == 0 and (report(tiny)["kept"], report(tiny)["done"]) == (0, 6)


def test_a_mask_is_looked_at_first(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    (tiny.root / "mask.png").write_text("no picture")
    cases = [("mask.png", 1, "not a readable picture"), ("none.png", 2, "neither a picture nor"), ("1,2,3,4", 2, "a rectangle")]
    for spec, code, words in cases:
        for more in ([], ["--dry_run"]):
            got, err = run(tiny.argv("--mask", str(tiny.root / spec) if "png" in spec else spec, *more), capsys)
            assert got == code and words in err and "--mask" in err
    assert not (tiny.root / "cache").exists()


# ---- damaged results ---------------------------------------------------------------------------------------------


def zero(data: bytearray) -> None:
    """A block that a power cut left unwritten."""
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)


def without_pixels(data: bytearray) -> None:
    """Every chunk is whole, one is missing."""
    at = data.index(b"IDAT") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    del data[at : at + 12 + length]


def flip(position: float) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[int(position * (len(data) - 1))] ^= 0x10

    return change


DAMAGE: dict[str, Callable[[bytearray], None]] = {
    **{f"a bit at {p:g}": flip(p) for p in (0.0, 0.02, 0.3, 0.6, 0.9, 0.99, 1.0)},
    "zeros": zero,
    "all zeros": lambda data: data.__setitem__(slice(None), bytes(len(data))),
    "no pixels": without_pixels,
    "cut": lambda data: data.__delitem__(slice(len(data) // 2, None)),
    "cut in the end": lambda data: data.__delitem__(slice(-3, None)),
}


@pytest.mark.parametrize("name", [RESULT, NAME])
@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_results_are_made_again(case: str, name: str, tiny: Tiny) -> None:
    assert main.main(tiny.argv()) == 0
    before = pictures(tiny.out)
    data = bytearray((tiny.out / name).read_bytes())
    DAMAGE[case](data)
    (tiny.out / name).write_bytes(data)
    if name == RESULT:  # it is not laid into the grid either
        assert main.main(tiny.argv("--grid_only")) == 0 and len(report(tiny)["failed"]) == 1
        assert (pixels(tiny.out / "grid.png")[10:18, 10:18] == 128).all()
    assert main.main(tiny.argv()) == 0
    assert (report(tiny)["kept"], report(tiny)["done"]) == (5, 1) and pictures(tiny.out) == before


def test_records_hold_what_json_holds(tmp_path: Path) -> None:
    """Whatever Pillow writes is read back; what it would decode without noticing damage is not."""
    from PIL import Image

    record = {"name": "Ünïcödé 漢字 \x00 \n", "values": [1, 0.1, None, True], "long": "x" * 100_000}
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8))
    images.save_png(tmp_path / "a.png", image, record)
    assert images.read_record(tmp_path / "a.png") == record
    images.save_png(tmp_path / "b.png", image)
    assert images.read_record(tmp_path / "b.png") is None and images.read_result(tmp_path / "b.png") is None
    result = images.read_result(tmp_path / "a.png")
    assert result and np.array_equal(np.asarray(result), np.asarray(image))


# ---- results that vanish, or cannot be written -------------------------------------------------------------------


def test_done_is_what_is_there_at_the_end(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(tiny.argv("--just_precompute")) == 0

    def vandal() -> None:
        for name in (RESULT, "content_c00_style_s01.png"):
            (tiny.out / name).unlink()

    during(monkeypatch, 4, vandal)
    code, err = run(tiny.argv(), capsys)
    assert code == 1 and err.count("failed: ") == 2 and "vanished during the run" in err
    assert report(tiny)["done"] == 4 and report(tiny)["failed"].keys() == {NAME, "content_c00_style_s01.png"}
    monkeypatch.undo()
    during(monkeypatch, 1, lambda: (tiny.out / RESULT.replace("s00", "s02")).unlink())  # kept from before
    code, err = run(tiny.argv(), capsys)
    assert code == 1 and report(tiny)["done"] == 2 and report(tiny)["kept"] == 3
    monkeypatch.undo()
    assert main.main(tiny.argv()) == 0 and report(tiny)["kept"] == 5


def test_save_dir_gone_during_the_run(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    during(monkeypatch, 4, lambda: shutil.rmtree(tiny.out))
    code, _ = run(tiny.argv(), capsys)
    assert code == 1 and report(tiny)["done"] == len(results(tiny.out)) == 3


@pytest.mark.parametrize("layout", ["flat", "by-style"])
def test_an_unwritable_name_fails_its_own_pairs(layout: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.extra += ["--layout", layout]
    tiny.out.mkdir()
    if layout == "flat":
        (tiny.out / RESULT).mkdir()
        (tiny.out / "content_c01_style_s02.png").mkdir()
    else:
        (tiny.out / "style_s00").write_text("a file where the layout needs a folder")
    code, err = run(tiny.argv(), capsys)
    lines = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert code == 1 and len(lines) == 2 and all("cannot be written" in line for line in lines)
    assert report(tiny)["done"] == 4 and (tiny.out / "grid.png").is_file()


def test_a_cache_file_that_cannot_be_written_fails_its_own_pairs(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(tiny.argv()) == 0
    shutil.rmtree(tiny.out)
    path = next((tiny.root / "cache").glob("*.xT.*"))
    path.unlink()
    path.mkdir()
    code, err = run(tiny.argv(), capsys)
    assert code == 1 and err.count("failed: ") == 1 and "cannot be written (a folder has that name)" in err
    assert report(tiny)["done"] == 4


@pytest.mark.parametrize("what", ["cache", "out"])
def test_a_full_disk_ends_the_run(
    what: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import builtins

    real = builtins.open

    def full(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        opened = real(file, mode, *args, **more)
        return real("/dev/full", "wb") if mode == "wb" and Path(file).parent.name == what else opened

    monkeypatch.setattr(builtins, "open", full)
    code, err = run(tiny.argv(), capsys)
    monkeypatch.undo()
    lines = [line for line in err.splitlines() if "the disk is full" in line]
    assert code == 1 and lines == [line for line in err.splitlines() if line.startswith("error: ")] and len(lines) == 1
    assert not list((tiny.root / what).glob(".*"))


def test_another_grid_is_another_result(tiny: Tiny) -> None:
    """Where the solvers ask the model is read beside its config; ddim asks everywhere, and its records say nothing of it."""
    assert main.main(tiny.argv("--solver", "abm3")) == 0 and report(tiny)["done"] == 6
    (tiny.root / "grids").mkdir()
    (tiny.root / "grids/tiny.json").write_text('{"t": [-1, 300, 999], "share": [0, 0.2, 1]}')
    assert main.main(tiny.argv("--solver", "abm3")) == 0 and report(tiny)["done"] == 6
    assert read_record(tiny.out / RESULT)["model"]["grid"] == {"ts": [-1, 300, 999], "shares": [0, 0.2, 1]}  # type: ignore[index]
    assert main.main(tiny.argv("--solver", "abm3")) == 0 and report(tiny)["kept"] == 6
    assert main.main(tiny.argv()) == 0 and "grid" not in read_record(tiny.out / RESULT)["model"]  # type: ignore[index]
    (tiny.root / "grids/tiny.json").unlink()
    assert main.main(tiny.argv()) == 0 and report(tiny)["kept"] == 6
