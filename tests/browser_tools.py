"""A headless Chromium for the tests, and what it said and asked for."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium(width: int = 1200, height: int = 900) -> Iterator[Any]:
    """A headless Chromium that logs its console and its requests; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (requirements-dev.txt)")
    binary = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with chromedriver here (Debian: apt-get install chromium chromium-driver)")
    logging.getLogger("selenium").setLevel(logging.WARNING)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome


def requests(browser: Any) -> list[str]:
    """The addresses that the page has asked for since this was last called."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def slider(browser: Any, name: str) -> Any:
    """The range input of a control of the page to play with; None while it is not there."""
    script = """return [...document.querySelectorAll('.block')].find(block => block.querySelector('input[type=range]') &&
        block.querySelector('[data-testid="block-info"]')?.textContent.trim() === arguments[0])
        ?.querySelector('input[type=range]')"""
    return browser.execute_script(script, name)


def soon(condition: Callable[[], Any], seconds: float = 10) -> bool:
    """Whether it comes true in time: painting, the events of a dialog and answers of a server are asynchronous."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
