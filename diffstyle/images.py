"""Pictures in and out: list, load, lay out, save whole or not at all, with the settings inside."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor
from torchvision.transforms import functional as TF

from diffstyle.errors import UsageError, WorkError

log = logging.getLogger(__name__)
TEXT_KEY = "diffstyle"  # the PNG text chunk that carries the settings
GREY = (128, 128, 128)  # an empty cell of the grid


@dataclass(frozen=True)
class Picture:
    """One input: where it is, what results are called after it, and what its bytes are."""

    path: Path
    name: str
    digest: str  # sha256 of the file


def list_images(folder: Path, flag: str) -> list[Path]:
    """The pictures of a folder (or the one file given), sorted by name; other files are skipped with a notice."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise UsageError(f"{flag} {folder}: no such folder")
    known = Image.registered_extensions()
    files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=lambda p: p.name)
    images = [p for p in files if p.suffix.lower() in known]
    skipped = [p.name for p in files if p not in images]
    if skipped:
        log.info("%s: skipped %d file(s) that are no pictures: %s", folder, len(skipped), ", ".join(skipped[:5]))
    if not images:
        raise UsageError(f"{flag} {folder}: no picture in it")
    return images


def read_pictures(paths: Sequence[Path]) -> list[Picture]:
    """Name and digest every input; two files of one stem keep their endings in the name, so results never collide."""
    stems = [p.stem for p in paths]
    pictures = []
    for path in paths:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise WorkError(f"{path}: cannot be read ({error.strerror})") from error
        pictures.append(Picture(path, path.stem if stems.count(path.stem) == 1 else path.name, digest))
    return pictures


def preprocess(image: Image.Image, size: int) -> Tensor:
    """As the official code: RGB, centre-crop to the short side, bilinear antialiased resize; (3, size, size) in [-1, 1]."""
    image = image.convert("RGB")
    image = TF.center_crop(image, [min(image.size)] * 2)
    image = TF.resize(image, [size, size], interpolation=TF.InterpolationMode.BILINEAR, antialias=True)
    return TF.to_tensor(image) * 2 - 1


def load_image(path: Path, size: int) -> Tensor:
    """Read one picture for a network of this size. Raises WorkError in one line for a broken file."""
    try:
        with Image.open(path) as image:
            return preprocess(image, size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise WorkError(f"{path}: not a readable picture ({' '.join(str(error).split())})") from error


def to_image(x: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] to an 8-bit picture: (x + 1) / 2, clipped and rounded as torchvision's save_image does."""
    array = ((x + 1) / 2).mul(255).add(0.5).clamp(0, 255).permute(1, 2, 0).to("cpu", torch.uint8).numpy()
    return Image.fromarray(array)


def tile(rows: Iterable[Sequence[Image.Image | None]], columns: int, cell: int) -> Image.Image:
    """A table of square pictures with one black pixel around each; None is an empty (grey) cell.

    Rows are taken one by one, so the inputs of a large table need not be in memory together.
    """
    pitch, bands = cell + 1, []
    for row in rows:
        band = Image.new("RGB", (columns * pitch + 1, pitch))
        for i, image in enumerate(row):
            image = image or Image.new("RGB", (cell, cell), GREY)
            if image.size != (cell, cell):
                image = image.resize((cell, cell), Image.Resampling.BOX)
            band.paste(image, (i * pitch + 1, 1))
        bands.append(band)
    table = Image.new("RGB", (columns * pitch + 1, len(bands) * pitch + 1))
    for i, band in enumerate(bands):
        table.paste(band, (0, i * pitch))
    return table


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: the file appears whole or not at all."""
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            write(f)
        os.replace(temporary, path)
    except OSError as error:
        raise WorkError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    write_whole(path, lambda f: f.write(text.encode()))


def save_png(path: Path, image: Image.Image, record: dict[str, Any] | None = None) -> None:
    """Save a picture as PNG, with ``record`` as JSON in the text chunk ``diffstyle``."""
    info = PngImagePlugin.PngInfo()
    if record is not None:
        info.add_itxt(TEXT_KEY, json.dumps(record, ensure_ascii=False, default=str))
    write_whole(path, lambda f: image.save(f, format="PNG", pnginfo=info))


def read_record(path: Path) -> dict[str, Any] | None:
    """The settings inside a PNG of ours; None for any other or unreadable file. Does not decode the pixels."""
    try:
        with Image.open(path) as image:
            return json.loads(image.info[TEXT_KEY])
    except (OSError, KeyError, ValueError, SyntaxError):
        return None
