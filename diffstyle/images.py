"""Pictures in and out: decode and crop, lay out, save whole or not at all, with the settings inside."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from diffstyle.errors import WorkError
from diffstyle.files import dump, write_whole

TEXT_KEY = "diffstyle"  # the PNG text chunk that carries the settings
GREY = (128, 128, 128)  # an empty cell of the grid
HUGE = 50_000_000  # pixels from which a JPEG is decoded at a fraction of its size


# ---- in ----------------------------------------------------------------------------------------------------------


def fit(image: Image.Image, size: int) -> Image.Image:
    """As the official code: RGB, centre-crop to the short side, bilinear antialiased resize; 8 bits, (size, size)."""
    short = min(image.size)
    left, top = round((image.width - short) / 2), round((image.height - short) / 2)
    cropped = to_rgb(image.crop((left, top, left + short, top + short)))
    return cropped.resize((size, size), Image.Resampling.BILINEAR)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparency is dropped, as in the official code. Deep greyscale is scaled, where PIL would clip it."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        high = values.max(initial=0)
        white = 65535 if high > 255 or image.mode.startswith("I;16") else 1 if image.mode == "F" and high <= 1 else 255
        image = Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """An 8-bit RGB picture as (3, H, W) in [-1, 1]."""
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return x.to(torch.float32).div(255) * 2 - 1


def preprocess(image: Image.Image, size: int) -> Tensor:
    """``fit`` as (3, size, size) in [-1, 1]."""
    return to_tensor(fit(image, size))


def open_fitted(path: Path, size: int, exif: bool = False) -> Image.Image:
    """Read one picture for a network of this size, turned as its EXIF says if asked for. Raises WorkError, one line."""
    try:
        with warnings.catch_warnings():
            # Nothing here is for the user to mend. Pillow's guard stays on: from 179 megapixels on it refuses.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if image.width * image.height > HUGE:
                    image.draft("RGB", (4 * size, 4 * size))  # JPEG only: decode at 1/2, 1/4 or 1/8, no smaller than this
                return fit(turned(image) if exif else image, size)
    except Exception as error:  # a damaged file can make Pillow's readers fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WorkError(f"{path}: not a readable picture ({reason[:200]})") from error


def load_image(path: Path, size: int, exif: bool = False) -> Tensor:
    """Read one picture as (3, size, size) in [-1, 1]. Raises WorkError in one line for a broken file."""
    return to_tensor(open_fitted(path, size, exif))


def orientation(path: Path) -> int:
    """The EXIF orientation of a picture, 2 to 8; 1 is upright, as is everything that has none or is not readable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                value = image.getexif().get(0x0112, 1)
        return value if value in range(2, 9) else 1
    except Exception:  # broken EXIF is as common as it is varied; the picture itself is judged when it is decoded
        return 1


def turned(image: Image.Image) -> Image.Image:
    """The picture upright; as it is if its EXIF is broken."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


# ---- out ---------------------------------------------------------------------------------------------------------


def to_image(x: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] to an 8-bit picture: (x + 1) / 2, clipped and rounded as torchvision's save_image does."""
    array = ((x + 1) / 2).mul(255).add(0.5).clamp(0, 255).permute(1, 2, 0).to("cpu", torch.uint8).numpy()
    return Image.fromarray(array)


def tile(rows: Iterable[Sequence[Image.Image | None]], columns: int, cell: int, count: int) -> Image.Image:
    """A table of ``count`` rows of square pictures with one black pixel around each; None is an empty (grey) cell.

    Rows are taken one by one, so the inputs of a large table need not be in memory together.
    """
    pitch = cell + 1
    table = Image.new("RGB", (columns * pitch + 1, count * pitch + 1))
    empty = Image.new("RGB", (cell, cell), GREY)
    for j, row in enumerate(rows):
        for i, image in enumerate(row):
            image = image or empty
            if image.size != (cell, cell):
                image = image.resize((cell, cell), Image.Resampling.BOX)
            table.paste(image, (i * pitch + 1, j * pitch + 1))
    return table


def save_png(path: Path, image: Image.Image, record: dict[str, Any] | None = None) -> None:
    """Save a picture as PNG, with ``record`` inside."""
    write_whole(path, lambda f: write_png(f, image, record))


def write_png(file: BinaryIO, image: Image.Image, record: dict[str, Any] | None = None) -> None:
    """Write a picture as PNG, with ``record`` as JSON in the text chunk ``diffstyle``."""
    info = PngImagePlugin.PngInfo()
    if record is not None:
        info.add_itxt(TEXT_KEY, dump(record))
    image.save(file, format="PNG", pnginfo=info)


def read_record(path: Path) -> dict[str, Any] | None:
    """The settings inside a whole PNG of ours; None for any other, cut or unreadable file. Does not decode the pixels."""
    try:
        with path.open("rb") as f:
            f.seek(-8, os.SEEK_END)
            if f.read(4) != b"IEND":
                return None
        with Image.open(path) as image:
            record = json.loads(image.info[TEXT_KEY])
    except Exception:  # whatever lies there under our name, it is no result
        return None
    return record if isinstance(record, dict) else None


# ---- what a killed process leaves --------------------------------------------------------------------------------


