"""Numbers from configs: what they may be. A config from elsewhere must not be able to fill the machine or to hang it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diffstyle.errors import one_line
from diffstyle.models.adm import DEFAULT_CHANNEL_MULT

# Constructor keywords of both families: (type of number, least, greatest). The published networks lie well inside.
NUMBERS: dict[str, tuple[type[int] | type[float], float, float]] = {
    "ch": (int, 1, 4096),
    "num_channels": (int, 1, 4096),
    "num_res_blocks": (int, 1, 16),
    "dropout": (float, 0, 0.99),
    "in_channels": (int, 3, 3),
    "out_ch": (int, 3, 6),
    "head_dim": (int, 1, 4096),
    "norm_groups": (int, 1, 1024),
    "norm_eps": (float, 1e-12, 1e-2),
    "freq_shift": (float, 0, 16),
    "num_heads": (int, 1, 256),
    "num_head_channels": (int, -1, 4096),
    "num_heads_upsample": (int, -1, 256),
}
LISTS: dict[str, tuple[type[int] | type[float], float, float]] = {  # of at most LEVELS numbers
    "ch_mult": (float, 0.01, 64),
    "channel_mult": (float, 0.01, 64),
    "attn_resolutions": (int, 1, 4096),
    "attention_resolutions": (int, 1, 4096),
}
SETTINGS: dict[str, tuple[type[int] | type[float], float, float]] = {  # fields of diffstyle.Settings that a config may advise
    "gamma": (float, 0, 1),
    "omega": (float, 0, 10),
    "t_edit": (int, 0, 10_000),
    "t_boost": (int, 0, 10_000),
    "t_0": (int, 1, 9_999),
    "n_inv": (int, 2, 10_000),
    "n_gen": (int, 2, 10_000),
    "content_replace_step": (int, 0, 10_000),
}
LEVELS = 10
SIZE = (int, 8, 4096)
TIMESTEPS = (int, 1, 10_000)


def number(key: str, value: Any, kind: type[int] | type[float], least: float, greatest: float) -> Any:
    """``value`` as ``kind`` between ``least`` and ``greatest``. Raises ValueError that names the key.

    YAML reads 1e-4 as text, which is a number all the same.
    """
    try:
        exact = float(value)
    except (TypeError, ValueError, OverflowError):
        exact = math.nan
    if isinstance(value, bool) or math.isnan(exact):
        raise ValueError(f"{key} is {brief(value)}, not a number")
    if kind is int and exact != int(min(max(exact, -1e18), 1e18)):
        raise ValueError(f"{key} is {brief(value)}, it must be an integer")
    if not least <= exact <= greatest:
        wanted = f"from {least:g} to {greatest:g}" if least != greatest else f"{least:g}"
        raise ValueError(f"{key} is {brief(value)}, it must be {wanted}")
    return kind(exact) if isinstance(value, str) else kind(value)


def brief(value: Any) -> str:
    """A wrong value, short enough for an error line."""
    try:
        text = one_line(repr(value))
    except (ValueError, RecursionError):  # Python prints no integer of more than 4300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_architecture(family: str, image_size: int, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor keywords of a network as the types that it takes. Raises ValueError that names the key."""
    result = {key: check_one(key, value) for key, value in architecture.items()}
    mults = result.get("ch_mult" if family == "ddpm" else "channel_mult") or DEFAULT_CHANNEL_MULT.get(image_size, ())
    factor = 2 ** max(0, len(mults) - 1)
    if image_size % factor:
        raise ValueError(f"image_size is {image_size}, it must be a multiple of {factor}: a network of {len(mults)} levels "
                         f"halves it {len(mults) - 1} times")  # fmt: skip
    return result


def check_one(key: str, value: Any) -> Any:
    if key in NUMBERS:
        optional = value is None and key == "head_dim"
        return None if optional else number(key, value, *NUMBERS[key])
    if key in LISTS:
        kind, least, greatest = LISTS[key]
        if not isinstance(value, (list, tuple)) or len(value) > LEVELS:
            raise ValueError(f"{key} is {brief(value)}, it must be a list of at most {LEVELS} numbers")
        return [int(n) if (n := number(key, item, kind, least, greatest)) == int(n) else n for item in value]
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {brief(value)}, it must be true or false")
    return value
