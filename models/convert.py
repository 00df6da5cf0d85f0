"""diffusers' ``UNet2DModel`` <-> the original DDPM names: one key table, state dict to state dict, and its config.json.

Both name the same 450 tensors of the published networks; only 1x1 convolutions in attention are linear layers there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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

# config.json: what our DDPM does not do otherwise, and the value that diffusers assumes where the file is silent.
FIXED: dict[str, tuple[Any, Any]] = {
    "act_fn": ("silu", "silu"),
    "time_embedding_type": ("positional", "positional"),
    "time_embedding_dim": (None, None),
    "downsample_type": ("conv", "conv"),
    "upsample_type": ("conv", "conv"),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D"),
    "mid_block_scale_factor": (1, 1),
    "center_input_sample": (False, False),
    "add_attention": (True, True),
    "attn_norm_num_groups": (None, None),
    "class_embed_type": (None, None),
    "num_class_embeds": (None, None),
}
# Ours, its default -> theirs, its default, where both mean the same number.
SHARED: dict[str, tuple[Any, str, Any]] = {
    "dropout": (0.0, "dropout", 0.0),
    "in_channels": (3, "in_channels", 3),
    "out_ch": (3, "out_channels", 3),
    "head_dim": (None, "attention_head_dim", 8),
    "norm_groups": (32, "norm_num_groups", 32),
    "norm_eps": (1e-6, "norm_eps", 1e-5),
    "cos_first": (False, "flip_sin_to_cos", True),
    "freq_shift": (1, "freq_shift", 0),
}
# scheduler_config.json
PREDICTION_TYPES = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


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


# ---- the files beside the weights --------------------------------------------------------------------------------


def diffusers_architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """image_size and our DDPM's constructor keywords from a diffusers config.json, their sizes unchecked.

    ValueError names what our network does not do, or what makes no sense.
    """
    name = config.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise ValueError(f"_class_name is {name}, only UNet2DModel is known")
    for key, (needed, default) in FIXED.items():
        value = config.get(key, default)
        if value != needed:
            raise ValueError(f"{key} is {value}, the DDPM network needs {needed}")
    padding = one_of(config, "downsample_padding", {1: True, 0: False}, 1)
    scale_shift = one_of(config, "resnet_time_scale_shift", {"default": False, "scale_shift": True}, "default")
    widths, size = integers(config, "block_out_channels"), config.get("sample_size")
    if type(size) is not int or not 0 < size <= 1 << 16:
        raise ValueError(f"sample_size is {size}, it must be the width of square pictures")
    downs, ups = config.get("down_block_types"), config.get("up_block_types")
    attention = [block == "AttnDownBlock2D" for block in downs] if isinstance(downs, list) else []
    if [downs, ups] != list(block_types(attention)) or len(attention) != len(widths):
        raise ValueError(f"down_block_types {downs} and up_block_types {ups} are not those of a DDPM of {len(widths)} levels")
    return {
        "image_size": size,
        "ch": widths[0],
        "ch_mult": [w // widths[0] if w % widths[0] == 0 else w / widths[0] for w in widths],
        "num_res_blocks": config.get("layers_per_block", 2),
        "attn_resolutions": [size >> i for i, a in enumerate(attention) if a],
        **{ours: config.get(theirs, default) for ours, (_, theirs, default) in SHARED.items()},
        "pad_all_sides": padding,
        "scale_shift": scale_shift,
    }


def diffusers_config(image_size: int, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the ``UNet2DModel`` that equals our DDPM(image_size, **architecture)."""
    ch, mults = architecture["ch"], list(architecture["ch_mult"])
    downs, ups = block_types([image_size >> i in architecture["attn_resolutions"] for i in range(len(mults))])
    return {
        "_class_name": "UNet2DModel",
        **{key: needed for key, (needed, _) in FIXED.items()},
        **{theirs: architecture.get(ours, default) for ours, (default, theirs, _) in SHARED.items()},
        "downsample_padding": int(architecture.get("pad_all_sides", False)),
        "resnet_time_scale_shift": "scale_shift" if architecture.get("scale_shift") else "default",
        "sample_size": image_size,
        "block_out_channels": [round(ch * m) for m in mults],
        "layers_per_block": architecture["num_res_blocks"],
        "down_block_types": downs,
        "up_block_types": ups,
    }


def block_types(attention: Sequence[bool]) -> tuple[list[str], list[str]]:
    """diffusers' names of the levels, down and up; ``attention`` says which level has it."""
    return (
        ["AttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
    )


def diffusers_schedule(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """The noise schedule and the prediction of a scheduler_config.json, under ModelConfig's names; sizes unchecked."""
    kind = str(scheduler.get("_class_name", ""))
    if kind.startswith(("FlowMatch", "EDM", "ScoreSde", "Karras")) or scheduler.get("trained_betas") is not None:
        raise ValueError(f"{kind} with these settings is no schedule of betas that is known here")
    if scheduler.get("rescale_betas_zero_snr"):
        raise ValueError("rescale_betas_zero_snr is true: pure noise has no inversion")
    names = {name: name for name in ("linear", "scaled_linear", "squaredcos_cap_v2")}
    return {
        "beta_schedule": one_of(scheduler, "beta_schedule", names, "linear"),
        "beta_start": scheduler.get("beta_start", 1e-4),
        "beta_end": scheduler.get("beta_end", 0.02),
        "timesteps": scheduler.get("num_train_timesteps", 1000),
        "prediction": one_of(scheduler, "prediction_type", PREDICTION_TYPES, "epsilon"),
    }


def scheduler_config(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The scheduler_config.json that says what ``schedule`` (ModelConfig's names) does, as plain DDIM without clipping."""
    kind = schedule["beta_schedule"]
    return {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "squaredcos_cap_v2" if kind == "cosine" else kind,
        "beta_start": schedule["beta_start"],
        "beta_end": schedule["beta_end"],
        "num_train_timesteps": schedule["timesteps"],
        "prediction_type": {ours: theirs for theirs, ours in PREDICTION_TYPES.items()}[schedule["prediction"]],
        "clip_sample": False,
        "set_alpha_to_one": True,
    }


def one_of(config: Mapping[str, Any], key: str, meanings: Mapping[Any, Any], default: Any) -> Any:
    """What the value of ``key`` means. ValueError when it is none of ``meanings``."""
    value = config.get(key, default)
    for known, meaning in meanings.items():
        if value == known:
            return meaning
    raise ValueError(f"{key} is {value}, only {', '.join(map(str, meanings))} are known")


def integers(config: Mapping[str, Any], key: str) -> list[int]:
    """A list of some positive integers. ValueError when it is none."""
    value = config.get(key)
    if not isinstance(value, list) or not value or any(type(n) is not int or not 0 < n < 1 << 20 for n in value):
        raise ValueError(f"{key} is {value}, it must be a list of positive integers")
    return value
