"""Labelled tables of pictures, drawn with Pillow alone: what sweeps, animations and the figure scripts show."""

from __future__ import annotations

import functools
import importlib.util
import io
import struct
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import write_whole

SYMBOLS = {"gamma": "γ", "omega": "ω", "dt_lambda": "λ", "n_gen": "N_gen", "n_inv": "N_inv"}
FORMATS = {"gif": "GIF", "png": "PNG", "webp": "WEBP"}  # of animations; png is APNG
MIN_CELL = 96  # pixels; smaller pictures are enlarged for the eye
INK, PAPER, EMPTY = "#16181d", "#ffffff", "#e6e8ec"
PAD = 8

Cell = Image.Image | None


@functools.lru_cache(8)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans from the system or from matplotlib, because it has the Greek letters; else Pillow's own font."""
    places: list[str] = ["DejaVuSans.ttf"]
    found = importlib.util.find_spec("matplotlib")
    if found and found.origin:
        places.append(str(Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"))
    for place in places:
        try:
            return ImageFont.truetype(place, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def symbol(key: str) -> str:
    """The paper's symbol for a setting, or its name where the font at hand has no Greek."""
    text = SYMBOLS.get(key, key)
    drawable = text.isascii() or "DejaVu" in str(font(14).getname()[0])  # type: ignore[union-attr]
    return text if drawable else key


def fit(text: str, size: int, width: int) -> str:
    """``text``, cut with an ellipsis where it is wider than ``width`` pixels; control characters are replaced."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    while text and font(size).getlength(text) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text


def enlarge(image: Image.Image, cell: int) -> Image.Image:
    return image if image.size == (cell, cell) else image.resize((cell, cell), Image.Resampling.LANCZOS)


def table(
    rows: Sequence[Sequence[Cell]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    row_title: str = "",
    column_title: str = "",
    title: str = "",
    beside: Sequence[tuple[str, Image.Image]] = (),
    cell: int = 0,
) -> Image.Image:
    """A table of square pictures with titled, labelled axes; ``beside`` are captioned pictures to its left.

    None is an empty cell. ``cell`` is the side of a picture in pixels (0: that of the first, but at least MIN_CELL).
    """
    first = next((image for row in rows for image in row if image), None)
    cell = cell or max(MIN_CELL, first.width if first else 0)
    text = max(12, cell // 9)
    line = text + 6
    columns = max(map(len, rows))
    pitch = cell + 4
    side = (cell + 3 * PAD) if beside else 0
    labels = max((int(font(text).getlength(fit(s, text, 3 * cell))) for s in row_labels), default=0)
    left = PAD + side + (line if row_title else 0) + (labels + PAD if labels else 0)
    top = PAD + line * (bool(title) + bool(column_title) + bool(column_labels))
    height = max(top + len(rows) * pitch, PAD + line * bool(title) + len(beside) * (cell + line)) + PAD
    sheet = Image.new("RGB", (left + columns * pitch + PAD, height), PAPER)
    draw = ImageDraw.Draw(sheet)

    def write(x: float, y: float, words: str, anchor: str, width: int) -> None:
        draw.text((x, y), fit(words, text, width), fill=INK, font=font(text), anchor=anchor)

    y = PAD
    if title:
        write(PAD, y, title, "la", sheet.width - 2 * PAD)
        y += line
    for i, (caption, image) in enumerate(beside):
        sheet.paste(enlarge(image, cell), (PAD, y + i * (cell + line)))
        write(PAD + cell / 2, y + i * (cell + line) + cell + 1, caption, "ma", cell + 2 * PAD)
    if column_title:
        write(left + columns * pitch / 2, y, column_title, "ma", columns * pitch)
        y += line
    for i, words in enumerate(column_labels):
        write(left + i * pitch + cell / 2, y, words, "ma", pitch)
    for i, words in enumerate(row_labels):
        write(left - PAD, top + i * pitch + cell / 2, words, "rm", 3 * cell)
    if row_title:
        upright = Image.new("RGB", (len(rows) * pitch, line), PAPER)
        words = fit(row_title, text, upright.width)
        ImageDraw.Draw(upright).text((upright.width / 2, 0), words, fill=INK, font=font(text), anchor="ma")
        sheet.paste(upright.rotate(90, expand=True), (PAD + side, top))
    for r, row in enumerate(rows):
        for c, content in enumerate(row):
            place = (left + c * pitch, top + r * pitch)
            sheet.paste(enlarge(content, cell) if content else Image.new("RGB", (cell, cell), EMPTY), place)
    return sheet


def animation_format(word: str) -> tuple[str, str]:
    """What ``--animate`` asks for: "gamma", "t.webp" ... to (what, ending); the default ending is gif."""
    what, _, ending = word.partition(".")
    if what not in ("gamma", "t") or (ending or "gif") not in FORMATS:
        raise UsageError(f"--animate {word} is not known: use gamma or t, with .gif, .png or .webp after it if you like")
    return what, ending or "gif"


def save_animation(path: Path, frames: Sequence[Image.Image], seconds: float = 0.15) -> None:
    """Write frames of one size as GIF, APNG or WebP by the path's ending; it loops and rests on the last frame.

    Raises WorkError, also where the format has no frames of that size or Pillow was built without it.
    """
    durations = [int(1000 * seconds)] * (len(frames) - 1) + [1500]
    kind, buffer = FORMATS[path.suffix[1:]], io.BytesIO()
    try:
        frames[0].save(buffer, format=kind, save_all=True, append_images=list(frames[1:]), duration=durations, loop=0)
    except (OSError, RuntimeError, ValueError, KeyError, struct.error) as error:
        size = " x ".join(map(str, frames[0].size))
        raise WorkError(f"{path}: {size} pixels cannot be written as {kind} ({error}); take another format") from error
    write_whole(path, lambda f: f.write(buffer.getvalue()))
