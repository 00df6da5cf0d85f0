"""Sweeps and animations as batch runs: lists, layouts, shards, torchrun, interruptions, what killed processes leave."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import main
from batch_tools import Tiny, make_tiny, paint, pictures, results, two_ranks
from diffstyle import images
from diffstyle.figures import animations, sweeps
from diffstyle.figures.sweeps import figure_name
from diffstyle.files import StorageError, temporary_name, write_whole
from diffstyle.runs import inversions, run, sweep
from diffstyle.runs.inputs import Picture
from diffstyle.runs.plan import Pair
from diffstyle.runs.records import Outcome

SWEEP = ("--sweep", "gamma=0,0.5")
FIGURE = "sweep_content_c00_style_s00.png"


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return make_tiny(tmp_path, contents=2, styles=2)


def write_list(tiny: Tiny, text: str) -> str:
    (tiny.root / "list.csv").write_text(text)
    return str(tiny.root / "list.csv")


def figures(tiny: Tiny) -> list[str]:
    return sorted(p.name for p in tiny.out.glob("sweep_*"))


def test_close_values_have_folders_of_their_own(tiny: Tiny) -> None:
    assert [sweep.show(v) for v in (0.0, 0.5, 1.0, 0.1234567, 1e-7, 50, "paper")] == [
        "0", "0.5", "1", "0.1234567", "1e-07", "50", "paper",
    ]  # fmt: skip
    assert main.main(tiny.argv("--sweep", "gamma=0.1234567,0.1234568")) == 0
    assert len(results(tiny.out)) == 8


def test_names_of_figures_fit_and_differ() -> None:
    picture = Picture(Path("x"), "x", "")
    values: dict[str, float | int | str] = {"solver": "abm3", "blend": "replace", "variant": "official", "omega": 0.3}
    names = [figure_name("gamma", Pair(0, picture, picture, "x" * 200), {**values, "nfe": n}) for n in (40, 41)]
    assert all(len(name) <= 240 for name in names) and names[0] != names[1]
    assert figure_name("sweep", Pair(0, picture, picture, "a"), {"n_gen": 3}) == "sweep_a_n_gen=3"


def test_list_by_style_with_a_poisoned_input(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    (tiny.root / "c" / "bad.png").write_bytes(b"x")
    listing = write_list(tiny, "content,style,seed,name\nc00.png,s00.png,,\nbad.png,s00.png,,\nc01.png,s01.png,3,mine\n")
    assert main.main(tiny.argv(*SWEEP, "--pairs", listing, "--layout", "by-style")) == 1
    said = capsys.readouterr()
    assert said.err.count("failed: ") == 1 and said.out.strip() == str(tiny.out / FIGURE)
    assert figures(tiny) == ["sweep_content_bad_style_s00.png", FIGURE, "sweep_mine.png"]
    assert list(results(tiny.out)) == [
        f"gamma={g}/style_s0{i}/result_{stem}.png" for g in (0, 0.5) for i, stem in enumerate(["content_c00_style_s00", "mine"])
    ]


def test_recursive_sweep_does_not_take_its_own_pictures(tiny: Tiny) -> None:
    tiny.extra = ["--content_dir", str(tiny.root), "--recursive", *SWEEP]
    assert main.main(tiny.argv()) == 0
    before = pictures(tiny.out)
    assert len(results(tiny.out)) == 16 and main.main(tiny.argv()) == 0 and pictures(tiny.out) == before


def test_animation_over_t_is_of_the_row(tiny: Tiny) -> None:
    """A row's own gamma and seed make its picture, and so its animation."""
    rows = "c00.png,s00.png,0.3,1\nc00.png,s00.png,0.9,1\nc00.png,s00.png,0.3,2\n"
    listing = write_list(tiny, "content,style,gamma,seed\n" + rows)
    assert main.main(tiny.argv("--pairs", listing, "--t_boost", "500", "--animate", "t")) == 0
    assert len({p.read_bytes() for p in tiny.out.glob("t_*.gif")}) == 3


def test_animation_is_no_pairs_picture(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    listing = write_list(tiny, "content,style,name\nc00.png,s00.png,a\nc01.png,s01.png,T_a\n")
    assert main.main(tiny.argv("--pairs", listing, "--animate", "t.png")) == 2
    assert "the animation of a and the picture of T_a are both t_a.png" in capsys.readouterr().err and not tiny.out.exists()
    assert main.main(tiny.argv("--pairs", listing, "--animate", "t.webp")) == 0 and len(list(tiny.out.glob("*.webp"))) == 2


@pytest.mark.parametrize(("argv", "taken"), [
    ((*SWEEP, "--report", "--animate", "gamma"), ("gamma=0/index.html", FIGURE, "gamma_content_c00_style_s00.gif")),
    (("--animate", "t"), ("t_content_c00_style_s00.gif",)),
], ids=["gamma", "t"])  # fmt: skip
def test_a_figure_that_cannot_be_written_fails_alone(
    argv: tuple[str, ...], taken: tuple[str, ...], tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in taken:
        (tiny.out / name).mkdir(parents=True)
    assert main.main(tiny.argv(*argv)) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"failed: {tiny.out / name}: cannot be written (a folder has that name)" for name in taken]
    assert said.out.strip() == str(tiny.out / (FIGURE.replace("s00", "s01") if FIGURE in taken else "grid.png"))
    without = set(pictures(tiny.out))
    for name in taken:
        (tiny.out / name).rmdir()
    assert main.main(tiny.argv(*argv)) == 0 and set(pictures(tiny.out)) == without | set(taken)


def test_a_full_disk_ends_the_figures(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(sweeps, "save_png", full)
    assert main.main(tiny.argv(*SWEEP, "--animate", "gamma")) == 1
    assert capsys.readouterr().err == "error: the disk is full\n" and not list(tiny.out.glob("gamma_*"))


# ---- interruptions -----------------------------------------------------------------------------------------------


def kill_self(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("argv", "module", "name", "words"),
    [
        ((), run, "write_grid", "4 of 4 pairs are finished"),
        (("--animate", "t"), animations, "save_animation", "the pairs are finished, their figures are not"),
        (SWEEP, sweeps, "table", "the pairs are finished, their figures are not"),
        (SWEEP, run, "write_grid", "0 of 2 settings; of the next, 4 of 4 pairs are finished"),
        (("--just_precompute",), inversions, "invert", "0 of 4 missing inversions are made"),
    ],
)
def test_interruptions_say_how_far_it_came(
    tiny: Tiny, argv: tuple[str, ...], module: Any, name: str, words: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(module, name, kill_self)
    assert main.main(tiny.argv(*argv)) == 130
    assert f"interrupted: {words}; the same command goes on" in capsys.readouterr().err


def test_interrupted_sweep_goes_on(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without a cache; what is there can be laid out before."""
    tiny.extra = ["--batch_size", "1", "--no_cache", *SWEEP]
    assert main.main(tiny.argv("--save_dir", str(tiny.root / "whole"))) == 0
    assert main.main(tiny.argv("--grid_only")) == 1  # nothing is there
    real, calls = write_whole, []

    def shaken(path: Path, write: Any) -> None:
        calls.append(path)
        if path.name.startswith("result_") and path.parent.name == "gamma=0.5":
            kill_self()
        real(path, write)

    monkeypatch.setattr(images, "write_whole", shaken)
    assert main.main(tiny.argv()) == 130 and calls
    monkeypatch.undo()
    assert not [p for p in tiny.root.rglob("*.tmp")] and len(results(tiny.out)) == 4
    assert main.main(tiny.argv("--grid_only", "--report")) == 0 and len(figures(tiny)) == 4
    assert (tiny.out / "gamma=0" / "index.html").is_file() and not (tiny.out / "gamma=0.5" / "index.html").exists()
    assert main.main(tiny.argv()) == 0
    (tiny.out / "gamma=0" / "index.html").unlink()
    assert pictures(tiny.out) == pictures(tiny.root / "whole")


def test_leftovers_of_a_killed_sweep_go(tiny: Tiny) -> None:
    host = temporary_name().split(".")[1]
    for folder in (tiny.out, tiny.out / "gamma=0.5"):
        folder.mkdir()
        (folder / f".{host}.999999999.ab.tmp").mkdir()
        (folder / f".{host}.999999999.ab.tmp" / "x.pt").write_bytes(b"half")
        (folder / f".{host}.999999998.ab.tmp").write_bytes(b"half")
    assert main.main(tiny.argv(*SWEEP)) == 0 and not [p for p in tiny.root.rglob("*.tmp")]


# ---- many processes ----------------------------------------------------------------------------------------------


def test_shards_that_finish_at_different_points(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shard 1 overtakes shard 0 at the first value and waits for it at the second: shard 0 still lays all of it out."""
    tiny.extra = ["--batch_size", "1", *SWEEP]
    assert main.main(tiny.argv("--save_dir", str(tiny.root / "whole"))) == 0
    real, begun = run.run, list[int]()

    def overtaken(*args: Any) -> Outcome:
        report = real(*args)
        if not begun:
            begun.append(1)
            assert main.main(tiny.argv("--shard", "1/2")) == 0 and not figures(tiny)
        return report

    monkeypatch.setattr(sweep, "run", overtaken)
    assert main.main(tiny.argv("--shard", "0/2")) == 0
    assert pictures(tiny.out) == pictures(tiny.root / "whole")


@pytest.mark.slow
def test_a_sweep_of_two_ranks(tiny: Tiny) -> None:
    paint(tiny.root / "c" / "c02.png", 77)
    (tiny.root / "c" / "bad.png").write_bytes(b"x")
    tiny.extra = ["--batch_size", "1", "--animate", "gamma", "--layout", "by-content", *SWEEP]
    assert main.main(tiny.argv("--save_dir", str(tiny.root / "whole"))) == 1
    assert two_ranks(tiny.argv("--no_cache"), tiny.root / "log") == [1, 0]  # the first reports
    assert (tiny.root / "log").read_text().count("failed: ") == 1
    assert pictures(tiny.out) == pictures(tiny.root / "whole") and not [p for p in tiny.root.rglob("*.tmp")]
