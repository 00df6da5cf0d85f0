"""What the page does, without the page and without Gradio: the same file as the command line, one picture at a time."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cli_tools import error_line, run

import main
from batch_tools import ARCHITECTURE, make_tiny, paint
from diffstyle.errors import DiffstyleError, UsageError, WorkError
from diffstyle.explore import desk as module
from diffstyle.explore.desk import Desk, Given, Going, Made, Wish
from diffstyle.explore.guard import OwnPageOnly
from diffstyle.explore.serve import inputs, serve
from diffstyle.masks import build_mask
from diffstyle.models.convert import diffusers_config, to_diffusers
from diffstyle.pipeline import transfer_walk
from diffstyle.settings import Settings
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config

QUICK = Settings(gamma=0.4, n_inv=50, n_gen=50, solver="abm3", nfe=8)
SETTINGS = {
    "quick": QUICK,
    "official": Settings(gamma=0.3, n_inv=12, n_gen=20, t_boost=200),
    "paper": replace(QUICK, variant="paper", omega=0.3, t_boost=120, seed=7),
    "paper without calibration": replace(QUICK, variant="paper", omega=0.0),
    "many steps": replace(QUICK, gamma=0.55, n_inv=1000, n_gen=1000),
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    make_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = Given("tiny.yml", "tiny.pt", "cpu", save_dir=Path("out/explore"), cache_dir=Path("page cache"))
    return Desk(load_model(load_config("tiny.yml"), Path("tiny.pt")), given)


def wish(settings: Settings = QUICK, content: str = "c/c00.png", style: str = "s/s01.png") -> Wish:
    return Wish(Path(content), Path(style), settings)


def make(desk: Desk, wanted: Wish) -> Made:
    *_, last = desk.make(wanted, desk.ticket())
    assert isinstance(last, Made)
    return last


def by_command(desk: Desk, wanted: Wish) -> Path:
    """The file that the command line makes, with a cache of its own."""
    given = replace(desk.given, cache_dir=Path("another"))
    program, *words = shlex.split(given.command(wanted))
    assert program == "diffstyle"
    assert main.main([*words, "--verbose", "warning"]) == 0
    (result,) = desk.given.save_dir.glob("result_*.png")
    return result


@pytest.mark.parametrize("name", SETTINGS)
def test_the_command_makes_the_same_file(desk: Desk, name: str) -> None:
    wanted = wish(SETTINGS[name])
    made = make(desk, wanted)
    result = by_command(desk, wanted)
    assert result.name == made.name
    assert result.read_bytes() == made.png


def test_the_command_of_a_masked_pair_of_dropped_pictures(desk: Desk, tmp_path: Path) -> None:
    odd = tmp_path / "upload" / "it's me; $(rm).png"
    wanted = wish(replace(QUICK, mask=desk.keep_mask("01100000/" * 7 + "00000000")))
    wanted = replace(wanted, content=desk.keep(paint(odd, 5)), style=desk.keep(paint(odd.with_name("two.png"), 6)))
    made = make(desk, wanted)
    assert by_command(desk, wanted).read_bytes() == made.png
    assert made.png != make(desk, replace(wanted, settings=QUICK)).png


def test_the_command_where_content_and_style_are_one_picture(desk: Desk) -> None:
    wanted = wish(style="c/c00.png")
    made = make(desk, wanted)
    assert by_command(desk, wanted).read_bytes() == made.png


def test_a_command_says_what_differs_from_the_flags_defaults() -> None:
    given = Given("celeba.yml", device="cuda", precision="bf16")
    assert given.command(wish(Settings(mask="a b.png"))) == (
        "diffstyle --config celeba.yml --content_dir c/c00.png --style_dir s/s01.png --save_dir results/explore --gamma 0.9 "
        "--omega 0.0 --t_edit 400 --t_boost 0 --mask 'a b.png' --device cuda --precision bf16"
    )


def test_inversions_are_done_once_and_pictures_remembered(desk: Desk) -> None:
    first, again = make(desk, wish()), make(desk, wish())
    other = make(desk, wish(replace(QUICK, gamma=0.6)))
    assert again is first
    assert other.evaluations == QUICK.transfer_evaluations() < first.evaluations


def test_a_picture_changed_on_disk_is_another(desk: Desk) -> None:
    first = make(desk, wish())
    paint(Path("c/c00.png"), 77)
    assert make(desk, wish()).png != first.png


class Held:
    """A transfer that stops after its first step until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go, self.steps = threading.Event(), threading.Event(), 0

        def held(*args: Any) -> Iterator[Any]:
            for state in transfer_walk(*args):
                self.steps += 1
                yield state
                self.begun.set()
                assert self.go.wait(20)

        monkeypatch.setattr(module, "transfer_walk", held)


def test_a_newer_wish_supersedes_the_one_at_work(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    states: list[Going | Made] = []
    older = desk.ticket()
    thread = threading.Thread(target=lambda: states.extend(desk.make(wish(), older)))
    thread.start()
    assert held.begun.wait(20)
    newer = desk.ticket()
    held.go.set()
    thread.join(20)
    assert not any(isinstance(state, Made) for state in states)
    assert held.steps <= 2
    *_, last = desk.make(wish(replace(QUICK, gamma=0.5)), newer)
    assert isinstance(last, Made)


def test_of_many_wishes_only_the_last_is_made(desk: Desk) -> None:
    tickets = [desk.ticket() for _ in range(20)]
    made = [[*desk.make(wish(replace(QUICK, gamma=i / 20)), ticket)] for i, ticket in enumerate(tickets)]
    assert made[:-1] == [[]] * 19
    assert isinstance(made[-1][-1], Made)


def test_progress_tells_evaluations_and_shows_what_is_seen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OFTEN", 0.0)
    *before, made = desk.make(wish(), desk.ticket())
    assert isinstance(made, Made)
    states = [state for state in before if isinstance(state, Going)]
    assert states == before
    assert [state.done for state in states] == sorted(state.done for state in states)
    assert states[-1].done == states[-1].total == made.evaluations
    assert states[-1].image is not None and states[-1].image.size == (8, 8)
    assert states[0].image is None


@pytest.mark.parametrize(
    ("changes", "content", "message"),
    [
        ({"solver": "magic"}, "c/c00.png", "--solver magic is not known"),
        ({}, "c/broken.png", "c/broken.png: not a readable picture"),
        ({}, "c/none.png", "no such"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(desk: Desk, changes: dict[str, Any], content: str, message: str) -> None:
    Path("c/broken.png").write_text("no picture")
    with pytest.raises(DiffstyleError, match=message) as error:
        make(desk, wish(replace(QUICK, **changes), content))
    assert "\n" not in str(error.value)
    make(desk, wish())  # the desk goes on


def test_odd_settings_are_made_and_said(desk: Desk) -> None:
    assert make(desk, wish(replace(QUICK, t_edit=1000))).doubts == (
        "no content is injected at t >= 1000: the results are the styles, reconstructed",
    )
    assert make(desk, wish()).doubts == ()


def test_numbers_that_are_not_finite_are_no_picture(desk: Desk) -> None:
    make(desk, wish())
    next(iter(desk.model.unet.parameters())).fill_(float("nan"))
    with pytest.raises(DiffstyleError, match="not finite"):
        make(desk, wish(replace(QUICK, gamma=0.7)))


def test_dropped_pictures_are_kept_once_under_their_names(desk: Desk, tmp_path: Path) -> None:
    first = desk.keep(paint(tmp_path / "a/me.png", 1))
    assert first == Path("out/explore/inputs/me.png")
    assert first.read_bytes() == (tmp_path / "a/me.png").read_bytes()
    other = desk.keep(paint(tmp_path / "b/me.png", 2))
    assert other != first and other.read_bytes() == (tmp_path / "b/me.png").read_bytes()
    shutil.copy(tmp_path / "b/me.png", tmp_path / "a/me.png")
    assert desk.keep(tmp_path / "a/me.png") == other
    assert len([*first.parent.iterdir()]) == 2


def test_a_dropped_picture_is_never_another_that_lies_under_its_name(desk: Desk, tmp_path: Path) -> None:
    dropped = paint(tmp_path / "a/me.png", 1)
    desk.keep(paint(tmp_path / "b/me.png", 2))
    longer = desk.keep(dropped)
    longer.write_bytes(b"damaged")
    with pytest.raises(WorkError, match="something else lies there"):
        desk.keep(dropped)
    longest = paint(tmp_path / "a" / f"{'x' * 251}.png", 3)
    assert desk.keep(longest).name == longest.name
    assert desk.keep(paint(tmp_path / "b" / longest.name, 4)).read_bytes() != longest.read_bytes()


def test_a_damaged_mask_is_made_anew(desk: Desk) -> None:
    cells = "/".join(["01100000"] * 8)
    path = Path(desk.keep_mask(cells))
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    assert desk.keep_mask(cells) == str(path) and path.read_bytes() == whole


@pytest.mark.parametrize(
    "cells", ["1" * 64, "1/11", "/".join(["1" * 8] * 9), "/".join(["2" * 8] * 8), "/".join(["１" * 8] * 8), 5]
)
def test_only_cells_of_h_are_a_mask(desk: Desk, cells: Any) -> None:
    with pytest.raises(WorkError, match="no mask of 8 rows of 8 cells"):
        desk.keep_mask(cells)
    assert not (desk.given.save_dir / "masks").exists()


def test_a_brushed_mask_is_the_mask_of_h(desk: Desk) -> None:
    assert desk.map_size == (8, 8)
    assert desk.keep_mask("/".join(["00000000"] * 8)) == ""
    rows = ["00000000", "01100000", *["00010000"] * 6]
    path = desk.keep_mask("/".join(rows))
    assert path == desk.keep_mask("/".join(rows)) and Path(path).is_file()
    mask = build_mask(path, desk.map_size)
    assert mask is not None
    assert torch.equal(mask[0, 0], torch.tensor([[float(cell) for cell in row] for row in rows]))


@pytest.mark.parametrize(("version", "said"), [(None, "none"), ("5.49.1", "5.49.1")])
def test_no_gradio_is_said_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: str | None, said: str
) -> None:
    def found(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr("importlib.metadata.version", found)
    code, err = run(["--explore", "--config", "there_is_no_such_config.yml"], capsys)
    assert code == 2
    assert error_line(err) == f"error: --explore needs Gradio 6 or newer, here is {said}: pip install 'gradio>=6'"


@pytest.mark.parametrize(("words", "message"), [(["80 80"], "invalid int value"), (["--style_dir", "nowhere"], "no such folder")])
def test_what_the_page_cannot_begin_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "6.0")
    code, err = run(["--explore", *words], capsys)
    assert code == 2 and message in error_line(err)


def test_the_flag_starts_the_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffstyle.commands.serve", lambda **words: given.update(words))
    assert run(["--explore", "--config", "celeba.yml", "--content_dir", "faces"], capsys)[0] == 0
    assert (given["config"], given["content_dir"], given["style_dir"], given["port"]) == ("celeba.yml", "faces", None, None)
    (tmp_path / "source_images/style").mkdir(parents=True)
    run(["--explore", "8123"], capsys)
    assert (given["config"], given["content_dir"], given["port"]) == ("avatars.yml", None, 8123)
    assert given["style_dir"] == "./source_images/style"


def test_pictures_to_choose_from(desk: Desk) -> None:
    def found(spec: str | None, examples: str = "nowhere") -> list[Path]:
        return inputs(desk.given, spec, "--content_dir", Path(examples))

    assert found("c") == [Path("c/c00.png"), Path("c/c01.png")]
    assert found("c/c01.png") == [Path("c/c01.png")]
    assert found(None) == []
    assert found(None, "s") == [Path("s/s00.png"), Path("s/s01.png"), Path("s/s02.png")]
    with pytest.raises(UsageError, match="--content_dir nowhere: no such folder"):
        found("nowhere")
    with pytest.raises(UsageError, match="--content_dir sample:2: the page shows files only"):
        found("sample:2")


# ---- the server ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:7860"}, 200),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, 200),
        ({"host": "127.0.0.1:7860", "origin": "http://evil.example"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:1234"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "null"}, 403),
        ({"host": "evil.example:7860"}, 403),  # a name that leads to this machine
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
        ({}, 403),
    ],
)
def test_only_the_page_itself_is_answered(headers: dict[str, str], status: int) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"status": 200})

    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    asyncio.run(OwnPageOnly(page)({"type": "http", "headers": raw}, None, send))
    assert sent[0]["status"] == status
    sent.clear()
    asyncio.run(OwnPageOnly(page)({"type": "websocket", "headers": raw}, None, send))
    assert (sent[0].get("status") == 200) == (status == 200)


@pytest.mark.parametrize("words", [["70000"], ["-1"], ["--save_dir", "x" * 300], ["--model_path", "a\0b"]])
def test_a_port_or_name_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "6.0")
    monkeypatch.setattr(sys.modules[serve.__module__], "load_model", lambda *_, **__: pytest.fail("a model is loaded"))
    code, err = run(["--explore", *words], capsys)
    assert code == 2 and ("from 1 to 65535" in err or "no file can have such a name" in err), error_line(err)


def test_the_page_reads_what_lies_beside_the_weights(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run does: a diffusers folder as --model_path needs no --config."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "6.0")
    shown: list[Desk] = []
    page = SimpleNamespace(show=lambda desk, *_: shown.append(desk))
    monkeypatch.setitem(sys.modules, "diffstyle.explore.page", page)
    monkeypatch.setattr("diffstyle.explore.page", page, raising=False)
    Path("net").mkdir()
    Path("net/config.json").write_text(json.dumps(diffusers_config(8, ARCHITECTURE)))
    torch.save(to_diffusers(torch.load("tiny.pt")), "net/diffusion_pytorch_model.bin")
    serve(model_path="net", device="cpu", content_dir="c", style_dir="s", save_dir="out")
    assert (shown[0].model.config.name, shown[0].model.config.image_size) == ("net", 8)
    assert "--config avatars.yml --model_path net" in shown[0].given.command(wish())
