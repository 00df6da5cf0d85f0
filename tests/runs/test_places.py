"""No run writes over what it reads, nor over what somebody else has put into its folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_tools import error_line, run

from batch_tools import Tiny, make_tiny, paint, results

RESULT = "result_content_c00_style_s00.png"


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return make_tiny(tmp_path, contents=1, styles=1)


def everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def listing(tiny: Tiny, row: str, path: str = "list.csv") -> str:
    place = tiny.root / path
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"content,style,name\n{row}\n")
    return str(place)


def moved(tiny: Tiny, name: str, to: str) -> str:
    """Something of the tree under another name."""
    (tiny.root / to).parent.mkdir(exist_ok=True, parents=True)
    return str(shutil.move(tiny.root / name, tiny.root / to))


def linked(tiny: Tiny, name: str, to: str) -> str:
    (tiny.root / name).symlink_to(tiny.root / to)
    return str(tiny.root / name)


def named_row(tiny: Tiny) -> list[str]:
    paint(tiny.out / "anna.png", 3)
    return ["--pairs", listing(tiny, f"{tiny.out}/anna.png,s00.png,anna")]


def stack_of_a_style(tiny: Tiny) -> list[str]:
    """The layout's folder is a link into the photographs."""
    paint(tiny.root / "photos" / "content_c00_style_s00.png", 3)
    tiny.out.mkdir()
    (tiny.out / "style_s00").symlink_to(tiny.root / "photos")
    row = f"{tiny.root}/photos/content_c00_style_s00.png,s00.png,\nc00.png,s00.png,"
    return ["--layout", "by-style", "--pairs", listing(tiny, row)]


def drawn_elsewhere(tiny: Tiny) -> list[str]:
    paint(tiny.out / "samples" / "sample_1234_0000.png", 4)
    return ["--style_dir", "sample:1", "--content_dir", str(tiny.out / "samples")]


def linked_result(tiny: Tiny) -> list[str]:
    """The content is a link to a link to a picture where a result will go."""
    (tiny.root / "c" / "c00.png").unlink()
    linked(tiny, "between.png", str(paint(tiny.out / RESULT, 6)))
    linked(tiny, "c/c00.png", "between.png")
    return []


# What a command line reads that it would also write.
CASES: dict[str, Callable[[Tiny], list[str]]] = {
    "a row's name": named_row,
    "the grid": lambda t: ["--content_dir", moved(t, "c/c00.png", "out/grid.png")],
    "a figure of a sweep": lambda t: ["--content_dir", moved(t, "c/c00.png", "out/gamma=0.1/grid.png"), "--sweep", "gamma=0.1"],
    "a figure of a pair": lambda t: [
        "--pairs", listing(t, f"{moved(t, 'c/c00.png', 'out/sweep_anna.png')},s00.png,anna"), "--sweep", "gamma=0.1,0.2",
    ],
    "an animation": lambda t: [
        "--pairs", listing(t, f"{moved(t, 'c/c00.png', 'out/t_anna.gif')},s00.png,anna"), "--animate", "t.gif",
    ],
    "the list": lambda t: ["--pairs", listing(t, "c00.png,s00.png,", "out/run.json")],
    "the mask": lambda t: ["--mask", str(paint(t.out / RESULT, 5))],
    "the checkpoint": lambda t: ["--model_path", moved(t, "tiny.pt", f"out/{RESULT}")],
    "the grid as mask": lambda t: ["--mask", str(paint(t.out / "grid.png", 5))],
    "in capitals": lambda t: ["--pairs", listing(t, f"{moved(t, 'c/c00.png', 'out/ANNA.PNG')},s00.png,anna")],
    "a link to a result": linked_result,
    "save_dir through a link": lambda t: [
        "--save_dir", linked(t, "other", str(paint(t.out / "grid.png", 7).parent)), "--content_dir", str(t.out / "grid.png"),
    ],
    "save_dir with dots": lambda t: [
        "--save_dir", str(t.root / "c" / ".." / "out"), "--content_dir", str(paint(t.out / "grid.png", 7)),
    ],
    "a folder of the layout": stack_of_a_style,
    "a drawn picture": drawn_elsewhere,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_output_is_an_input(case: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    extra = CASES[case](tiny)
    before = everything(tiny.root)
    code, err = run(tiny.argv(*extra), capsys)
    assert code == 2 and "would write over it" in error_line(err)
    assert everything(tiny.root) == before, "nothing is computed or written first"
    if case != "the checkpoint":
        assert run(tiny.argv(*extra, "--dry_run"), capsys)[0] == 2
        assert run(tiny.argv(*extra, "--overwrite"), capsys)[0] == 2


def test_inputs_may_lie_below_save_dir(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["photos/anna.png", "photos/grid.png", "photos/content_c00_style_s00.png", "grid.jpg", "t_shirt.png"]
    for i, name in enumerate(names):
        paint(tiny.out / name, i)
    os.link(tiny.out / "grid.jpg", tiny.root / "c" / "hard.jpg")  # replaced files leave their other names as they were
    before = everything(tiny.out)
    listed = listing(tiny, "\n".join(f"{tiny.out}/{name},s00.png," for name in before) + "\nhard.jpg,s00.png,anna")
    code, err = run(tiny.argv("--pairs", listed), capsys)
    assert code == 0, err
    assert len(results(tiny.out)) == 6 and before.items() <= everything(tiny.out).items()


@pytest.mark.parametrize(("name", "more"), [("run.json", []), ("index.html", ["--report"])])
def test_foreign_files_stay(name: str, more: list[str], tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.out.mkdir()
    for text in ('{"scripts": {"test": "jest"}}', "[" * 5000, "<h1>my homepage</h1>"):
        (tiny.out / name).write_text(text)
        code, err = run(tiny.argv(*more), capsys)
        assert code == 2 and f"{name}: not written by diffstyle" in error_line(err)
        assert everything(tiny.out) == {name: text.encode()}
    assert run(tiny.argv(*more, "--overwrite"), capsys)[0] == 0
    assert run(tiny.argv(*more), capsys)[0] == 0, "ours are replaced"
    (tiny.out / name).write_bytes(b"")
    assert run(tiny.argv(*more), capsys)[0] == 0, "there is nothing to lose in an empty file"


def test_a_page_without_report_is_nobodys_business(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.out.mkdir()
    (tiny.out / "index.html").write_text("mine")
    assert run(tiny.argv(), capsys)[0] == 0 and (tiny.out / "index.html").read_text() == "mine"
