"""Runs of many pairs: lists, layouts, resume, interruption, failures, memory, shares."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import main
from batch_tools import Tiny, losing_latents, make_tiny, paint, pictures, results
from diffstyle import images, pipeline
from diffstyle.errors import WorkError
from diffstyle.files import temporary_name, write_whole
from diffstyle.noise import OneStream
from diffstyle.pipeline import Inverted
from diffstyle.runs import batching, inversions, job
from diffstyle.runs.batching import Batches
from diffstyle.runs.config import RunConfig
from diffstyle.runs.grid import write_grid
from diffstyle.runs.inputs import Picture
from diffstyle.runs.plan import Pair, Plan
from diffstyle.runs.workers import Share
from diffstyle.settings import Settings


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return make_tiny(tmp_path)


def mtimes(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.rglob("*.png") if p.name != "grid.png"}


def report(tiny: Tiny) -> dict[str, Any]:
    return json.loads((tiny.out / "run.json").read_text())  # type: ignore[no-any-return]


def write_list(tiny: Tiny, text: str) -> str:
    path = tiny.root / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


# ---- lists -------------------------------------------------------------------------------------------------------


def test_list_of_pairs(tiny: Tiny) -> None:
    assert main.main(tiny.argv()) == 0
    whole = results(tiny.out)
    listing = write_list(
        tiny, "style,content,gamma,seed,name\ns01.png,c01.png,,,\ns01.png,c01.png,0.1,,\n\ns02.png,c00.png,0.1,7,mine\n"
    )
    tiny.extra = ["--save_dir", str(tiny.root / "list"), "--pairs", listing]
    assert main.main(tiny.argv()) == 0
    some = results(tiny.root / "list")
    assert list(some) == ["result_content_c01_style_s01.png", "result_content_c01_style_s01_gamma0.1.png", "result_mine.png"]
    same = some["result_content_c01_style_s01.png"] == whole["result_content_c01_style_s01.png"]
    assert same.all(), "a pair alone is the pair among others"
    assert (some["result_content_c01_style_s01_gamma0.1.png"] != whole["result_content_c01_style_s01.png"]).any()
    record = images.read_record(tiny.root / "list" / "result_mine.png")
    assert record and record["settings"]["gamma"] == 0.1 and record["settings"]["seed"] == 7
    listed = json.loads((tiny.root / "list" / "run.json").read_text())["results"]
    assert [r.get("changes") for r in listed] == [None, {"gamma": 0.1}, {"gamma": 0.1, "seed": 7}]
    # No product, so the grid is a sheet of stacks: style, content, result below one another.
    assert Image.open(tiny.root / "list" / "grid.png").size == (3 * 9 + 1, 3 * 9 + 1)


def test_rows_with_their_own_seed_share_a_batch(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = pipeline.transfer

    def spy(model: Any, content: Inverted, *rest: Any) -> torch.Tensor:
        sizes.append(len(content))
        return real(model, content, *rest)

    monkeypatch.setattr(job, "transfer", spy)
    rows = "".join(f"c00.png,s0{i}.png,{g},{seed}\n" for i, g, seed in [(0, 0.2, 1), (1, 0.3, 1), (2, 0.2, 2), (0, 0.3, 3)])
    listing = write_list(tiny, "content,style,gamma,seed\n" + rows)
    assert main.main(tiny.argv("--pairs", listing, "--batch_size", "4", "--t_boost", "300")) == 0
    assert sizes == [2, 2]


def test_equal_rows_are_done_once(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    listing = write_list(tiny, "content,style\nc00.png,s00.png\nc00.png,s00.png\n")
    assert main.main(tiny.argv("--pairs", listing, "--verbose", "info")) == 0
    assert "the same as line 2" in capsys.readouterr().err and len(results(tiny.out)) == 1


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("by-style", "style_s02/result_content_c01_style_s02.png"), ("by-content", "content_c01/result_content_c01_style_s02.png")],
)
def test_layouts(tiny: Tiny, layout: str, expected: str) -> None:
    assert main.main(tiny.argv("--layout", layout)) == 0
    assert expected in results(tiny.out) and len(results(tiny.out)) == 6
    assert all((tiny.out / r["stack"]).is_file() and (tiny.out / r["result"]).is_file() for r in report(tiny)["results"])
    before = mtimes(tiny.out)
    assert main.main(tiny.argv("--layout", layout)) == 0 and mtimes(tiny.out) == before


def test_recursive_inputs_never_collide(tiny: Tiny) -> None:
    for i, name in enumerate(["a/x.png", "b/x.png", "b/x.jpg", "X.png", "b/c/x.png", "a_x.png"]):
        paint(tiny.root / "deep" / name, 40 + i)
    (tiny.root / "deep" / "b" / "loop").symlink_to(tiny.root / "deep")
    (tiny.root / "deep" / "dead.png").symlink_to(tiny.root / "nowhere.png")
    (tiny.root / "deep" / "self.png").symlink_to(tiny.root / "deep" / "self.png")
    for side in ("--content_dir", "--style_dir"):
        tiny.extra += [side, str(tiny.root / "deep"), "--recursive"]
    assert main.main(tiny.argv()) == 0
    assert len(results(tiny.out)) == 36 and len({name.casefold() for name in results(tiny.out)}) == 36
    assert {r["content"] for r in report(tiny)["results"]} >= {"X.png", "a_x", "x.jpg", "b_c_x.png", "b_x.png"}


def test_own_output_is_no_input(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.extra = ["--content_dir", str(tiny.root), "--recursive"]
    assert main.main(tiny.argv()) == 0
    before = pictures(tiny.out)
    assert main.main(tiny.argv()) == 0 and pictures(tiny.out) == before
    assert main.main(tiny.argv("--save_dir", str(tiny.root))) == 2
    assert "results would become inputs" in capsys.readouterr().err


def test_ambiguous_pair_names(tiny: Tiny) -> None:
    """content a_style_b + style c, and content a + style b_style_c, would both be content_a_style_b_style_c."""
    for i, (side, name) in enumerate([("c2", "a_style_b"), ("c2", "a"), ("s2", "c"), ("s2", "b_style_c")]):
        paint(tiny.root / side / f"{name}.png", i)
    tiny.extra = ["--content_dir", str(tiny.root / "c2"), "--style_dir", str(tiny.root / "s2")]
    assert main.main(tiny.argv()) == 0
    assert len(results(tiny.out)) == 4


# ---- resume ------------------------------------------------------------------------------------------------------


def test_resume_by_file_and_settings(tiny: Tiny) -> None:
    assert main.main(tiny.argv()) == 0
    before, whole = mtimes(tiny.out), pictures(tiny.out)
    gone = tiny.out / "result_content_c00_style_s01.png"
    gone.unlink()
    cut = tiny.out / "result_content_c01_style_s02.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    (tiny.out / "content_c01_style_s00.png").write_bytes(b"not a picture")
    assert main.main(tiny.argv()) == 0
    after = mtimes(tiny.out)
    redone = {name.removeprefix("result_") for name in after if after[name] != before.get(name)}
    assert redone == {f"content_{pair}.png" for pair in ("c00_style_s01", "c01_style_s02", "c01_style_s00")}
    assert pictures(tiny.out) == whole
    assert report(tiny)["done"] == 3 and report(tiny)["kept"] == 3

    assert main.main(tiny.argv("--gamma", "0.41")) == 0 and report(tiny)["done"] == 6
    assert main.main(tiny.argv("--gamma", "0.41")) == 0 and report(tiny)["kept"] == 6
    assert main.main(tiny.argv("--gamma", "0.41", "--overwrite")) == 0 and report(tiny)["done"] == 6


def test_changed_input_is_redone(tiny: Tiny) -> None:
    assert main.main(tiny.argv()) == 0
    paint(tiny.root / "s" / "s01.png", 999)
    assert main.main(tiny.argv()) == 0
    assert (report(tiny)["done"], report(tiny)["kept"]) == (2, 4)


def test_leftovers_of_dead_processes_go(tiny: Tiny) -> None:
    tiny.out.mkdir()
    host = temporary_name().split(".")[1]
    dead, alive = tiny.out / f".{host}.999999999.ab.tmp", tiny.out / f".{host}.{os.getppid()}.ab.tmp"
    other = tiny.out / ".elsewher.999999999.ab.tmp"
    folder = tiny.out / f".{host}.999999998.ab.tmp"
    folder.mkdir()
    for path in (dead, alive, other, folder / "x.pt"):
        path.write_bytes(b"half")
    assert main.main(tiny.argv()) == 0
    assert not dead.exists() and not folder.exists() and alive.exists() and other.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals(tiny: Tiny, number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real, calls = write_whole, []

    def shaken(path: Path, write: Any) -> None:
        calls.append(path)
        if len(calls) == 4:  # the second pair's bare result, half written

            def cut(f: Any) -> None:
                f.write(b"half")
                f.flush()
                os.kill(os.getpid(), number)

            return real(path, cut)
        return real(path, write)

    assert main.main(tiny.argv("--just_precompute")) == 0
    monkeypatch.setattr(images, "write_whole", shaken)
    before = signal.getsignal(number)
    assert main.main(tiny.argv("--batch_size", "1")) == code
    assert signal.getsignal(number) is before
    err = capsys.readouterr().err
    assert "interrupted: 1 of 6 pairs are finished" in err and "goes on from there" in err and "Traceback" not in err
    assert not [p for p in tiny.out.iterdir() if p.suffix == ".tmp"] and len(results(tiny.out)) == 1
    monkeypatch.undo()
    assert main.main(tiny.argv("--batch_size", "1")) == 0 and report(tiny)["kept"] == 1


def test_poisoned_inputs_fail_their_own_pairs(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    (tiny.root / "c" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"rubbish")
    whole = (tiny.root / "s" / "s00.png").read_bytes()
    (tiny.root / "s" / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert main.main(tiny.argv()) == 1
    err = capsys.readouterr().err
    assert err.count("failed: ") == 2 and "bad.png" in err and "cut.png" in err and "Traceback" not in err
    assert len(results(tiny.out)) == 6 and len(report(tiny)["failed"]) == 2
    assert Image.open(tiny.out / "grid.png").size == (5 * 9 + 1, 4 * 9 + 1)
    assert main.main(tiny.argv()) == 1 and report(tiny)["kept"] == 6
    (tiny.root / "c" / "bad.png").unlink()
    (tiny.root / "s" / "cut.png").unlink()
    assert main.main(tiny.argv()) == 0


def test_infinite_results_fail_their_own_pairs(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pipeline.transfer

    def spoilt(*args: Any) -> torch.Tensor:
        x = real(*args).clone()
        x[0, 0, 0, 0] = torch.inf
        return x

    monkeypatch.setattr(job, "transfer", spoilt)
    assert main.main(tiny.argv("--batch_size", "3")) == 1
    assert len(report(tiny)["failed"]) == 2 and len(results(tiny.out)) == 4


def test_latents_lost_during_the_run_are_made_anew(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main.main(tiny.argv("--batch_size", "1")) == 0
    whole = pictures(tiny.out)
    monkeypatch.setattr(job, "transfer", losing_latents(tiny, pipeline.transfer))
    assert main.main(tiny.argv("--overwrite", "--batch_size", "1")) == 0
    assert pictures(tiny.out) == whole


def test_not_finite_inversion_is_said(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = pipeline.invert

    def spoilt(*args: Any) -> Any:
        found = real(*args)
        return found if found.h else replace(found, x_T=found.x_T * torch.nan)

    monkeypatch.setattr(inversions, "invert", spoilt)
    assert main.main(tiny.argv()) == 1
    assert "not finite" in capsys.readouterr().err and not results(tiny.out)


def test_without_cache_nothing_stays(tiny: Tiny) -> None:
    assert main.main(tiny.argv("--no_cache")) == 0
    assert not (tiny.root / "cache").exists()
    assert sorted(p.suffix for p in tiny.out.iterdir()) == [".json"] + [".png"] * 13


# ---- memory ------------------------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_batch(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--t_boost", "600", "--noise", "official"]  # draws must not be lost with the batch that failed
    assert main.main(tiny.argv("--batch_size", "1", *options)) == 0
    alone = results(tiny.out)
    real = pipeline.transfer

    def tight(model: Any, content: Inverted, style: Inverted, settings: Settings, noise: Any, *rest: Any) -> torch.Tensor:
        if len(content) > 1:
            noise()
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return real(model, content, style, settings, noise, *rest)

    monkeypatch.setattr(job, "transfer", tight)
    assert main.main(tiny.argv("--batch_size", "4", "--overwrite", *options)) == 0
    err = capsys.readouterr().err
    assert "going on with --batch_size 2" in err and "going on with --batch_size 1" in err
    assert all((alone[k] == v).all() for k, v in results(tiny.out).items())


def test_batches() -> None:
    seen: list[Sequence[int]] = []

    def work(batch: Sequence[int]) -> None:
        if sum(batch) > 9:
            raise torch.OutOfMemoryError("out of memory")
        seen.append(batch)

    batches = Batches(4)
    batches.run(list(range(6)), work)
    assert seen == [[0, 1, 2, 3], [4, 5]]
    batches.run([5, 5, 4], work)
    assert batches.size == 1 and seen[2:] == [[5], [5], [4]]
    with pytest.raises(WorkError, match="out of memory with a single picture"):
        batches.run([10], work)
    with pytest.raises(RuntimeError, match="shape"):
        batches.run([1], lambda batch: (_ for _ in ()).throw(RuntimeError("wrong shape")))


def test_default_batch_size_follows_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from golden_models import golden_model

    model = golden_model("ddpm")
    one = batching.MAPS * 32 * 32 * 32 * 4
    for free, size in ((10 * one, 4), (4 * one, 2), (one // 2, 1)):
        monkeypatch.setattr(batching, "free_memory", lambda device, free=free: free)
        assert batching.default_batch_size(model) == size
    assert batching.default_batch_size(model, processes=8) == 1
    monkeypatch.undo()
    assert batching.free_memory(torch.device("cpu")) > 1 << 20


def test_official_noise_again_in_halves() -> None:
    stream = OneStream(torch.Generator().manual_seed(1), (1, 2, 2), steps=2, calibrated=False)
    z = stream.batch([0, 1, 2, 3])()
    assert torch.equal(OneStream(torch.Generator().manual_seed(1), (1, 2, 2), 2, False).batch([0, 1])(), z[:2])
    assert torch.equal(stream.batch([0, 1])(), z[:2]) and torch.equal(stream.batch([2, 3])(), z[2:])
    late = OneStream(torch.Generator().manual_seed(1), (1, 2, 2), steps=2, calibrated=False)
    assert torch.equal(late.batch([1, 3])(), z[[1, 3]])


# ---- grid --------------------------------------------------------------------------------------------------------


def test_grid_only(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(tiny.argv("--grid_only")) == 1  # nothing is there
    assert main.main(tiny.argv()) == 0
    whole, before = pictures(tiny.out), report(tiny)
    (tiny.out / "grid.png").unlink()
    (tiny.out / "run.json").unlink()
    (tiny.root / "tiny.pt").unlink()  # needs no network
    assert main.main(tiny.argv("--grid_only")) == 0
    assert pictures(tiny.out) == whole
    assert report(tiny)["kept"] == 6 and report(tiny)["model"]["sha256"] == before["model"]["sha256"]
    (tiny.out / "result_content_c00_style_s00.png").unlink()
    assert main.main(tiny.argv("--grid_only")) == 0
    assert report(tiny)["kept"] == 5 and len(report(tiny)["failed"]) == 1


def test_large_grids_shrink(tmp_path: Path) -> None:
    contents = [Picture(Path(f"c{i}"), f"c{i}", "") for i in range(100)]
    pairs = [Pair(i, c, s, f"{i}") for i, (c, s) in enumerate((c, s) for c in contents for s in contents)]
    cfg = RunConfig(tmp_path, tmp_path, tmp_path, Settings())
    shown = Image.new("RGB", (256, 256), (9, 8, 7))
    path = write_grid(cfg, Plan(contents, contents, pairs), 256, lambda picture: shown)
    with Image.open(path) as grid:
        assert grid.width == grid.height and 7000 < grid.width <= 8000
        pixels = np.asarray(grid)
    pitch = (grid.width - 1) // 101
    assert tuple(pixels[pitch // 2, pitch // 2]) == (128, 128, 128) and tuple(pixels[5, pitch + 5]) == (9, 8, 7)


# ---- shares ------------------------------------------------------------------------------------------------------


def test_shards_make_the_whole(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(tiny.argv("--batch_size", "1")) == 0
    whole = pictures(tiny.out)
    tiny.extra = ["--batch_size", "1", "--save_dir", str(tiny.root / "parts"), "--cache_dir", str(tiny.root / "cache2")]
    parts = tiny.root / "parts"
    assert main.main(tiny.argv("--shard", "2/3")) == 0
    assert len(results(parts)) == 2 and not (parts / "grid.png").exists() and not (parts / "run.json").exists()
    capsys.readouterr()
    assert main.main(tiny.argv("--shard", "0/3")) == 0 and capsys.readouterr().out == ""
    assert main.main(tiny.argv("--shard", "1/3")) == 0 and "grid.png" in capsys.readouterr().out
    assert pictures(parts) == whole


def test_share_covers_everything() -> None:
    items = list(range(11))
    shares = [Share(i, 3) for i in range(3)]
    assert sorted(x for share in shares for x in share.own(items)) == items
    assert all(sorted(share.order(items)) == items for share in shares)
    assert all(share.order(items)[: len(share.own(items))] == share.own(items) for share in shares)


@pytest.mark.parametrize("shard", ["1/1", "4/4", "-1/4", "a/b", "1", "1/", "/", "1/0"])
def test_wrong_shards(tiny: Tiny, shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(tiny.argv(f"--shard={shard}")) == 2
    assert "use i/n" in capsys.readouterr().err
