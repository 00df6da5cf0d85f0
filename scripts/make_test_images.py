"""Make every picture of test_images/ again, and LICENSES.md beside them.

    python scripts/make_test_images.py --out test_images

Four sources, all free: avatars of seed 2 (scripts/make_avatars.py), pictures that lie inside the scikit-image and
matplotlib packages, textures computed here, and portraits drawn once by scripts/draw_portraits.mjs.
Nothing is downloaded. Needs requirements-dev.txt.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SIZE = 256
AVATAR_SEED = 2
AVATAR_CONTENTS = (2, 7, 10, 35, 37, 46)  # clearly different outlines; with and without glasses, hat, beard
AVATAR_STYLES = (17, 21, 24, 33, 38, 49)  # clearly different colours


# ---- pictures of our own making: each (256, 256, 3) float in [0, 1]

Y, X = np.mgrid[0:SIZE, 0:SIZE] / SIZE


def noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth random field (256, 256) in [0, 1] with about `cells` bumps a side."""
    grid = Image.fromarray(rng.random((cells + 2, cells + 2), dtype=np.float32))
    field = np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=float)
    return (field - field.min()) / (field.max() - field.min())


def ramp(value: np.ndarray, *codes: str) -> np.ndarray:
    """Value in [0, 1], any shape, to colours between the given "rrggbb": shape + (3,)."""
    stops = np.array([list(bytes.fromhex(code)) for code in codes]) / 255
    at = np.linspace(0, 1, len(codes))
    return np.stack([np.interp(value, at, stops[:, channel]) for channel in range(3)], axis=-1)


def watercolour() -> np.ndarray:
    """Washes that run into each other on grainy paper, darker where a wash dried."""
    rng = np.random.default_rng(11)
    picture = np.ones((SIZE, SIZE, 3)) * (0.97, 0.95, 0.90)
    for code in ("2f6fa8", "d9576b", "e8b13a", "3f9b86", "6a4c93"):
        wash = 0.8 * noise(rng, 3) + 0.2 * noise(rng, 16)
        inside = np.clip((wash - 0.60) / 0.03, 0, 1)
        rim = np.exp(-(((wash - 0.62) / 0.012) ** 2))
        strength = inside * (0.45 + 0.25 * noise(rng, 8)) + 0.25 * rim
        picture *= 1 - strength[..., None] * (1 - ramp(np.zeros(()), code, code))
    return picture * (0.94 + 0.06 * noise(rng, 128))[..., None]


def mosaic() -> np.ndarray:
    """Tiles (cells of random points) coloured by a smooth field, with dark joints."""
    rng = np.random.default_rng(12)
    points = rng.random((420, 2))
    distance = np.hypot(Y[..., None] - points[:, 0], X[..., None] - points[:, 1])
    nearest, second = np.moveaxis(np.partition(distance, 1, axis=-1)[..., :2], -1, 0)
    tile = distance.argmin(axis=-1)
    place = (points * SIZE).astype(int)
    value = np.clip(noise(rng, 3)[place[:, 0], place[:, 1]] + rng.normal(0, 0.06, len(points)), 0, 1)
    colours = ramp(value, "0b3954", "087e8b", "bfd7ea", "f4d58d", "ff5a5f", "8d0801")
    joint = np.clip((second - nearest) * SIZE / 2.5, 0, 1)[..., None]
    return colours[tile] * joint + 0.16 * (1 - joint)


def brush_strokes() -> np.ndarray:
    """Paint dragged along a swirling flow: coloured noise averaged along its stream lines."""
    rng = np.random.default_rng(13)
    angle = 2.5 * np.pi * noise(rng, 3)
    dy, dx = np.sin(angle), np.cos(angle)
    grain = noise(rng, 110)
    paint = ramp(noise(rng, 5), "10224f", "1f4e9c", "5b9bd5", "f2e3a0", "e9b824", "12305e")
    total, weight = np.zeros((SIZE, SIZE, 3)), np.zeros((SIZE, SIZE))
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    for _ in range(26):
        row, column = y.round().astype(int) % SIZE, x.round().astype(int) % SIZE
        total += paint[row, column]
        weight += grain[row, column]
        y, x = y + dy[row, column], x + dx[row, column]
    relief = (weight - weight.mean()) / weight.std()
    return total / 26 * (1 + 0.16 * relief[..., None])


def sunset() -> np.ndarray:
    """Flat poster: a sky in bands, a sun, three ranges of hills."""
    rng = np.random.default_rng(14)
    picture = ramp(np.floor(Y * 11) / 10, "2b1055", "7b2d8b", "e0457b", "ff8c61", "ffd28f")
    shapes = [(0.15 - np.hypot(X - 0.62, Y - 0.50), "ffeda6")]
    shapes += [
        (Y - base + 0.13 * noise(rng, 4)[0], code) for base, code in ((0.62, "a43b76"), (0.74, "5a2470"), (0.86, "22103f"))
    ]
    for inside, code in shapes:
        cover = np.clip(inside * SIZE + 0.5, 0, 1)[..., None]
        picture = picture * (1 - cover) + ramp(np.zeros(()), code, code) * cover
    return picture


def waves() -> np.ndarray:
    """Wavy stripes of six colours with thin dark outlines."""
    rng = np.random.default_rng(15)
    phase = Y * 14 + 1.6 * np.sin(2 * np.pi * (1.5 * X + 0.3 * Y)) + 2.0 * noise(rng, 3)
    colours = ramp(np.arange(6) / 5, "f4f1de", "e07a5f", "3d405b", "81b29a", "f2cc8f", "1b998b")
    edge = np.abs(phase - np.round(phase))
    return colours[np.floor(phase).astype(int) % 6] * np.clip(edge / 0.07, 0.15, 1)[..., None]


def halftone() -> np.ndarray:
    """Comic print: dots of red and blue on yellow, larger where it is darker."""
    rng = np.random.default_rng(16)
    picture = np.ones((SIZE, SIZE, 3)) * (1.0, 0.87, 0.25)
    for angle, colour in ((0.26, (0.87, 0.12, 0.20)), (1.05, (0.10, 0.28, 0.72))):
        u, v = (X * np.cos(angle) + Y * np.sin(angle)) * 26, (Y * np.cos(angle) - X * np.sin(angle)) * 26
        distance = np.hypot(u - np.round(u), v - np.round(v))
        dot = np.clip((0.66 * noise(rng, 3) - distance) * 8, 0, 1)[..., None]
        picture = picture * (1 - dot) + dot * np.array(colour)
    return picture


# ---- pictures that lie in packages


def packaged(package: str, path: str, box: tuple[int, int, int]) -> Image.Image:
    """A square (left, top, side) of a picture file inside an installed package, resized to 256x256."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package, name=package)
    left, top, side = box
    with Image.open(Path(spec.origin).parent / path) as image:
        cropped = image.convert("RGB").crop((left, top, left + side, top + side))
    return cropped.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def graded(photo: Callable[[], Image.Image], codes: tuple[str, ...]) -> Image.Image:
    """The photo, three quarters of it replaced by its grey values mapped to a ramp of colours."""
    picture = np.asarray(photo(), dtype=float) / 255
    return to_image(0.75 * ramp(picture @ (0.299, 0.587, 0.114), *codes) + 0.25 * picture)


def astronaut() -> Image.Image:
    return packaged("skimage", "data/astronaut.png", (116, 4, 216))


def chelsea() -> Image.Image:
    return packaged("skimage", "data/chelsea.png", (92, 0, 300))


def hopper() -> Image.Image:
    return packaged("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (106, 30, 330))


def to_image(values: np.ndarray) -> Image.Image:
    """(256, 256, 3) float, clipped to [0, 1], to a picture."""
    return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))


def computed(texture: Callable[[], np.ndarray]) -> Image.Image:
    return to_image(texture())


def avatar(index: int) -> Image.Image:
    import make_avatars  # beside this file

    return Image.fromarray(make_avatars.render(make_avatars.sample_attributes(AVATAR_SEED, index), SIZE))


# ---- the list


class Entry(NamedTuple):
    path: str
    make: Callable[[], Image.Image]
    source: str
    licence: str


def entries() -> list[Entry]:
    """Every file of test_images/, with where it comes from and under which licence."""
    designs = "free for personal and commercial use (designs: Pablo Stanley; python-avatars: MIT)"
    ours, cc0, nasa = "ours, under the licence of this repository", "CC0", "public domain (NASA)"
    navy = "public domain (US Navy, work of the US government)"
    collins = "Eileen Collins, NASA; scikit-image `astronaut.png`"
    cat = "the cat Chelsea, by Stefan van der Walt; scikit-image `chelsea.png`"
    admiral = "Grace Hopper, by James S. Davis, US Navy; matplotlib `grace_hopper.jpg`"

    listed = []
    for kind, indices in (("contents", AVATAR_CONTENTS), ("styles", AVATAR_STYLES)):
        for index in indices:
            source = f"`make_avatars.py` seed {AVATAR_SEED}, avatar {index}"
            listed.append(Entry(f"avatars/{kind}/{index:03d}.png", partial(avatar, index), source, designs))
    for texture in (watercolour, mosaic, brush_strokes, sunset, waves, halftone):
        name = texture.__name__
        listed.append(Entry(f"art/{name}.png", partial(computed, texture), f"`make_test_images.py` `{name}()`", ours))
    for path, box, source, licence in (
        ("hubble_deep_field.jpg", (300, 200, 512), "Hubble extreme deep field, NASA", nasa),
        ("rocket.jpg", (130, 0, 427), "launch of DSCOVR, by SpaceX", "public domain (SpaceX)"),
        ("coffee.png", (130, 0, 400), "coffee cup, by Rachel Michetti", cc0),
        ("retina.jpg", (230, 230, 950), "retina, by Mikael Häggström", cc0),
        ("gravel.png", (0, 0, 400), "gravel, from cc0textures.com", cc0),
    ):
        make = partial(packaged, "skimage", f"data/{path}", box)
        listed.append(Entry(f"art/{path.split('.')[0]}.jpg", make, f"{source}; scikit-image `{path}`", licence))
    for name, design in (
        ("lorelei_curls", "Lorelei, by Lisa Wischofsky"), ("lorelei_glasses", "Lorelei, by Lisa Wischofsky"),
        ("notionists_planet", "Notionists, by Zoish"), ("notionists_robe", "Notionists, by Zoish"),
        ("open_peeps_beard", "Open Peeps, by Pablo Stanley"), ("open_peeps_glasses", "Open Peeps, by Pablo Stanley"),
        ("pixel_art_blue_hair", "Pixel Art, by DiceBear"), ("pixel_art_red_hair", "Pixel Art, by DiceBear"),
    ):  # fmt: skip
        source = f"design {design}; npm `@dicebear/collection` 9.4.3 (MIT), `draw_portraits.mjs`"
        listed.append(Entry(f"art/{name}.png", partial(kept, name), source, cc0))
    for name, photo, tint, colours, source, licence in (
        ("astronaut", astronaut, "dusk", ("1a1446", "7a2f8f", "ff7a59", "ffe3b3"), collins, nasa),
        ("chelsea", chelsea, "night", ("070b24", "24408e", "6fa3e0", "f3f7d0"), cat, cc0),
        ("hopper", hopper, "mint", ("06323b", "1f8a83", "a8e6cf", "fffbe6"), admiral, navy),
    ):
        listed.append(Entry(f"photos/contents/{name}.jpg", photo, source, licence))
        style = f"photos/styles/{name}_{tint}.jpg"
        listed.append(Entry(style, partial(graded, photo, colours), f"{source}, recoloured", licence))
    return listed


def kept(name: str) -> Image.Image:
    """A portrait that scripts/draw_portraits.mjs drew: it takes node, so the picture itself is kept."""
    with Image.open(Path(__file__).parent.parent / f"test_images/art/{name}.png") as image:
        return image.convert("RGB")


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


LICENSES = """# Where these pictures come from

Made by `python scripts/make_test_images.py` (packages of `requirements-dev.txt`; nothing is downloaded), which
draws every picture and writes this table. All are 256x256. PNG files come out the same, pixel for pixel. The
avatars are number N of seed 2 of `scripts/make_avatars.py`; training uses seed 0 and held-out measurements seed 1,
so no network has seen them.

| file | source | licence |
|---|---|---|
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the pictures of test_images/ and their LICENSES.md.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "test_images", help="folder (default: test_images/)"
    )
    out: Path = parser.parse_args().out
    try:
        table = LICENSES
        for entry in entries():
            buffer = io.BytesIO()
            if entry.path.endswith(".png"):
                entry.make().save(buffer, format="PNG", optimize=True)
            else:
                entry.make().save(buffer, format="JPEG", quality=90)
            write(out / entry.path, buffer.getvalue())
            table += f"| `{entry.path}` | {entry.source} | {entry.licence} |\n"
        write(out / "LICENSES.md", table.encode())
    except ImportError as error:
        print(f"error: {error.name} is missing: pip install -r requirements-dev.txt", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(entries())} pictures: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
