"""Draw cartoon portraits whose shape and colours are known: the data of the embedded model.

    python scripts/make_avatars.py --n 20000 --seed 0 --out data/avatars.npz     # + data/avatars_attributes.csv
    python scripts/make_avatars.py --n 100 --seed 1 --size 256 --out data/faces  # PNG files + attributes.csv
    python scripts/make_avatars.py --n 20000 --layers --out data/layers.npz      # to be coloured anew in every batch

Avatar i of seed s is the same whatever --n and --size. By convention training draws seed 0, held-out
measurements seed 1, the pictures of test_images/ seed 2 and measure_budgets.py seed 3, so they never overlap.

Drawn by python-avatars (MIT; designs by Pablo Stanley, free for personal and commercial use) and rasterised
by resvg-py; both are development packages (requirements-dev.txt).
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import multiprocessing.pool
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from avatar_parts import BEARDS, GLASSES, HATS, MIN_DISTANCE, MOUTHS, RGB, TOPS, Avatar, Colours, Shape, sample_attributes
from PIL import Image

try:
    import python_avatars as pa  # type: ignore[import-untyped]
    import resvg_py
except ImportError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"error: {error.name} is missing: pip install -r requirements-dev.txt")

# What others import from here.
__all__ = [
    "BEARDS",
    "GLASSES",
    "MIN_DISTANCE",
    "MOUTHS",
    "TOPS",
    "Avatar",
    "Colours",
    "layers",
    "region_masks",
    "render",
    "sample_attributes",
]

LEFT, TOP, SIDE = 20.0, 10.0, 224.0  # the square of the 264x280 drawing that fills the frame at zoom 1
PIVOT_X, PIVOT_Y = 132, 160  # what zoom and tilt leave in place: the throat, so that clothes stay in view
SUPERSAMPLING = 2
PALETTES = 50000  # colourings that --layers writes
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


# ---- drawing

# A coloured area is a grey <use> under a masked rectangle of the colour. Colouring the <use> itself gives the same
# picture without the grey seam along every edge, and draws faster.
COLOUR_GROUP = re.compile(
    r'<use ([^>]*?)fill="[^"]*"([^>]*)/>\s*<g id="[^"]*Color" mask="[^"]*" fill="(@\w+)">\s*'
    r"(?:<rect [^>]*/>|<g [^>]*>\s*<rect [^>]*/>\s*</g>)\s*</g>"
)


def _template(shape: Shape) -> str:
    """The SVG of a shape with @hair, @beard, @skin, @clothes in place of the colours."""
    top = (pa.HatType if shape.top in HATS else pa.HairType)[shape.top]
    svg = pa.Avatar(
        style=pa.AvatarStyle.TRANSPARENT,
        top=top,
        eyes=pa.EyeType[shape.eyes],
        eyebrows=pa.EyebrowType[shape.eyebrows],
        nose=pa.NoseType[shape.nose],
        mouth=pa.MouthType[shape.mouth],
        accessory=pa.AccessoryType[shape.glasses],
        facial_hair=pa.FacialHairType[shape.beard],
        clothing=pa.ClothingType[shape.clothes],
        skin_color="@skin",
        hair_color="@hair",
        hat_color="@hair",
        facial_hair_color="@beard",
        clothing_color="@clothes",
    ).render()
    svg = COLOUR_GROUP.sub(r'<use \1fill="\3"\2/>', svg)

    # Move the features on the head; brows, eyes, nose and mouth are in "Face", the others hang on the hair.
    def turned(match: re.Match[str]) -> str:
        x, y = float(match[2]) + shape.turn_x, float(match[3]) + shape.turn_y
        return f'{match[1]}transform="translate({x} {y})"'

    svg = re.sub(r'(<g id="[^"]*_(?:Face|Accessory|Facial-Hair)" )transform="translate\(([\d.]+)[, ]+([\d.]+)\)"', turned, svg)

    # Frame: move the drawing, then cut the square out. Clothes go on below the original's lower edge.
    scale_y = shape.zoom / shape.stretch**0.5
    scale_x = scale_y * shape.stretch * (-1 if shape.flip else 1)
    frame = (
        f"translate({PIVOT_X + shape.shift_x} {PIVOT_Y + shape.shift_y}) rotate({shape.tilt}) "
        f"scale({scale_x:.5f} {scale_y:.5f}) translate({-PIVOT_X} {-PIVOT_Y})"
    )
    framed = rf'<g transform="{frame}"><rect x="32" y="279" width="200" height="80" fill="@clothes"/>\1'
    svg = re.sub(r'(<g id="[^"]*Avataaar/Default")', framed, svg, count=1)
    svg = svg.replace("</svg>", "</g></svg>")
    return re.sub(r'viewBox="[^"]*"', f'viewBox="{LEFT} {TOP} {SIDE} {SIDE}"', svg, count=1)


def _rasterise(template: str, size: int, background: RGB, hair: RGB, beard: RGB, skin: RGB, clothes: RGB) -> np.ndarray:
    """Template in these colours -> (size, size, 3) uint8, anti-aliased by drawing larger and averaging."""
    for name, colour in (("@hair", hair), ("@beard", beard), ("@skin", skin), ("@clothes", clothes)):
        template = template.replace(name, _hex(colour))
    large = size * SUPERSAMPLING
    svg = re.sub(r'width="[^"]*" height="[^"]*"', f'width="{large}" height="{large}"', template, count=1)
    png = resvg_py.svg_to_bytes(svg_string=svg, background=_hex(background), skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB").reduce(SUPERSAMPLING))


def _hex(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def render(avatar: Avatar, size: int = 64) -> np.ndarray:
    """The portrait, (size, size, 3) uint8. The geometry is the same at every size."""
    c = avatar.colours
    return _rasterise(_template(avatar.shape), size, c.background, c.hair, c.hair, c.skin, c.clothes)


def region_masks(avatar: Avatar, size: int = 64) -> dict[str, np.ndarray]:
    """Where each colour is: background, hair, beard, skin, clothes, each (size, size) float32 in [0, 1]; and glasses.

    A pixel is a constant plus the sum of weight x colour over the regions, since blending is linear; these are the
    weights, so they sum to 1 except where eyes, mouth, shadows, glasses or the white of some hats and collars cover
    them. hair excludes beard.
    glasses (float32, 0 or 1) marks the pixels that change when they are taken off. beard and glasses are all zero
    where none is worn. The colours of the avatar do not matter.
    """
    template = _template(avatar.shape)
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    constant = _rasterise(template, size, BLACK, BLACK, BLACK, BLACK, BLACK).astype(np.float32)
    one = (_rasterise(template, size, BLACK, red, BLACK, green, blue) - constant) / 255
    two = (_rasterise(template, size, green, BLACK, red, BLACK, BLACK) - constant) / 255
    weights = {
        "background": two[..., 1],
        "hair": one[..., 0],
        "beard": two[..., 0],
        "skin": one[..., 1],
        "clothes": one[..., 2],
    }
    masks = {name: np.clip(weight, 0, 1).astype(np.float32) for name, weight in weights.items()}

    masks["glasses"] = np.zeros((size, size), np.float32)
    if avatar.shape.glasses != "NONE":
        without = _template(replace(avatar.shape, glasses="NONE"))
        bright = [_rasterise(t, size, WHITE, WHITE, WHITE, WHITE, WHITE).astype(int) for t in (template, without)]
        masks["glasses"] = (np.abs(bright[0] - bright[1]).max(axis=2) > 24).astype(np.float32)
    return masks


def layers(avatar: Avatar, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """What any colouring of the shape is made of: constant (size, size, 3) and weights (size, size, 4), both uint8.

    The picture is constant + sum of weights / 255 x colour over background, hair (with the beard), skin and clothes, up
    to rounding. The colours of the avatar do not matter.
    """
    template = _template(avatar.shape)
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    constant = _rasterise(template, size, BLACK, BLACK, BLACK, BLACK, BLACK)
    one = _rasterise(template, size, BLACK, red, red, green, blue).astype(int) - constant
    two = _rasterise(template, size, red, BLACK, BLACK, BLACK, BLACK).astype(int) - constant
    weights = np.concatenate([two[..., :1], one], axis=2)
    return constant, weights.clip(0, 255).astype(np.uint8)


# ---- output


def attribute_row(seed: int, index: int, avatar: Avatar) -> dict[str, object]:
    """One line of attributes.csv: seed, index, the shape, the colours as #rrggbb."""
    colours = {f"colour_{name}": _hex(colour) for name, colour in asdict(avatar.colours).items()}
    return {"seed": seed, "index": index, **asdict(avatar.shape), **colours}


def _draw(index: int, seed: int, size: int) -> tuple[dict[str, object], np.ndarray]:
    avatar = sample_attributes(seed, index)
    return attribute_row(seed, index, avatar), render(avatar, size)


def processes(workers: int) -> multiprocessing.pool.Pool:
    """Not forked: a child of a process with other threads (a progress bar has one) may wait for ever for what they hold."""
    return multiprocessing.get_context("spawn").Pool(workers)


def draw_all(n: int, seed: int, size: int, workers: int = 1) -> Iterator[tuple[dict[str, object], np.ndarray]]:
    """Attribute row and picture of avatars 0..n-1, in order."""
    draw = partial(_draw, seed=seed, size=size)
    if workers == 1:
        yield from map(draw, range(n))
        return
    with processes(workers) as pool:
        yield from pool.imap(draw, range(n), chunksize=64)


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def write(out: Path, n: int, seed: int, size: int, workers: int = 1) -> Path:
    """Draw n avatars into an .npz or a folder; returns where the attributes went."""
    rows: list[dict[str, object]] = []
    as_npz = out.suffix == ".npz"
    (out.parent if as_npz else out).mkdir(parents=True, exist_ok=True)
    # One .npz may lie beside another, so its CSV carries its name.
    table = out.with_name(out.stem + "_attributes.csv") if as_npz else out / "attributes.csv"
    images = np.empty((n if as_npz else 0, size, size, 3), np.uint8)
    for i, (row, image) in enumerate(draw_all(n, seed, size, workers)):
        rows.append(row)
        if as_npz:
            images[i] = image
        else:
            temporary = out / f"{i:06d}.tmp"
            Image.fromarray(image).save(temporary, format="PNG")
            os.replace(temporary, out / f"{i:06d}.png")
        if sys.stderr.isatty() and (i + 1) % 100 == 0:
            print(f"\r{i + 1}/{n}", end="\n" if i + 1 == n else "", file=sys.stderr)
    write_csv(table, rows)
    if as_npz:
        temporary = out.with_name(out.name + ".tmp")
        with open(temporary, "wb") as file:
            np.savez_compressed(file, images=images)
        os.replace(temporary, out)
    return table


def _draw_layers(index: int, seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    return layers(sample_attributes(seed, index), size)


def write_layers(out: Path, n: int, seed: int, size: int, workers: int = 1) -> None:
    """An .npz with constant (n, size, size, 3) and weights (n, size, size, 4) of ``layers`` and colours (PALETTES, 4, 3).

    The colours are those of the seed's first PALETTES avatars, whose shapes need not be drawn for that: shape and colours
    are independent, so any shape may wear any of them.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    constant, weights = np.empty((n, size, size, 3), np.uint8), np.empty((n, size, size, 4), np.uint8)
    colours = [list(asdict(sample_attributes(seed, i).colours).values()) for i in range(PALETTES)]
    with processes(workers) as pool:
        drawn = pool.imap(partial(_draw_layers, seed=seed, size=size), range(n), chunksize=64)
        for i, (c, w) in enumerate(drawn):
            constant[i], weights[i] = c, w
    temporary = out.with_name(out.name + ".tmp")
    with open(temporary, "wb") as file:
        np.savez(file, constant=constant, weights=weights, colours=np.array(colours, np.uint8))
    os.replace(temporary, out)


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw cartoon portraits with known attributes.")
    parser.add_argument("--n", type=int, required=True, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="training 0, held-out 1, test images 2 (default %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="a file ending in .npz, or a folder for PNG files")
    parser.add_argument("--layers", action="store_true", help="write what colours are multiplied with (see layers)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default %(default)s)")
    args = parser.parse_args()
    for name, least in (("n", 1), ("seed", 0), ("size", 8), ("workers", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, not {getattr(args, name)}")
    if args.layers and args.out.suffix != ".npz":
        parser.error(f"--layers writes an .npz, not {args.out}")
    try:
        if args.layers:
            write_layers(args.out, args.n, args.seed, args.size, args.workers)
            print(f"layers of {args.n} avatars of seed {args.seed}: {args.out}")
            return 0
        table = write(args.out, args.n, args.seed, args.size, args.workers)
    except (OSError, MemoryError) as error:
        print(f"error: cannot write {args.out}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    print(f"{args.n} avatars of seed {args.seed}: {args.out}, {table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
