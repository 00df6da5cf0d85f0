"""A tiny model and the flags that use it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cli_tools import QUICK

from golden_models import ARCHITECTURES, GOLDEN


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config for the golden DDPM."""
    path = tmp_path / "tiny.yml"
    model = {"type": "ddpm", **ARCHITECTURES["ddpm"]}
    path.write_text(yaml.safe_dump({"data": {"dataset": "CelebA_HQ", "image_size": 32}, "model": model}))
    return path


@pytest.fixture
def base(config: Path, tmp_path: Path) -> list[str]:
    return [
        "--config", str(config), "--model_path", str(GOLDEN / "ddpm/model.pt"),
        "--content_dir", str(GOLDEN / "images/contents"), "--style_dir", str(GOLDEN / "images/styles"),
        "--save_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache"), *QUICK,
    ]  # fmt: skip
