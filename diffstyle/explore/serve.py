"""From the command line's words to a page on this machine."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from pathlib import Path

from diffstyle.errors import UsageError
from diffstyle.explore.desk import Desk, Given
from diffstyle.runs.config import RunConfig
from diffstyle.runs.plan import find_inputs
from diffstyle.runs.sources import REPOSITORY
from diffstyle.settings import Settings
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.device import pick_device, pick_precision

OLDEST = 6  # Gradio whose HTML has events and properties of its own
EXAMPLES = REPOSITORY / "test_images" / "avatars"  # of a checkout


def serve(
    config: str = "avatars.yml",
    model_path: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    content_dir: str | None = None,
    style_dir: str | None = None,
    save_dir: str = "results",
    cache_dir: str = "precomputed",
    port: int | None = None,
    open_browser: bool = True,
    download: bool = True,
) -> None:
    """Show the page until it is interrupted. A folder that is None is that of the embedded model's examples.

    Nothing of it leaves the machine: the server is bound to 127.0.0.1. Raises UsageError where Gradio is missing.
    """
    check_gradio()
    if port is not None and not 0 < port < 1 << 16:
        raise UsageError(f"--explore {port}: a port is a number from 1 to 65535")
    given = Given(config, model_path, device, precision, Path(save_dir) / "explore", Path(cache_dir))
    contents = inputs(given, content_dir, "--content_dir", EXAMPLES / "contents")
    styles = inputs(given, style_dir, "--style_dir", EXAMPLES / "styles")
    checkpoint = Path(model_path) if model_path else None
    place = pick_device(device)
    model = load_model(load_config(config, model_path, download), checkpoint, place, pick_precision(precision, place), download)
    desk = Desk(model, given)
    with tempfile.TemporaryDirectory(prefix="diffstyle-") as folder:
        # For Gradio, before it is imported. What is dropped on the page waits in this folder and goes with it.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = folder
        from diffstyle.explore import page

        try:
            page.show(desk, contents, styles, port, open_browser)
        finally:
            desk.ticket()  # what is still being made is not wanted any more


def check_gradio() -> None:
    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < OLDEST:
        raise UsageError(f"--explore needs Gradio {OLDEST} or newer, here is {version}: pip install 'gradio>={OLDEST}'")


def inputs(given: Given, spec: str | None, flag: str, examples: Path) -> list[Path]:
    """The pictures to choose from; none without a folder and without examples, they can still be dropped."""
    if spec is None and not examples.is_dir():
        return []
    cfg = RunConfig(Path(), Path(), given.save_dir, Settings(), cache_dir=given.cache_dir)
    found = find_inputs(cfg, Path(os.path.relpath(examples) if spec is None else spec), flag)
    paths = [each for each in found if isinstance(each, Path)]
    if len(paths) < len(found):
        raise UsageError(f"{flag} {spec}: the page shows files only; draw the pictures into a folder with a run first")
    return paths
