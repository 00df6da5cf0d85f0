"""The page in a real headless Chromium: load, choose, move, brush, drop, copy the command, run it, compare the files."""

from __future__ import annotations

import base64
import functools
import io
import logging
import secrets
import shlex
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from browser_tools import chromium, requests, slider, soon
from PIL import Image

import main
from batch_tools import make_tiny, paint
from diffstyle.errors import UsageError
from diffstyle.explore.desk import Desk, Given, Wish
from diffstyle.images import TEXT_KEY
from diffstyle.settings import Settings
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config

pytestmark = pytest.mark.slow
PATIENCE = 180  # seconds, for a machine that does much else; a picture of the tiny network takes a fraction of one


class Page:
    """The page in the browser, and the desk behind it."""

    def __init__(self, browser: Any, desk: Desk, url: str, folder: Path) -> None:
        self.browser, self.desk, self.url, self.folder = browser, desk, url, folder

    def js(self, script: str, *args: Any) -> Any:
        return self.browser.execute_script(script, *args)

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def open(self) -> None:
        self.browser.get(self.url)
        assert soon(lambda: self.command() and self.file(), PATIENCE)

    def command(self) -> str:
        return self.js("return document.querySelector('#command textarea')?.value ?? ''")

    def file(self) -> bytes:
        """The picture that Save PNG would save."""
        address = self.js("return document.querySelector('#stage .save')?.href ?? ''")
        return base64.b64decode(address.partition(",")[2])

    def after(self, act: Callable[[], Any]) -> str:
        """The command of the picture that follows an act."""
        before = self.command()
        act()
        assert soon(lambda: self.command() not in ("", before) and self.file(), PATIENCE), self.note()
        return self.command()

    def note(self) -> str:
        return self.js("return document.querySelector('#stage .note').textContent")

    def button(self, text: str) -> Any:
        return next(b for b in self.browser.find_elements("css selector", "button") if b.text == text)

    def slider(self, name: str) -> Any:
        return slider(self.browser, name)


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[str]]:
    """Every address that this process, the server, connects to or looks up meanwhile."""
    seen: list[str] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connect_and_tell(self: socket.socket, address: Any) -> None:
        seen.append(str(address[0]) if isinstance(address, tuple) else "local")
        connect(self, address)

    def look_up_and_tell(host: Any, *args: Any, **more: Any) -> Any:
        seen.append(host.decode() if isinstance(host, bytes) else str(host))
        return look_up(host, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_and_tell)
        patch.setattr(socket, "getaddrinfo", look_up_and_tell)
        yield seen


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, hosts: list[str]) -> Iterator[tuple[Desk, str, Path]]:
    """The tiny model's desk, the address of its page, and the folder that it works in."""
    folder = tmp_path_factory.mktemp("explore")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        patch.chdir(folder)
        pytest.importorskip("gradio", reason="Gradio is not installed (the extra demo)")
        from diffstyle.explore import page as module

        patch.setattr(module, "LARGEST", 5000)  # of a dropped file
        make_tiny(folder)
        given = Given("tiny.yml", "tiny.pt", "cpu", save_dir=Path("out/explore"), cache_dir=Path("cache"))
        desk = Desk(load_model(load_config("tiny.yml"), Path("tiny.pt")), given)
        sides = [[Path(f"{s}/{s}{i:02d}.png") for i in range(n)] for s, n in (("c", 2), ("s", 3))]
        blocks = module.build(desk, *sides)
        yield desk, module.launch(blocks), folder
        blocks.close()


@pytest.fixture(scope="module")
def page(served: tuple[Desk, str, Path]) -> Iterator[Page]:
    """The page, open in the browser, with what was asked for before forgotten."""
    with chromium() as browser:
        found = Page(browser, *served)
        found.open()
        yield found


@pytest.fixture(autouse=True)
def quiet(request: pytest.FixtureRequest, hosts: list[str]) -> Iterator[None]:
    """No console message, and nothing was asked of another host, by the browser or by the server."""
    page: Page | None = request.getfixturevalue("page") if "page" in request.fixturenames else None
    yield
    ours = {"127.0.0.1", "localhost", "::1", "local"}
    assert set(hosts) <= ours
    if page is None:
        return
    assert page.browser.get_log("browser") == []
    for url in requests(page.browser):
        assert url.startswith((page.url, "data:", "blob:")), url


def keys() -> Any:
    return pytest.importorskip("selenium.webdriver.common.keys").Keys


def actions(page: Page) -> Any:
    return pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains(page.browser, duration=20)


def run_command(page: Page, command: str) -> Path:
    """The file that the command leaves, made with an empty cache."""
    program, *words = shlex.split(command)
    assert program == "diffstyle"
    for old in page.desk.given.save_dir.glob("*.png"):
        old.unlink()
    level = logging.getLogger().level
    assert main.main([*words, "--cache_dir", "another", "--verbose", "warning"]) == 0
    logging.getLogger().setLevel(level)
    (result,) = page.desk.given.save_dir.glob("result_*.png")
    return result


def test_the_command_that_is_copied_makes_the_picture_that_is_shown(page: Page) -> None:
    page.open()
    second = page.find("#contents button.thumbnail-item[aria-label^='Thumbnail 2']")
    assert "--content_dir c/c01.png" in page.after(second.click)
    assert "--gamma 0.35 " in page.after(lambda: page.slider("gamma").send_keys(keys().ARROW_RIGHT))

    page.button("Brush a mask").click()
    cells = page.browser.find_elements("css selector", "#stage .cells button")
    assert len(cells) == 64
    stroke = actions(page).move_to_element(cells[10]).click_and_hold()
    for i in (11, 12, 20, 28):
        stroke.move_to_element(cells[i])
    command = page.after(stroke.release().perform)
    (mask,) = (word for word in shlex.split(command) if "mask_" in word)
    with Image.open(mask) as image:
        assert [i for i, value in enumerate(image.get_flattened_data()) if value] == [10, 11, 12, 20, 28]

    origin = {"origin": page.url.rstrip("/"), "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.browser.execute_cdp_cmd("Browser.grantPermissions", origin)
    page.button("Copy the command line").click()
    assert soon(lambda: page.note() == "The command line is copied.")
    copied = page.browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == command

    result = run_command(page, copied)
    assert page.js("return document.querySelector('#stage .save').download") == result.name
    assert page.js("return document.querySelector('#stage .result img').src === document.querySelector('#stage .save').href")
    assert page.file() == result.read_bytes()
    with Image.open(io.BytesIO(page.file())) as image:
        assert TEXT_KEY in image.info


def test_a_dropped_picture_is_in_the_command(page: Page, tmp_path: Path) -> None:
    page.open()
    own = paint(tmp_path / "my own style.png", 5)
    command = page.after(lambda: page.find("#stage .style input").send_keys(str(own)))
    assert "--style_dir 'out/explore/inputs/my own style.png'" in command
    assert soon(lambda: len(page.browser.find_elements("css selector", "#styles .thumbnail-item")) == 4)
    assert page.file() == run_command(page, command).read_bytes()

    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    page.find("#stage .content input").send_keys(str(broken))
    assert soon(lambda: "not a readable picture" in page.note()), page.note()
    assert page.command() == command


def test_every_control_reaches_the_command(page: Page) -> None:
    page.open()
    Keys = keys()
    for name, flag in (("omega", "--omega 0.05"), ("t_edit", "--t_edit 410"), ("t_boost", "--t_boost 10")):
        assert flag in page.after(functools.partial(page.slider(name).send_keys, Keys.ARROW_RIGHT))
    paper = page.find("input[type=radio][value=paper]")
    command = page.after(lambda: page.js("arguments[0].click()", paper))
    assert soon(lambda: "--variant paper" in page.command() and "--omega 0.3" in page.command(), PATIENCE), command
    page.button("Solver and steps\n▼").click()
    assert soon(lambda: (nfe := page.slider("nfe")) is not None and nfe.is_displayed())
    assert "--nfe 28" in page.after(lambda: page.slider("nfe").send_keys(Keys.ARROW_RIGHT))
    solver = page.find("input[aria-label=solver]")
    command = page.after(lambda: solver.send_keys(Keys.CONTROL, "a", Keys.NULL, "ddim", Keys.ENTER))
    assert soon(lambda: "--n_gen_step 50" in page.command() and "--solver" not in page.command(), PATIENCE), command
    assert page.file() == run_command(page, page.command()).read_bytes()


def test_a_strip_of_five_gammas(page: Page) -> None:
    page.open()
    page.button("Gamma strip of five").click()
    labels = "return [...document.querySelectorAll('#strip .caption-label')].map(e => e.textContent.trim())"
    assert soon(lambda: page.js(labels) == [f"gamma {g}" for g in ("0", "0.2", "0.4", "0.6", "0.8")], PATIENCE)
    last = page.browser.find_elements("css selector", "#strip .thumbnail-item")[-1]
    assert "--gamma 0.8 " in page.after(last.click)


def test_by_keyboard(page: Page) -> None:
    """Every control is reached by Tab; a mask is painted with arrow keys and space; the comparing slider moves."""
    page.open()
    Keys = keys()
    page.button("Brush a mask").send_keys(Keys.ENTER)
    page.js("document.body.tabIndex = -1; document.body.focus()")
    reached = []
    for _ in range(40):
        actions(page).send_keys(Keys.TAB).perform()
        reached.append(page.js("const e = document.activeElement; return `${e.tagName} ${e.className} ${e.textContent}`"))
    assert sum("thumbnail-item" in each for each in reached) >= 5
    for name in ("Brush a mask", "Save PNG", "Copy the command line", "Gamma strip of five", "INPUT share"):
        assert any(name in each for each in reached), name

    first = page.find("#stage .cells button")
    assert page.js("return [...document.querySelectorAll('#stage .cells button')].filter(b => b.tabIndex == 0).length") == 1
    first.send_keys(Keys.ARROW_RIGHT)
    page.browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert "masks/mask_" in page.after(lambda: page.browser.switch_to.active_element.send_keys(Keys.SPACE))
    assert page.js("return document.activeElement.getAttribute('aria-label')") == "row 2, column 2"
    assert "--mask" not in page.after(page.button("Clear the mask").click)

    edge = "return document.querySelector('#stage .compare').style.getPropertyValue('--x')"
    page.find("#stage .share").send_keys(Keys.HOME)
    assert page.js(edge) == "0%"
    page.find("#stage .share").send_keys(Keys.END)
    assert page.js(edge) == "100%"
    page.js("document.querySelector('#stage .sides input[value=style]').click()")
    assert page.js("return document.querySelector('#stage .over').src === document.querySelector('#stage .style img').src")


def test_on_a_phone(page: Page) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    try:
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        page.open()
        assert page.js("return document.documentElement.scrollWidth <= innerWidth")
        page.js("arguments[0].scrollIntoView({block: 'center'})", page.slider("t_boost"))
        box = page.js("return document.querySelector('#stage .result').getBoundingClientRect().toJSON()")
        assert 0 <= box["top"] < 100 and 100 < box["width"] < 140, box
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_types_that_the_record_tells_apart(page: Page) -> None:
    """A browser says 0 where the command line says 0.0."""
    from diffstyle.explore.page import PAPER, settings_of

    assert settings_of(PAPER, "", 0, 0, 400.0, 0.0, "official", "abm3", 24.0, 1000, None) == Settings(
        gamma=0.0, omega=0.0, n_inv=1000, n_gen=1000, solver="abm3", nfe=24, seed=0
    )
    for value in (PAPER, settings_of(PAPER, "", 1, 0, 400.0, 0.0, "official", "abm3", 24.0, 1000, 3)):
        assert all(type(getattr(value, name)) is type(getattr(Settings(), name)) for name in vars(value))
    assert "--gamma 1.0 " in page.desk.given.command(Wish(Path("a"), Path("b"), value))


def test_what_the_controls_cannot_mean_is_said_on_the_page(
    served: tuple[Desk, str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Numbers beside the sliders, which can be typed, and requests that the page does not make. The terminal stays quiet."""
    _, url, _ = served
    dependencies = httpx.get(f"{url}config").json()["dependencies"]
    functions = {event: each["id"] for each in dependencies for _, event in each["targets"]}
    usual = [None, None, None, 0.4, 0.0, 400, 0, "official", "abm3", 8, 50, 0]

    def answer(event: str, data: list[Any], told: Any = None) -> str:
        job = {"data": data, "event_data": told, "fn_index": functions[event], "session_hash": secrets.token_hex(5)}
        httpx.post(f"{url}gradio_api/queue/join", json=job).raise_for_status()
        states = f"{url}gradio_api/queue/data?session_hash={job['session_hash']}"
        with httpx.stream("GET", states, timeout=PATIENCE) as lines:
            return next(line for line in lines.iter_lines() if '"process_completed"' in line)

    for position, value, said in (
        *((3, 5, '"success": true'), (9, 9999, "--nfe 9999 is out of range"), (11, -1, "--seed -1 is out of range")),
        *((3, None, "holds no number"), (5, "x", "holds no number"), (10, [], "holds no number"), (8, "magic", "--solver magic")),
    ):
        assert said in answer("ask", [value if i == position else each for i, each in enumerate(usual)]).replace(":", ": ")
    for event, told in (("paint", {"cells": "1/11"}), ("paint", {}), ("drop", {}), ("drop", {"path": 3})):
        assert '"success":false' in answer(event, [None, None, 0] if event == "drop" else [], told)
    assert "Traceback" not in capfd.readouterr().err


def test_another_page_is_not_answered(served: tuple[Desk, str, Path]) -> None:
    _, url, _ = served
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        assert httpx.get(f"{url}config", headers=headers).status_code == 403
        assert httpx.post(f"{url}gradio_api/upload", headers=headers, files={"files": b"x"}).status_code == 403


def test_a_file_too_large_is_not_taken(served: tuple[Desk, str, Path]) -> None:
    answers = [httpx.post(f"{served[1]}gradio_api/upload", files={"files": bytes(size)}) for size in (4000, 6000)]
    assert [answer.status_code for answer in answers] == [200, 413]


@pytest.mark.parametrize("timesteps", [2, 50, 400, 1000, 4000])
def test_it_begins_with_settings_that_the_model_has(served: tuple[Desk, str, Path], timesteps: int) -> None:
    from diffstyle.explore.page import PAPER, Answers, papers

    papers(timesteps).check(timesteps)
    assert papers(1000) == PAPER
    config = replace(served[0].model.config, timesteps=timesteps)
    desk = SimpleNamespace(model=SimpleNamespace(config=config))
    assert Answers(cast(Desk, desk)).start == papers(timesteps)
    desk.model.config = replace(config, settings={"t_0": 9999})
    with pytest.raises(UsageError, match="--t_0 9999 is out of range"):
        Answers(cast(Desk, desk))
