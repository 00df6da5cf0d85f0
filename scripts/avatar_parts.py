"""What an avatar can look like: the parts, the colours, and how avatar number i of a seed is drawn by lot."""

from __future__ import annotations

import colorsys
import itertools
from dataclasses import dataclass

import numpy as np

RGB = tuple[int, int, int]

# Parts that can be read at 64x64. Left out: types with fine lines or fixed colours, types that hide the eyes or have no
# place for a beard or glasses (shape attributes are independent of each other), and heads that show too little hair to
# tell its colour. Of several that look alike at this size one is kept.
HATS = tuple("HAT TURBAN WINTER_HAT_3".split())
TOPS = (
    *"BOB BUN CAESAR CURLY FRO MIA_WALLACE SHAGGY SHORT_CURLY SHORT_WAVED STRAIGHT_1 STRAIGHT_STRAND".split(),
    *"MOWGLI PIXIE POMPADOUR QUIFF WILD".split(),
    *HATS,
)
EYES = tuple("DEFAULT CLOSED HAPPY SQUINT SURPRISED WINK".split())
EYEBROWS = tuple("DEFAULT_NATURAL ANGRY_NATURAL FLAT_NATURAL RAISED_EXCITED_NATURAL SAD_CONCERNED_NATURAL".split())
NOSES = tuple("DEFAULT SMALL WIDE".split())
MOUTHS = tuple("DEFAULT SMILE BIG_SMILE TWINKLE SERIOUS SAD TONGUE".split())
GLASSES = tuple("PRESCRIPTION_2 ROUND WAYFARERS".split())
BEARDS = tuple("BEARD_LIGHT BEARD_MEDIUM BEARD_MAGESTIC MOUSTACHE_MAGNUM".split())
CLOTHES = tuple("COLLAR_SWEATER HOODIE SHIRT_CREW_NECK SHIRT_SCOOP_NECK SHIRT_V_NECK".split())

NATURAL_SKIN = tuple("#FFDBB4 #F3C9A0 #EDB98A #D9A066 #D08B5B #AE6D3F #F1C27D #E0AC69 #C68642 #FFCDB8 #9C6137".split())
NATURAL_HAIR = tuple("#A55728 #2C1B18 #8A5A32 #D6B370 #724133 #4A312C #1E1A1C #ECDCBF #B5401A #E6E2DE #9A9A9E".split())
MIN_DISTANCE = 85.0  # between any two of the four colours: Euclidean, RGB 0..255
MIN_SKIN_LUMA = 100.0  # eyes, brows and mouth are drawn in translucent black and vanish on darker skin


@dataclass(frozen=True)
class Shape:
    """Everything but colour. Parts are names of python-avatars' enums; glasses and beard may be "NONE"."""

    top: str
    eyes: str
    eyebrows: str
    nose: str
    mouth: str
    glasses: str
    beard: str
    clothes: str
    zoom: float  # 0.92..1.16, larger is nearer
    stretch: float  # width over height, 0.94..1.06
    shift_x: float  # units of the 264x280 drawing
    shift_y: float
    tilt: float  # degrees
    turn_x: float  # of the features against the head (as if it turned), drawing units
    turn_y: float
    flip: bool


@dataclass(frozen=True)
class Colours:
    """RGB 0..255. A hat and the beard have the hair's colour."""

    background: RGB
    hair: RGB
    skin: RGB
    clothes: RGB


@dataclass(frozen=True)
class Avatar:
    """dataclasses.replace(a, colours=b.colours) is a in the colours of b."""

    shape: Shape
    colours: Colours


# ---- sampling


def sample_attributes(seed: int, index: int) -> Avatar:
    """Avatar number index of a seed. Shape and colours come from two independent random streams."""
    shape, colours = (np.random.default_rng([seed, index, stream]) for stream in (0, 1))
    return Avatar(_sample_shape(shape), _sample_colours(colours))


def _sample_shape(rng: np.random.Generator) -> Shape:
    def pick(names: tuple[str, ...], probability: float = 1.0) -> str:
        worn, name = rng.random() < probability, names[rng.integers(len(names))]
        return name if worn else "NONE"

    def uniform(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 3)

    return Shape(
        top=pick(TOPS),
        eyes=pick(EYES),
        eyebrows=pick(EYEBROWS),
        nose=pick(NOSES),
        mouth=pick(MOUTHS),
        glasses=pick(GLASSES, 0.35),
        beard=pick(BEARDS, 0.35),
        clothes=pick(CLOTHES),
        zoom=uniform(0.92, 1.16),
        stretch=uniform(0.94, 1.06),
        shift_x=uniform(-12, 12),
        shift_y=uniform(-6, 6),
        tilt=uniform(-7, 7),
        turn_x=uniform(-5, 5),
        turn_y=uniform(-3, 4),
        flip=bool(rng.random() < 0.5),
    )


def _sample_colours(rng: np.random.Generator) -> Colours:
    """Four colours that tell each other apart, by rejection: a portrait on a calm background, dressed in any colour."""
    while True:
        skin = _natural(rng, NATURAL_SKIN) if rng.random() < 0.9 else _hsv(rng, (0.15, 0.5), (0.8, 1.0))
        hair = _natural(rng, NATURAL_HAIR) if rng.random() < 0.55 else _hsv(rng, (0.4, 0.82), (0.45, 1.0))
        light = rng.random() < 0.75
        background = _hsv(rng, (0.04, 0.32), (0.8, 1.0)) if light else _hsv(rng, (0.2, 0.6), (0.22, 0.5))
        clothes = _hsv(rng, (0.0, 0.3), (0.1, 1.0)) if rng.random() < 0.25 else _hsv(rng, (0.45, 0.95), (0.35, 1.0))
        four = np.array([background, hair, skin, clothes], dtype=float)
        distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(four, 2)]
        if min(distances) >= MIN_DISTANCE and np.dot(skin, (0.299, 0.587, 0.114)) >= MIN_SKIN_LUMA:
            return Colours(background, hair, skin, clothes)


def _natural(rng: np.random.Generator, palette: tuple[str, ...]) -> RGB:
    """A tone of the palette with a little noise."""
    code = palette[rng.integers(len(palette))]
    r, g, b = (int(np.clip(int(code[i : i + 2], 16) + rng.integers(-10, 11), 0, 255)) for i in (1, 3, 5))
    return r, g, b


def _hsv(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> RGB:
    """Any hue, with saturation and value in these ranges."""
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return round(255 * r), round(255 * g), round(255 * b)
