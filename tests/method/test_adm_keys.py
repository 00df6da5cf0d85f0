"""The full-size ADM layouts against their published names, listed here by guided-diffusion's rules, not by our code."""

from __future__ import annotations

import pytest
import torch

from diffstyle.models import build_unet
from diffstyle.zoo.config import load_config


def layer(prefix: str) -> list[str]:
    return [f"{prefix}.weight", f"{prefix}.bias"]


def res_block(prefix: str, c_in: int, c_out: int) -> list[str]:
    names = ["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"]
    names += ["skip_connection"] if c_in != c_out else []
    return [key for name in names for key in layer(f"{prefix}.{name}")]


def attention(prefix: str) -> list[str]:
    return [key for name in ("norm", "qkv", "proj_out") for key in layer(f"{prefix}.{name}")]


def published_keys(ch: int, blocks: int, attention_at: set[int]) -> set[str]:
    """256x256, channel_mult 1,1,2,2,4,4, resblock_updown."""
    widths = [ch * m for m in (1, 1, 2, 2, 4, 4)]
    keys = layer("time_embed.0") + layer("time_embed.2") + layer("input_blocks.0.0")
    skips, c, n = [ch], ch, 1
    for level, width in enumerate(widths):
        for _ in range(blocks):
            keys += res_block(f"input_blocks.{n}.0", c, width)
            keys += attention(f"input_blocks.{n}.1") if 256 >> level in attention_at else []
            c, n = width, n + 1
            skips.append(c)
        if level < 5:
            keys += res_block(f"input_blocks.{n}.0", c, c)
            n += 1
            skips.append(c)
    keys += res_block("middle_block.0", c, c) + attention("middle_block.1") + res_block("middle_block.2", c, c)
    n = 0
    for level in (5, 4, 3, 2, 1, 0):
        for i in range(blocks + 1):
            keys += res_block(f"output_blocks.{n}.0", c + skips.pop(), widths[level])
            c, j = widths[level], 1
            if 256 >> level in attention_at:
                keys += attention(f"output_blocks.{n}.{j}")
                j += 1
            if level and i == blocks:
                keys += res_block(f"output_blocks.{n}.{j}", c, c)
            n += 1
    return {*keys, *layer("out.0"), *layer("out.2")}


@pytest.mark.parametrize(
    ("name", "ch", "blocks", "attention_at"),
    [("afhq", 128, 1, {16}), ("ffhq", 128, 1, {16}), ("metface", 128, 1, {16}), ("imagenet", 256, 2, {32, 16, 8})],
)
def test_full_size_names(name: str, ch: int, blocks: int, attention_at: set[int]) -> None:
    config = load_config(f"{name}.yml")
    with torch.device("meta"):
        ours = set(build_unet(config.family, config.image_size, config.architecture).state_dict())
    assert ours == published_keys(ch, blocks, attention_at)
