"""diffusers' ``UNet2DModel`` <-> the original DDPM names: one key table, state dict to state dict, and its config.json.

Both name the same 450 tensors of the published networks; only 1x1 convolutions in attention are linear layers there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Ours -> theirs. {i} is a level, {j} a block in it; {r} is the level counted from the other end, because diffusers
# stores the decoder deepest level first.
MODULES = {
    "temb.dense.0": "time_embedding.linear_1",
    "temb.dense.1": "time_embedding.linear_2",
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
    "mid.block_1": "mid_block.resnets.0",
    "mid.attn_1": "mid_block.attentions.0",
    "mid.block_2": "mid_block.resnets.1",
    "down.{i}.block.{j}": "down_blocks.{i}.resnets.{j}",
    "down.{i}.attn.{j}": "down_blocks.{i}.attentions.{j}",
    "down.{i}.downsample.conv": "down_blocks.{i}.downsamplers.0.conv",
    "up.{i}.block.{j}": "up_blocks.{r}.resnets.{j}",
    "up.{i}.attn.{j}": "up_blocks.{r}.attentions.{j}",
    "up.{i}.upsample.conv": "up_blocks.{r}.upsamplers.0.conv",
}
RES_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "temb_proj": "time_emb_proj",
    "nin_shortcut": "conv_shortcut",
}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OLD_ATTENTION = {"norm": "group_norm", "q": "query", "k": "key", "v": "value", "proj_out": "proj_attn"}  # before 0.15

# config.json: what our DDPM is, and the value that diffusers assumes where the file is silent.
FIXED: dict[str, tuple[Any, Any]] = {
    "act_fn": ("silu", "silu"),
    "time_embedding_type": ("positional", "positional"),
    "flip_sin_to_cos": (False, True),
    "freq_shift": (1, 0),
    "attention_head_dim": (None, 8),  # None: one head
    "norm_eps": (1e-6, 1e-5),
    "norm_num_groups": (32, 32),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "conv"),
    "upsample_type": ("conv", "conv"),
    "mid_block_scale_factor": (1, 1),
    "center_input_sample": (False, False),
    "resnet_time_scale_shift": ("default", "default"),
    "add_attention": (True, True),
    "class_embed_type": (None, None),
    "num_class_embeds": (None, None),
}


def is_diffusers(state: Mapping[str, Tensor]) -> bool:
    return "time_embedding.linear_1.weight" in state


def from_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for a ``UNet2DModel`` state dict, either attention naming. ValueError names a key that has no place."""
    levels = len({key.split(".")[1] for key in state if key.startswith("up_blocks.")})
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = to_our_name(key, levels)
        if name in result:
            raise ValueError(f"key {key} and another one both mean {name}")
        projection = ".attn" in name and tensor.ndim == 2  # (C, C) -> the 1x1 convolution (C, C, 1, 1)
        result[name] = tensor[:, :, None, None] if projection else tensor
    return result


def to_diffusers(state: Mapping[str, Tensor], old_attention: bool = False) -> dict[str, Tensor]:
    """``UNet2DModel`` names for a DDPM state dict of ours. ValueError names a key that has no place."""
    levels = len({key.split(".")[1] for key in state if key.startswith("up.")})
    result = {}
    for key, tensor in state.items():
        projection = ".attn" in key and tensor.ndim == 4
        name = to_their_name(key, levels, OLD_ATTENTION if old_attention else ATTENTION)
        result[name] = tensor[:, :, 0, 0] if projection else tensor
    return result


def to_their_name(key: str, levels: int, attention: Mapping[str, str]) -> str:
    for ours, theirs in MODULES.items():
        match = match_key(ours, key)
        leaves = leaf_names(ours, attention)
        if match and match["leaf"] in leaves:
            return fill(theirs, match, leaves[match["leaf"]], levels)
    raise ValueError(f"key {key} has no counterpart in diffusers' UNet2DModel")


def to_our_name(key: str, levels: int) -> str:
    for ours, theirs in MODULES.items():
        match = match_key(theirs, key)
        if match:
            for attention in (ATTENTION, OLD_ATTENTION):
                leaves = {their_leaf: leaf for leaf, their_leaf in leaf_names(ours, attention).items()}
                if match["leaf"] in leaves:
                    return fill(ours, match, leaves[match["leaf"]], levels)
    raise ValueError(f"key {key} has no counterpart in the original DDPM layout")


def match_key(module: str, key: str) -> re.Match[str] | None:
    """Read ``key`` as a parameter under ``module``, a left or right side of MODULES."""
    pattern = re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(module))
    return re.fullmatch(pattern + r"\.?(?P<leaf>.*?)\.(?P<kind>weight|bias)", key)


def leaf_names(ours: str, attention: Mapping[str, str]) -> Mapping[str, str]:
    """What a module of ours holds, ours -> theirs; a plain layer holds its weight and bias directly."""
    return RES_BLOCK if ".block" in ours else attention if ".attn" in ours else {"": ""}


def fill(module: str, match: re.Match[str], leaf: str, levels: int) -> str:
    """The key under ``module`` for the numbers that ``match`` has read on the other side."""
    n = {name: int(value) for name, value in match.groupdict().items() if name in ("i", "j", "r")}
    i = n.get("i", levels - 1 - n["r"] if "r" in n else 0)
    return ".".join(p for p in (module.format(i=i, r=levels - 1 - i, j=n.get("j")), leaf, match["kind"]) if p)


def diffusers_architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our DDPM's constructor keywords from a diffusers config.json. ValueError names what our network does not do."""
    name = config.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise ValueError(f"_class_name is {name}, only UNet2DModel is known")
    for key, (needed, default) in FIXED.items():
        value = config.get(key, default)
        if value != needed:
            raise ValueError(f"{key} is {value}, the DDPM network needs {needed}")
    try:
        widths, size = list(config["block_out_channels"]), int(config["sample_size"])
        downs, ups = list(config["down_block_types"]), list(config["up_block_types"])
        layers = int(config["layers_per_block"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"block_out_channels, sample_size, layers_per_block or the block types: {error!r}") from None
    attention = [block == "AttnDownBlock2D" for block in downs]
    wanted_downs = ["AttnDownBlock2D" if a else "DownBlock2D" for a in attention]
    wanted_ups = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)]
    if not widths or downs != wanted_downs or ups != wanted_ups or len(downs) != len(widths):
        raise ValueError(f"down_block_types {downs} and up_block_types {ups} are not the DDPM network's")
    if any(w % widths[0] for w in widths):
        raise ValueError(f"block_out_channels {widths} are not multiples of the first")
    return {
        "image_size": size,
        "ch": widths[0],
        "ch_mult": [w // widths[0] for w in widths],
        "num_res_blocks": layers,
        "attn_resolutions": [size >> i for i, a in enumerate(attention) if a],
        "dropout": float(config.get("dropout", 0.0)),
        "in_channels": int(config.get("in_channels", 3)),
        "out_ch": int(config.get("out_channels", 3)),
    }


def diffusers_config(image_size: int, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the ``UNet2DModel`` that equals our DDPM(image_size, **architecture)."""
    ch, mults = architecture["ch"], list(architecture["ch_mult"])
    attention = [image_size >> i in architecture["attn_resolutions"] for i in range(len(mults))]
    return {
        "_class_name": "UNet2DModel",
        **{key: needed for key, (needed, _) in FIXED.items()},
        "sample_size": image_size,
        "in_channels": architecture.get("in_channels", 3),
        "out_channels": architecture.get("out_ch", 3),
        "dropout": architecture.get("dropout", 0.0),
        "block_out_channels": [ch * m for m in mults],
        "layers_per_block": architecture["num_res_blocks"],
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
    }
