"""Where the content is injected: a soft mask on the h map, from the official box, a rectangle or a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import kind_of, read_bytes
from diffstyle.images import open_grey

BOX = (3 / 8, 4 / 8, 5 / 8, 7 / 8)  # the official rows 4..6 and columns 3..4 of an 8x8 map, as x0, y0, x1, y1


def parse_rectangle(spec: str) -> tuple[float, float, float, float] | None:
    """ "x0,y0,x1,y1" in fractions of the picture, or None if that is not what ``spec`` looks like."""
    try:
        values = [float(v) for v in spec.split(",")]
    except ValueError:
        return None
    if len(values) != 4:
        return None
    x0, y0, x1, y1 = values
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UsageError(f"--mask {spec}: a rectangle is x0,y0,x1,y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
    return x0, y0, x1, y1


def coverage(low: float, high: float, cells: int) -> Tensor:
    """The share of each of ``cells`` equal cells of [0, 1] that lies between low and high, (cells,)."""
    edges = torch.linspace(0, 1, cells + 1, dtype=torch.float64)
    overlap = edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)
    return (overlap.clamp(min=0) * cells).float()


def mask_file(spec: str) -> Path | None:
    """The picture that a mask's ``spec`` names; None for the box, a rectangle or none. Raises UsageError for anything else."""
    if not spec or spec == "box" or parse_rectangle(spec):
        return None
    path = Path(spec)
    if kind_of(path) != "file":
        raise UsageError(f"--mask {spec}: neither a picture nor a rectangle x0,y0,x1,y1")
    return path


def mask_digest(spec: str) -> str:
    """sha256 of a mask's file, "" where it is none: a file drawn anew is another mask. Raises UsageError or WorkError."""
    path = mask_file(spec)
    return hashlib.sha256(read_bytes(path)).hexdigest() if path else ""


def build_mask(spec: str, size: Sequence[int]) -> Tensor | None:
    """The mask (1, 1, H', W') in [0, 1] for an h map of ``size`` (H', W'); None for an empty spec (everywhere).

    A picture is centre-cropped as the inputs are and resized by area: white takes the content there, grey partly.
    Raises UsageError or WorkError.
    """
    if not spec:
        return None
    rectangle = BOX if spec == "box" else parse_rectangle(spec)
    if rectangle:
        x0, y0, x1, y1 = rectangle
        return (coverage(y0, y1, size[0])[:, None] * coverage(x0, x1, size[1])[None, :])[None, None]
    path = mask_file(spec)
    assert path  # neither box nor rectangle
    try:
        grey = open_grey(read_bytes(path), path)
    except WorkError as error:
        raise WorkError(f"--mask {error}") from error
    short = min(grey.size)
    left, top = (grey.width - short) // 2, (grey.height - short) // 2
    grey = grey.crop((left, top, left + short, top + short)).resize((size[1], size[0]), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(grey, dtype=np.float32) / 255)[None, None]
