"""From the command line's words to a page on this machine."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

from diffstyle.errors import UsageError
from diffstyle.explore.desk import Desk, Given
from diffstyle.model import Model
from diffstyle.runs.config import RunConfig
from diffstyle.runs.inputs import Sample, path_of
from diffstyle.runs.plan import find_inputs
from diffstyle.runs.run import precompute
from diffstyle.runs.sources import REPOSITORY
from diffstyle.settings import Settings
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.device import pick_device, pick_dtype

EXAMPLES = REPOSITORY / "test_images" / "avatars"  # of a checkout


def serve(
    config: str = "avatars.yml",
    model_path: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
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
    given = Given(config, model_path, device, precision, Path(save_dir) / "explore", Path(cache_dir))
    checkpoint = Path(model_path) if model_path else None
    model = load_model(load_config(config), checkpoint, pick_device(device), pick_dtype(precision), download=download)
    desk = Desk(model, given)
    with tempfile.TemporaryDirectory(prefix="diffstyle-") as folder:
        # For Gradio, before it is imported. What is dropped on the page waits in this folder and goes with it.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = folder
        from diffstyle.explore import page

        sides = [
            inputs(model, given, spec, flag, EXAMPLES / name, Path(folder))
            for spec, flag, name in ((content_dir, "--content_dir", "contents"), (style_dir, "--style_dir", "styles"))
        ]
        try:
            page.show(desk, *sides, port, open_browser)
        finally:
            desk.ticket()  # what is still being made is not wanted any more


def check_gradio() -> None:
    if importlib.util.find_spec("gradio") is None:
        raise UsageError('--explore needs Gradio, which is not installed: pip install gradio, or pip install "diffstyle[demo]"')


def inputs(model: Model, given: Given, spec: str | None, flag: str, examples: Path, folder: Path) -> list[Path]:
    """The pictures to choose from; none without a folder and without examples, they can still be dropped."""
    if spec is None and not examples.is_dir():
        return []
    if spec is None:
        spec = os.path.relpath(examples)
    # Drawn pictures (sample:N) leave latents of their making, which a command that names their files would not have.
    cfg = RunConfig(Path(), Path(), given.save_dir, Settings(n_gen=50), cache_dir=folder / "latents")
    found = find_inputs(cfg, Path(spec), flag)
    if any(isinstance(each, Sample) for each in found):
        precompute(model, cfg, found)  # draws them
    return [path_of(each) for each in found]
