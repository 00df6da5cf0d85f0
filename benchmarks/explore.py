#!/usr/bin/env python3
"""From a move of the gamma slider to the picture, in a headless Chromium: the page to play with on the embedded model.

    PYTHONPATH=tests python benchmarks/explore.py              # ten moves of the slider at the settings that it begins with
    PYTHONPATH=tests python benchmarks/explore.py --solver abm3

Needs Chromium with its driver, selenium and Gradio. Every gamma is a new one; both pictures are inverted before. Prints medians
and extremes of the seconds by the clock until the browser has the picture, and of the CPU time that this process, the server with
the browser's driver, takes meanwhile; the latter depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import diffstyle
from diffstyle.explore.desk import Desk, Given

ROOT = Path(__file__).resolve().parents[1]
AVATARS = ROOT / "test_images/avatars"
SEEN = """const command = document.querySelector('#command textarea')?.value ?? '';
    return document.querySelector('#stage .save')?.href.startsWith('data:') ? command : ''"""


def wait(browser: Any, before: str) -> str:
    """The command of the next picture, once the browser has it."""
    end = time.monotonic() + 600
    while (command := browser.execute_script(SEEN)) in ("", before):
        if time.monotonic() > end:
            raise TimeoutError("no picture in ten minutes")
        time.sleep(0.02)
    return str(command)


def brush(browser: Any) -> None:
    """Paint the mask of docs/explore.jpg, rows 3 to 5 and columns 2 to 5 of 8 x 8 cells, in one stroke."""
    from selenium.webdriver.common.action_chains import ActionChains

    next(b for b in browser.find_elements("css selector", "button") if b.text == "Brush a mask").click()
    cells = browser.find_elements("css selector", "#stage .cells button")
    stroke = ActionChains(browser, duration=20).move_to_element(cells[26]).click_and_hold()
    for i in (27, 28, 29, 37, 36, 35, 34, 42, 43, 44, 45):
        stroke.move_to_element(cells[i])
    stroke.release().perform()


def moves(desk: Desk, n: int, screenshot: Path | None) -> list[tuple[float, float]]:
    """(seconds by the clock, seconds of CPU time) of each move."""
    from browser_tools import chromium, slider
    from selenium.webdriver.common.keys import Keys

    from diffstyle.explore import page as module

    page = module.build(desk, *(sorted((AVATARS / side).glob("*.png")) for side in ("contents", "styles")))
    found = []
    with chromium() as browser:
        browser.get(module.launch(page))
        command = wait(browser, "")
        for _ in range(n):
            clock, cpu = time.perf_counter(), time.process_time()
            slider(browser, "gamma").send_keys(Keys.ARROW_LEFT)
            command = wait(browser, command)
            found.append((time.perf_counter() - clock, time.process_time() - cpu))
        if screenshot:
            brush(browser)
            wait(browser, command)
            Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB").save(screenshot, quality=88)
    page.close(verbose=False)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=10)
    parser.add_argument("--solver", default="ddim")
    parser.add_argument("--screenshot", type=Path, help="where a picture of the page goes, a mask brushed on: docs/explore.jpg")
    args = parser.parse_args()
    model = diffstyle.load("avatars.yml", device="cpu")
    start = {**model.config.settings, "solver": args.solver}
    model = replace(model, config=replace(model.config, settings=start))
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        found = moves(
            Desk(model, Given(save_dir=Path(folder, "out"), cache_dir=Path(folder, "cache"))), args.moves, args.screenshot
        )
    evaluations = diffstyle.Settings.of(**start).transfer_evaluations(model.config.grid)
    print(f"{args.solver}, {evaluations} evaluations a picture, {args.moves} moves of gamma, {torch.get_num_threads()} threads")
    for what, seconds in zip(("slider to picture, s", "CPU time of server and driver, s"), zip(*found, strict=True), strict=True):
        print(f"{what}: median {statistics.median(seconds):.2f}, {min(seconds):.2f} to {max(seconds):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
