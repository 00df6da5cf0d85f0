"""What a checkpoint is, told from its weights alone: family and sizes, as far as key names and shapes go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def recognise(state: Mapping[str, Tensor], image_size: int = 256) -> dict[str, Any]:
    """Family and constructor keywords of the network that a state dict (our names) belongs to; {} if it is neither's.

    Attention is given as resolutions, which needs ``image_size``. Head count, attention order and dropout leave no
    trace in the shapes and are absent.
    """
    try:
        if "temb.dense.0.weight" in state:
            return recognise_ddpm(state, image_size)
        if "time_embed.0.weight" in state:
            return recognise_adm(state, image_size)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        pass  # the names begin like a family's but do not go on like it
    return {}


def count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many indices follow ``prefix``, e.g. "down." -> number of levels."""
    found = (re.match(rf"{re.escape(prefix)}(\d+)\.", key) for key in state)
    return len({m[1] for m in found if m})


def recognise_ddpm(state: Mapping[str, Tensor], image_size: int) -> dict[str, Any]:
    ch, in_channels = state["conv_in.weight"].shape[:2]
    levels = range(count(state, "down."))
    widths = [state[f"down.{i}.block.0.conv1.weight"].shape[0] for i in levels]
    return {
        "family": "ddpm",
        "ch": ch,
        "ch_mult": [w // ch if w % ch == 0 else w / ch for w in widths],
        "num_res_blocks": count(state, "down.0.block."),
        "attn_resolutions": [image_size >> i for i in levels if f"down.{i}.attn.0.q.weight" in state],
        "resamp_with_conv": len(levels) == 1 or "down.0.downsample.conv.weight" in state,
        "in_channels": in_channels,
        "out_ch": state["conv_out.weight"].shape[0],
        "scale_shift": state["down.0.block.0.temb_proj.weight"].shape[0] == 2 * widths[0],
    }


def recognise_adm(state: Mapping[str, Tensor], image_size: int) -> dict[str, Any]:
    ch = state["time_embed.0.weight"].shape[1]
    # Both halves have levels * (num_res_blocks + 1) stages. The first decoder stage that also resamples, by a second
    # residual block or by a lone convolution, ends the deepest level.
    stages = count(state, "output_blocks.")
    ups = [(i, name) for i in range(stages) for k in (1, 2) for name in ("conv", "in_layers.2")
           if f"output_blocks.{i}.{k}.{name}.weight" in state]  # fmt: skip
    per_level = ups[0][0] + 1 if ups else stages
    firsts = [1 + per_level * level for level in range(stages // per_level)]  # first residual block of each level
    widths = [state[f"input_blocks.{i}.0.in_layers.2.weight"].shape[0] for i in firsts]
    return {
        "family": "adm",
        "num_channels": ch,
        "channel_mult": [w // ch if w % ch == 0 else w / ch for w in widths],
        "num_res_blocks": per_level - 1,
        "attention_resolutions": [image_size >> n for n, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in state],
        "use_scale_shift_norm": state["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0],
        "resblock_updown": not ups or ups[0][1] == "in_layers.2",
        "learn_sigma": state["out.2.weight"].shape[0] == 6,
    }
