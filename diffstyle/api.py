"""The Python API: the same code that the command line calls, on tensors, arrays or paths, without writing anything."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffstyle import pipeline
from diffstyle.files import file_hash
from diffstyle.images import load_image
from diffstyle.model import Model
from diffstyle.pipeline import Inverted
from diffstyle.settings import Settings
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.device import pick_device, pick_precision

Pictures = Tensor | np.ndarray | str | Path | Sequence[str | Path]
ROOM = 2.0  # values beyond this are no picture in [-1, 1]
WALK = ("n_inv", "t_0", "solver", "nfe")  # settings that an inversion depends on


def load(
    config: str | Path,
    model_path: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    download: bool = True,
) -> Model:
    """A model ready to use. ``config`` is a name in configs/, a path, a diffusers folder or hf:OWNER/NAME.

    What is published and not here is fetched, unless ``download`` is False. See ``main.py --help`` for the rest.
    Raises UsageError or WorkError with one line that says what is wrong.
    """
    path, place = Path(model_path) if model_path else None, pick_device(device)
    return load_model(load_config(config, path, download), path, place, pick_precision(precision, place), download)


def invert(model: Model, pictures: Pictures, batch_size: int = 4, **settings: Any) -> Inverted:
    """DDIM-invert pictures, once for any number of transfers.

    ``pictures`` are a float tensor or array (N, 3, H, W) in [-1, 1] of the model's size, or paths. ``settings`` are fields of
    ``Settings``; those that matter here are n_inv, t_0, solver and nfe, and content_replace_step and n_gen, which say where
    h is kept. Raises UsageError, ValueError or TypeError.
    """
    s = checked(model, Settings.of(**settings))
    return invert_all(model, *read(model, pictures), s, batch_size)


def transfer(
    model: Model, content: Inverted, style: Inverted, batch_size: int = 4, one_to_one: bool = False, **settings: Any
) -> Tensor:
    """Every content in every style: (C, S, 3, H, W) on the CPU, about [-1, 1], not clipped.

    ``one_to_one`` does the i-th content in the i-th style only: (N, 3, H, W).

    ``settings`` are fields of ``Settings`` (gamma, omega, t_edit ...); what is left out is as in the style's inversion.
    Raises ValueError when the pictures were inverted in another way, and UsageError for a value that cannot be meant.
    """
    base = dataclasses.asdict(style.settings)
    if "variant" in settings:
        base.pop("omega")  # a variant brings its own
    s = checked(model, Settings.of(**{**base, **settings}))
    for name, side in (("content", content), ("style", style)):
        for key in WALK:
            if getattr(side.settings, key) != getattr(s, key):
                raise ValueError(f"the {name} was inverted with {key} {getattr(side.settings, key)}, not {getattr(s, key)}")
    absent = [step.h_from for step in s.transfer_plan() if step.h_from is not None and step.h_from not in content.h]
    if absent:
        raise ValueError(f"the content's h at t = {absent[0]} was not kept: invert it with the same n_gen and "
                         "content_replace_step")  # fmt: skip
    positive(batch_size)
    if one_to_one and len(content) != len(style):
        raise ValueError(f"one_to_one needs as many contents as styles, not {len(content)} and {len(style)}")

    stream = pipeline.one_stream(model, s) if s.noise != "pair" else None
    pairs = [(c, i) for c in range(len(content)) for i in range(len(style)) if not one_to_one or c == i]
    results = []
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        one, other = content[[c for c, _ in batch]], style[[i for _, i in batch]]
        positions = range(start, start + len(batch))
        noise = stream.batch(positions) if stream else pipeline.noise_of_pairs(model, s, one, other)
        results.append(pipeline.transfer(model, one, other, s, noise).cpu())
    x = torch.cat(results)
    return x if one_to_one else x.unflatten(0, (len(content), len(style)))


def stylize(model: Model, contents: Pictures, styles: Pictures, batch_size: int = 4, **settings: Any) -> Tensor:
    """``invert`` both sides, then ``transfer``: every content in every style, (C, S, 3, H, W) on the CPU, about [-1, 1]."""
    s = checked(model, Settings.of(**settings))
    content = invert_all(model, *read(model, contents), s, batch_size, latent=False)
    style = invert_all(model, *read(model, styles), s, batch_size, keep=())
    return transfer(model, content, style, batch_size)


# ---- behind it ---------------------------------------------------------------------------------------------------


def invert_all(
    model: Model,
    x: Tensor,
    keys: Sequence[str],
    s: Settings,
    batch_size: int,
    keep: Sequence[int] | None = None,
    latent: bool = True,
) -> Inverted:
    """Invert x (N, 3, H, W) in batches."""
    positive(batch_size)
    parts = [
        pipeline.invert(model, x[i : i + batch_size], s, keys[i : i + batch_size], keep, latent)
        for i in range(0, len(x), batch_size)
    ]
    return Inverted.join(parts)


def checked(model: Model, s: Settings) -> Settings:
    s.check(model.config.timesteps)
    return s


def positive(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, it must be at least 1")


def read(model: Model, pictures: Pictures) -> tuple[Tensor, list[str]]:
    """Pictures as (N, 3, H, W) fp32 in [-1, 1], and what identifies each: the sha256 of its file, or of its values."""
    size = model.config.image_size
    if isinstance(pictures, (str, Path)):
        pictures = [pictures]
    if isinstance(pictures, np.ndarray):
        if not np.issubdtype(pictures.dtype, np.floating):
            raise TypeError(f"pictures are an array of {pictures.dtype}: give floats in [-1, 1] (x / 127.5 - 1 for 0 to 255)")
        pictures = torch.from_numpy(pictures)
    if isinstance(pictures, Tensor):
        x = check_values(pictures, size)
        return x, [hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in x]
    if not len(pictures):
        raise ValueError("there are no pictures: the list is empty")
    if not all(isinstance(p, (str, Path)) for p in pictures):
        raise TypeError("pictures are a tensor (N, 3, H, W), an array of that shape, or paths")
    return torch.stack([load_image(Path(p), size) for p in pictures]), [file_hash(Path(p)) for p in pictures]


def check_values(x: Tensor, size: int) -> Tensor:
    """x (N, 3, size, size) as fp32 on the CPU. Raises TypeError or ValueError where it is no picture in [-1, 1]."""
    if not x.dtype.is_floating_point:
        raise TypeError(f"pictures are a tensor of {x.dtype}: give floats in [-1, 1] (x / 127.5 - 1 for 0 to 255)")
    if x.dim() != 4 or x.shape[1:] != (3, size, size):
        raise ValueError(f"pictures have shape {tuple(x.shape)}, the model takes (N, 3, {size}, {size})")
    if not len(x):
        raise ValueError("there are no pictures: the tensor is empty")
    x = x.detach().to("cpu", torch.float32).contiguous()
    if not x.isfinite().all():
        raise ValueError("pictures hold values that are not finite")
    low, high = x.amin().item(), x.amax().item()
    if low < -ROOM or high > ROOM:
        raise ValueError(f"pictures lie between {low:.4g} and {high:.4g}, not in [-1, 1] (x / 127.5 - 1 for 0 to 255)")
    return x
