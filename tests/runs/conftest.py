"""A tiny model with random weights for pictures of 32 pixels, and the flags that use it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from cli_tools import QUICK

from diffstyle.models import build_unet
from golden_models import GOLDEN

ARCHITECTURE = {"ch": 8, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "norm_groups": 4}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config, and model.pt beside it."""
    path = tmp_path / "tiny.yml"
    model = {"type": "ddpm", **ARCHITECTURE}
    path.write_text(yaml.safe_dump({"data": {"dataset": "CelebA_HQ", "image_size": 32}, "model": model}))
    torch.manual_seed(0)
    torch.save(build_unet("ddpm", 32, ARCHITECTURE).state_dict(), path.with_name("model.pt"))
    return path


@pytest.fixture
def base(config: Path, tmp_path: Path) -> list[str]:
    return [
        "--config", str(config), "--model_path", str(config.with_name("model.pt")),
        "--content_dir", str(GOLDEN / "images/contents"), "--style_dir", str(GOLDEN / "images/styles"),
        "--save_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache"), *QUICK,
    ]  # fmt: skip
