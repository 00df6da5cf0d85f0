"""The gallery: its data and escaping, and (slow) what a real headless Chromium makes of it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_tools import chromium, requests, soon
from PIL import Image

from diffstyle.errors import WorkError
from diffstyle.figures.gallery import EMBED_BYTES, fill_page, write_report
from diffstyle.images import tile

HOSTILE = [
    "<img src=x onerror=alert(1)>".replace("/", ""),
    "</script><script>alert(1)<" + "script>",
    "quotes\"'`&amp;",
    "50%#?x=1",
    "@TITLE@ @DATA@ @STYLE@",
    "ünïcødé 画像 \u202egnp.exe",
    "n" * 200,
    "-dash .. dot.",
    "\u2028line",
]
COLOURS = {"style": (200, 40, 40), "content": (40, 200, 40), "result": (40, 40, 200)}


def fake_run(folder: Path, contents: list[str], styles: list[str], cell: int = 16, **changes: Any) -> Path:
    """A save_dir as a run leaves it, with pictures of plain colours: style red, content green, result blue."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {name: Image.new("RGB", (cell, cell), colour) for name, colour in COLOURS.items()}
    results = []
    for c, content in enumerate(contents):
        for s, style in enumerate(styles):
            # File names are the platform's problem; what they are called in the record is ours.
            stack = f"content_{content}_style_{style}.png".replace("/", "_").encode()[:240].decode(errors="ignore")
            if len(stack) > 150:
                stack = f"content_{c}_style_{s}_{stack[:80]}.png"
            tile([[pictures[k]] for k in COLOURS], 1, cell, len(COLOURS)).save(folder / stack, format="PNG")
            pictures["result"].save(folder / f"result_{stack}", format="PNG")
            results.append({"content": content, "style": style, "stack": stack, "result": f"result_{stack}"})
    record = {
        "settings": {"gamma": 0.4, "mask": "<b>bold</b>"},
        "model": {"name": "avatars", "image_size": cell},
        "contents": [{"path": f"in/{n}.png", "name": n} for n in contents],
        "styles": [{"path": f"in/{n}.png", "name": n} for n in styles],
        "results": results,
        "failed": {},
        "seconds": 12.3,
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    return folder


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    block = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    return json.loads(block)


def test_page_is_one_file_without_links_to_anywhere(tmp_path: Path) -> None:
    page = write_report(fake_run(tmp_path, ["a", "b"], ["c"]))
    text = page.read_text()
    assert page.name == "index.html"
    assert "http:" not in text and "https:" not in text and 'src="' not in text
    pairs = data_of(page)["pairs"]
    assert [(p["c"], p["s"]) for p in pairs] == [(0, 0), (1, 0)]
    assert all(p["stack"].startswith("data:image/png;base64,") for p in pairs)


def test_large_runs_link_to_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EMBED_BYTES > 1e6
    monkeypatch.setattr("diffstyle.figures.gallery.EMBED_BYTES", 10)
    folder = fake_run(tmp_path, ["a #?%"], ["c"])
    (pair,) = data_of(write_report(folder))["pairs"]
    assert pair["stack"] == "./content_a%20%23%3F%25_style_c.png"


def test_hostile_names_stay_data(tmp_path: Path) -> None:
    page = write_report(fake_run(tmp_path, HOSTILE, ["s"]))
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 2 and text.count("</script") == 2 and "<img" not in text
    assert data_of(page)["contents"] == HOSTILE


def test_title_is_escaped() -> None:
    page = fill_page({"title": "</title><script>alert(1)</script> @DATA@"})
    assert "<title>&lt;/title&gt;&lt;script&gt;" in page
    assert page.count("<script") == 2


def test_failures_and_missing_results(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, ["a", "b"], ["c", "b"], failed={"in/a.png": "in/a.png: not a readable picture"})
    (folder / "content_b_style_c.png").unlink()
    pairs = data_of(write_report(folder))["pairs"]
    assert [p.get("failed") for p in pairs] == ["in/a.png: not a readable picture"] * 2 + ["not made", None]


def test_metrics_are_shown_where_they_are_numbers(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, ["a"], ["c", "d"])
    (folder / "metrics.csv").write_text("content,style,gram,lpips\na,c,0.25,n/a\na,d,0.5,0.125\n")
    data = data_of(write_report(folder))
    assert data["metrics"] == ["gram", "lpips"]
    assert [p["metrics"] for p in data["pairs"]] == [[0.25, None], [0.5, 0.125]]


def test_numbers_that_no_browser_reads_are_left_out(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, ["a"], ["c", "d"])
    (folder / "metrics.csv").write_bytes(b"content,style,gram,\xff\na,c,inf,NaN\na,d,0.5,1e999,more\n")
    record = (folder / "run.json").read_text().replace('"seconds": 12.3', '"seconds": NaN, "model": {"beta_end": 1e999}')
    (folder / "run.json").write_text(record)
    data = data_of(write_report(folder))
    assert [p.get("metrics") for p in data["pairs"]] == [None, [0.5]] and data["seconds"] is None
    (folder / "metrics.csv").write_text('content,style,gram\na,c,"' + "x" * 200_000)
    with pytest.raises(WorkError, match=r"metrics\.csv: not readable as a table"):
        write_report(folder)


def test_a_table_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake_run(tmp_path, ["a"], ["c", "d"])
    (folder / "metrics.csv").touch()
    os.truncate(folder / "metrics.csv", 5 << 30)
    monkeypatch.setattr("csv.DictReader", lambda *_: pytest.fail("this is read as a whole"))
    with pytest.raises(WorkError, match=r"metrics\.csv: 5368709120 bytes, more than the"):
        write_report(folder)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/tty", "nowhere"])
def test_a_record_that_is_no_file_is_not_waited_for(tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.json").symlink_to(target)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("this is read as a whole"))
    with pytest.raises(WorkError, match=r"run\.json: no.* a finished run leaves it in its --save_dir"):
        write_report(tmp_path)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"results": 3}', "[" * 100_000])
def test_no_record_no_report(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(WorkError, match=r"run\.json"):
        write_report(tmp_path)


# ---- in a browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that logs its console and its requests."""
    with chromium() as chrome:
        yield chrome


def run_js(browser: Any, script: str, *args: Any) -> Any:
    return browser.execute_script(script, *args)


def open_page(browser: Any, page: Path) -> None:
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(page.resolve().as_uri())


def assert_quiet(browser: Any, folder: Path) -> None:
    """No console message, no dialog, and nothing was asked for outside the folder."""
    assert browser.get_log("browser") == []
    home = folder.resolve().as_uri()
    for url in requests(browser):
        assert url.startswith((home, "data:")), url


def shows(browser: Any, selector: str, x: float, part: str) -> bool:
    """Whether the colour of content, style or result is on the screen, at a fraction of an element's width, half its height."""

    def shown() -> bool:
        element = browser.find_element("css selector", selector)
        image = Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")
        return near(image, int(x * (image.width - 1)), image.height // 2, COLOURS[part])

    return soon(shown)


def painted(browser: Any) -> bool:
    """Whether every result in view is really drawn, in its colour."""
    find = (
        "const g = document.getElementById('grid').getBoundingClientRect();"
        "return cells.map(b => b.getBoundingClientRect()).filter(r => r.top > g.top + 90 && r.bottom < g.top + 700 && "
        "r.bottom < innerHeight && "
        "r.left > g.left + 90 && r.right < g.right - 20).map(r => [r.left + r.width / 2, r.top + r.height / 2])"
    )

    def all_painted() -> bool:
        centres = run_js(browser, find)
        image = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        return bool(centres) and all(near(image, int(x), int(y), COLOURS["result"]) for x, y in centres)

    return soon(all_painted)


def near(image: Image.Image, x: int, y: int, colour: tuple[int, ...]) -> bool:
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("embedded", [True, False])
def test_compare_three_pairs(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: bool) -> None:
    if not embedded:
        monkeypatch.setattr("diffstyle.figures.gallery.EMBED_BYTES", 10)
    folder = fake_run(tmp_path / "run", ["a", "b", "c"], ["s"])
    open_page(browser, write_report(folder))
    assert run_js(browser, "return document.querySelectorAll('.cell').length") == 3
    assert shows(browser, ".cell", 0.5, "result")
    assert painted(browser)

    browser.find_elements("css selector", ".cell")[1].click()
    assert browser.find_element("id", "pair").text == "content b, style s"
    assert shows(browser, "#frame", 0.3, "content")
    assert shows(browser, "#frame", 0.7, "result")
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    slider = browser.find_element("id", "slider")
    slider.send_keys(keys.HOME)
    assert shows(browser, "#frame", 0.3, "result")
    slider.send_keys(keys.END)
    assert shows(browser, "#frame", 0.7, "content")
    slider.send_keys("s")
    assert shows(browser, "#frame", 0.7, "style")
    slider.send_keys("n")
    assert browser.find_element("id", "pair").text == "content c, style s"
    assert not browser.find_element("id", "next").is_enabled()
    slider.send_keys("pp")
    assert browser.find_element("id", "pair").text == "content a, style s"
    for part, box in zip(("content", "style", "result"), range(1, 4), strict=True):
        assert shows(browser, f"#three figure:nth-child({box}) .crop", 0.5, part)
    browser.switch_to.active_element.send_keys(keys.ESCAPE)
    assert not run_js(browser, "return document.getElementById('compare').open")
    assert soon(lambda: run_js(browser, "return document.activeElement.dataset.i") == "0")
    browser.switch_to.active_element.send_keys(keys.ARROW_DOWN)
    browser.switch_to.active_element.send_keys(keys.ENTER)
    assert browser.find_element("id", "pair").text == "content b, style s"
    assert_quiet(browser, folder)


@pytest.mark.slow
def test_hover_and_filters(browser: Any, tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", ["a", "b"], ["s", "t", "u"], failed={"in/b.png": "b is broken"})
    (folder / "metrics.csv").write_text("content,style,gram\na,s,3\na,t,1\na,u,2\n")
    open_page(browser, write_report(folder))
    actions = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains
    first = browser.find_element("css selector", ".cell")
    actions(browser).move_to_element(first).perform()
    assert shows(browser, ".cell", 0.25, "content")
    assert shows(browser, ".cell", 0.75, "result")
    assert "b is broken" in browser.find_element("id", "failures").text
    assert "6 of 6 pairs shown, 3 failed, 12.3 s" in browser.find_element("id", "summary").text

    select = pytest.importorskip("selenium.webdriver.support.ui").Select
    select(browser.find_element("id", "style")).select_by_visible_text("t")
    assert run_js(browser, "return shown.map(p => [p.c, p.s])") == [[0, 1], [1, 1]]
    select(browser.find_element("id", "style")).select_by_visible_text("all")
    select(browser.find_element("id", "content")).select_by_visible_text("a")
    select(browser.find_element("id", "order")).select_by_visible_text("by gram")
    assert run_js(browser, "return shown.map(p => p.s)") == [1, 2, 0]
    select(browser.find_element("id", "content")).select_by_visible_text("all")
    select(browser.find_element("id", "order")).select_by_visible_text("failed only")
    assert run_js(browser, "return shown.map(p => p.c)") == [1, 1, 1]
    assert_quiet(browser, folder)


@pytest.mark.slow
@pytest.mark.parametrize("embedded", [True, False])
def test_hostile_names(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: bool) -> None:
    if not embedded:
        monkeypatch.setattr("diffstyle.figures.gallery.EMBED_BYTES", 10)
    failed = {name: f"{name} <img src=x onerror=alert(2)>" for name in HOSTILE}
    folder = fake_run(tmp_path / "<b>run</b>", HOSTILE, HOSTILE[:2], failed=failed)
    open_page(browser, write_report(folder))
    assert run_js(browser, "return document.querySelectorAll('script, b, img[onerror]').length") == 2
    assert run_js(browser, "return [...document.querySelectorAll('.row .name span')].map(e => e.textContent)") == HOSTILE
    for i in range(len(HOSTILE)):
        run_js(browser, "compare(arguments[0])", 2 * i)
        assert run_js(browser, "return document.getElementById('pair').textContent").startswith(f"content {HOSTILE[i]}, ")
        assert shows(browser, "#three figure:nth-child(3) .crop", 0.5, "result")
    assert run_js(browser, "return document.documentElement.scrollWidth <= innerWidth")
    assert_quiet(browser, folder)


@pytest.mark.slow
def test_500_pairs_on_phone_and_in_the_dark(browser: Any, tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", [f"c{i:02}" for i in range(25)], [f"s{i:02}" for i in range(20)])
    page = write_report(folder)
    open_page(browser, page)
    assert painted(browser)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        open_page(browser, page)
        assert run_js(browser, "return cells.length") == 500
        assert run_js(browser, "return getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 23)"
        assert run_js(browser, "return document.documentElement.scrollWidth <= innerWidth")
        run_js(browser, "cells[499].scrollIntoView(); cells[499].click()")
        assert browser.find_element("id", "pair").text == "content c24, style s19"
        box = browser.find_element("id", "compare").rect
        assert box["width"] <= 390
        assert shows(browser, "#frame", 0.3, "content")
        assert_quiet(browser, folder)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.slow
def test_10000_pairs_open_lazily(browser: Any, tmp_path: Path) -> None:
    """100 x 100 pairs over the same few files: opens in seconds and loads only what is in view."""
    folder = fake_run(tmp_path / "run", ["a"], ["s"], cell=64)
    record = json.loads((folder / "run.json").read_text())
    one = record["results"][0]
    names = [f"{i:03}" for i in range(100)]
    record["results"] = []
    for c in names:
        for s in names:
            stack = f"{c}_{s}.png"
            for prefix, name in (("", "stack"), ("result_", "result")):
                (folder / f"{prefix}{stack}").symlink_to(folder / one[name])
            record["results"].append({"content": c, "style": s, "stack": stack, "result": f"result_{stack}"})
    (folder / "run.json").write_text(json.dumps(record))
    page = write_report(folder)
    open_page(browser, page)
    assert run_js(browser, "return cells.length") == 10000
    assert painted(browser)
    loaded = run_js(browser, "return [...document.images].filter(i => i.complete && i.naturalWidth).length")
    assert 20 < loaded < 4000
    assert_quiet(browser, folder)
