"""Pictures in and out: decode and crop, lay out, save whole or not at all, with the settings inside."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from diffstyle.errors import WorkError
from diffstyle.files import dump, read_bytes, write_whole

TEXT_KEY = "diffstyle"  # the PNG text chunk that carries the settings
GREY = (128, 128, 128)  # an empty cell of the grid
HUGE = 50_000_000  # pixels from which a JPEG is decoded at a fraction of its size
# The formats that are read: pixels only, decoded by Pillow itself. (It would run Ghostscript for an EPS under any name.)
RASTER = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "PPM", "TGA", "ICO", "CUR", "ICNS", "JPEG2000",
          "PCX", "SGI", "QOI", "PSD", "DDS")  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n"


# ---- in ----------------------------------------------------------------------------------------------------------


@cache
def raster_formats() -> tuple[str, ...]:
    """Those of ``RASTER`` that this Pillow knows."""
    Image.init()
    return tuple(name for name in RASTER if name in Image.OPEN)


def readable_endings() -> set[str]:
    """The endings, as ".png", of the formats that are read."""
    formats = raster_formats()
    return {ending for ending, name in Image.registered_extensions().items() if name in formats}


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
    return decode(read_bytes(path), path, size, exif)


def decode(data: bytes, path: Path, size: int, exif: bool = False) -> Image.Image:
    """``open_fitted`` for bytes in hand; ``path`` is where they are from."""
    try:
        with warnings.catch_warnings():
            # Nothing here is for the user to mend. Pillow's guard stays on: from 179 megapixels on it refuses.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=raster_formats()) as image:
                if image.width * image.height > HUGE:
                    image.draft("RGB", (4 * size, 4 * size))  # JPEG only: decode at 1/2, 1/4 or 1/8, no smaller than this
                return fit(turned(image) if exif else image, size)
    except Exception as error:  # a damaged file can make Pillow's readers fail in any way
        raise WorkError(f"{path}: not a readable picture ({reason_of(error)})") from error


def dimensions(data: bytes, path: Path) -> tuple[int, int]:
    """Width and height of a picture, which is not decoded for it. Raises WorkError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=raster_formats()) as image:
                return image.size
    except Exception as error:
        raise WorkError(f"{path}: not a readable picture ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """What Pillow says, in at most 200 characters of one line."""
    if isinstance(error, UnidentifiedImageError):
        return "of no format that is read here"  # Pillow names an object in memory
    return " ".join(str(error).split())[:200] or type(error).__name__


def load_image(path: Path, size: int, exif: bool = False) -> Tensor:
    """Read one picture as (3, size, size) in [-1, 1]. Raises WorkError in one line for a broken file."""
    return to_tensor(open_fitted(path, size, exif))


def orientation(data: bytes) -> int:
    """The EXIF orientation of a picture, 2 to 8; 1 is upright, as is everything that has none or is not readable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=raster_formats()) as image:
                value = image.getexif().get(0x0112, 1)
        return value if value in range(2, 9) else 1
    except Exception:  # broken EXIF is as common as it is varied; the picture itself is judged when it is decoded
        return 1


def open_grey(data: bytes, path: Path) -> Image.Image:
    """A whole picture as 8-bit greyscale. Raises WorkError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=raster_formats()) as image:
                return to_rgb(image).convert("L")
    except Exception as error:
        raise WorkError(f"{path}: not a readable picture ({reason_of(error)})") from error


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
    """The settings inside a whole and undamaged PNG of ours; None for anything else that lies there under our name."""
    try:
        return record_in(read_bytes(path))
    except WorkError:
        return None


def read_result(path: Path) -> Image.Image | None:
    """An undamaged PNG of ours as RGB; None for anything else. It is told from damage by more than Pillow looks at."""
    try:
        data = read_bytes(path)
        if record_in(data) is None or not unpacks(data):
            return None
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return image.convert("RGB")
    except Exception:  # whatever lies there under our name, it is no result
        return None


def record_in(png: bytes) -> dict[str, Any] | None:
    """The settings in a PNG of ours if every one of its bytes is as it was written (each chunk has its CRC), else None."""
    record, kinds = None, set()
    try:
        for kind, body in chunks(png):
            kinds.add(kind)
            if kind == b"iTXt" and body[: len(TEXT_KEY) + 1] == f"{TEXT_KEY}\0".encode():
                text = bytes(body[len(TEXT_KEY) + 1 :]).split(b"\0", 4)  # uncompressed, no language, no translation
                record = json.loads(text[-1]) if text[:4] == [b""] * 4 else None
    except (ValueError, struct.error, RecursionError):
        return None
    return record if isinstance(record, dict) and {b"IHDR", b"IDAT"} <= kinds else None


def chunks(png: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and body of each chunk of a PNG. Raises ValueError or struct.error where one is damaged or the file is cut."""
    view, at, kind = memoryview(png), len(PNG), b""
    if png[:at] != PNG:
        raise ValueError("not a PNG")
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", png, at)
        end = at + 8 + length
        if zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", png, end)[0]:
            raise ValueError(f"chunk {kind!r} is damaged")
        yield kind, view[at + 8 : end]
        at = end + 4


def unpacks(png: bytes) -> bool:
    """Whether the pixels of an 8-bit RGB picture, as ours are, unpack to their number; 4 ms for 256 x 768. Raises zlib.error."""
    parts = list(chunks(png))
    width, height, *form = struct.unpack(">IIBBBBB", parts[0][1])
    count = height * (1 + 3 * width)  # a byte of filter before each row
    if form != [8, 2, 0, 0, 0] or not 0 < width * height <= HUGE:
        return False
    unpacker = zlib.decompressobj()
    pixels = unpacker.decompress(b"".join(body for kind, body in parts if kind == b"IDAT"), count + 1)
    return len(pixels) == count and unpacker.eof
