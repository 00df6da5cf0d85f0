"""Faithfulness to the official code (docs/precision.md has the figures that this file prints).

- In fp32 every array of the golden runs, made by the official code with trained networks, is met within 1e-4 of its maximum,
  and the command line's pictures are the golden ones. Where a result is further off, it is within twice the distance of the
  official run from its own walk in fp64: two runs that round differently may lie on both sides of the exact one.
- In fp64, where rounding does not matter, ours equals a literal re-statement of the official walk, for options that the golden
  runs do not have and for a network with other ones.

scripts/test.sh leaves what is marked "others" to `scripts/test.sh -m others`; pytest on this file runs all.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import walks as walk
from cli_tools import pixels
from PIL import Image

import diffstyle
import main
from diffstyle import pipeline
from diffstyle.hspace import Blend
from diffstyle.images import load_image
from diffstyle.masks import build_mask
from diffstyle.model import Model
from diffstyle.noise import OneStream
from diffstyle.pipeline import Inverted
from diffstyle.settings import Settings
from golden_models import (
    FAMILIES,
    GOLDEN,
    TRAINED,
    Official,
    golden_model,
    levels,
    meta,
    relative,
    trained_model,
    trained_settings,
)

BOUND = 1e-4  # of max |expected|
LEVELS = 1e-3  # share of a picture's values that may be one level off
CASES = [(family, case) for family in FAMILIES for case in meta(TRAINED / family)["cases"]]
SIDES = (("contents", "019"), ("styles", "003"))  # the first pair of every case


def picture(folder: str, stem: str) -> Path:
    return TRAINED / "images" / folder / f"{stem}.png"


@functools.cache
def golden(family: str) -> dict[str, np.ndarray]:
    """All arrays without a batch dimension."""
    with np.load(TRAINED / family / "expected.npz") as file:
        return {key: file[key].squeeze(0) if file[key].ndim == 4 else file[key] for key in file.files}


@functools.cache
def rounding() -> dict[str, dict[str, tuple[float, float]]]:
    """How far each official result is from its walk in fp64 (own_rounding.py): relative, and on average in levels."""
    found: dict[str, dict[str, tuple[float, float]]] = json.loads((TRAINED / "rounding.json").read_text())
    return found


def pairs_of(family: str, case: str) -> list[tuple[str, str]]:
    said = meta(TRAINED / family)["cases"][case]
    return list(itertools.product(said["contents"], said["styles"]))


# ---- fp32 --------------------------------------------------------------------------------------------------------


@functools.cache
def inverted(family: str, folder: str, stem: str) -> Inverted:
    """One golden picture; all cases invert in 50 steps."""
    return diffstyle.invert(trained_model(family), picture(folder, stem), n_inv=50)


def tell(capsys: pytest.CaptureFixture[str], family: str, errors: dict[str, float], more: str = "") -> None:
    """Print the worst."""
    worst = max(errors, key=lambda key: errors[key])
    with capsys.disabled():
        print(f"\n{family:5} {worst:45} {errors[worst]:.1e}{more}", end="")


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_inversions(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("xT", "h"):
        errors = {}
        for key, array in golden(family).items():
            if found := re.search(rf"/{kind}_(contents|styles)_(\d+)(?:_t(\d+))?$", key):
                folder, stem, t = found.groups()
                one = inverted(family, folder, stem)
                errors[key] = relative((one.h[int(t)] if t else one.x_T)[0], array)
        assert len(errors) >= len(meta(TRAINED / family)["cases"]) * 2 * (3 if kind == "h" else 1)
        tell(capsys, family, errors)
        assert max(errors.values()) <= BOUND


def parts(family: str, case: str) -> list[list[int]]:
    """The positions of a case's pairs in batches of four; those of 1000 steps one by one, for two processes to share."""
    size, pairs = 1 if trained_settings(family, case).n_gen > 50 else 4, pairs_of(family, case)
    return [list(range(i, min(i + size, len(pairs)))) for i in range(0, len(pairs), size)]


def others(family: str, case: str, part: list[int]) -> bool:
    """Whether a run is left to the second step of CI: other pictures than a case's first, or 1000 steps."""
    return part[0] > 0 or trained_settings(family, case).n_gen > 50


@pytest.mark.parametrize(
    ("family", "case", "part"),
    [pytest.param(*named, part, marks=[pytest.mark.others] * others(*named, part)) for named in CASES for part in parts(*named)],
    ids=lambda value: value if isinstance(value, str) else f"from-{value[0]}",
)
def test_golden_results(family: str, case: str, part: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    model, s = trained_model(family), trained_settings(family, case)
    pairs = [pairs_of(family, case)[i] for i in part]
    contents, styles = (
        Inverted.join([inverted(family, folder, stem) for stem in stems])
        for folder, stems in zip(("contents", "styles"), zip(*pairs, strict=True), strict=True)
    )
    results = pipeline.transfer(model, contents, styles, s, pipeline.one_stream(model, s).batch(part)).numpy()
    found = {f"{case}/content_{content}_style_{style}": x for (content, style), x in zip(pairs, results, strict=True)}
    errors = {key: relative(x, golden(family)[key]) for key, x in found.items()}
    images = {key: levels(x) for key, x in found.items()}
    tell(capsys, family, errors, f", {(off_by(images, family) > 0).mean():.3%} of the values are another level")
    for key, error in errors.items():
        own, _ = rounding()[family][key]
        assert error <= max(BOUND, 2 * own), f"{key}: {error:.1e}, the official run itself {own:.1e}"
    assert_same_pictures(images, family)


def off_by(images: dict[str, np.ndarray], family: str) -> np.ndarray:
    """By how many levels of 255 each value of these pictures differs."""
    return np.stack([np.abs(image - levels(golden(family)[key])) for key, image in images.items()])


def assert_same_pictures(images: dict[str, np.ndarray], family: str) -> None:
    """No value is more than one level off, and as few are as LEVELS or twice the official run's own rounding say.

    Which values are that near to a rounding's edge is chance: three standard deviations of such a count are granted.
    """
    difference = off_by(images, family)
    share = max(LEVELS, 2 * float(np.mean([rounding()[family][key][1] for key in images])))
    expected = share * difference.size
    assert difference.max() <= 1
    assert (difference > 0).sum() <= expected + 3 * expected**0.5, f"{(difference > 0).mean():.3%} of the values"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("family", "case"),
    [
        ("ddpm", "inv50_gen50"),
        ("adm", "omega"),
        pytest.param("ddpm", "omega", marks=pytest.mark.others),
        pytest.param("adm", "inv50_gen50", marks=pytest.mark.others),
    ],
)
def test_golden_pictures_by_the_command_line(family: str, case: str, cache: Path, tmp_path: Path) -> None:
    """From files to files, all contents in one style."""
    pairs = [pair for pair in pairs_of(family, case) if pair[1] == "003"]
    for folder, stems in zip(("contents", "styles"), zip(*pairs, strict=True), strict=True):
        (tmp_path / folder).mkdir()
        for stem in stems:
            (tmp_path / folder / f"{stem}.png").write_bytes(picture(folder, stem).read_bytes())
    argv = ["--config", str(TRAINED / f"{family}.yml"), "--model_path", str(TRAINED / family / "model.pt"), "--device", "cpu"]
    argv += ["--content_dir", f"{tmp_path}/contents", "--style_dir", f"{tmp_path}/styles", "--save_dir", f"{tmp_path}/out"]
    said = meta(TRAINED / family)["cases"][case]["args"]
    assert main.main([*argv, "--cache_dir", str(cache), "--noise", "golden", *said]) == 0
    names = [f"content_{content}_style_{style}" for content, style in pairs]
    assert_same_pictures({f"{case}/{name}": pixels(tmp_path / f"out/result_{name}.png") for name in names}, family)


# ---- fp64 --------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"gamma": 0.3, "n_inv": 50, "n_gen": 50, "content_replace_step": 50},  # the first pair of the golden case
    "omega": {"omega": 0.3},
    "boost": {"t_boost": 200},
    "dt_lambda": {"dt_lambda": 0.9985},
    "mask": {"mask": "box"},
    "every step": {"content_replace_step": -1, "gamma": 0.02},
    "everything": {"omega": 0.3, "t_boost": 200, "dt_lambda": 0.9985, "mask": "box", "t_edit": 500},
}
FEW: dict[str, Any] = {"gamma": 0.4, "n_inv": 11, "n_gen": 13, "content_replace_step": 7}  # each second step injects
FP64: list[Any] = [pytest.param("trained", "adm", "plain", marks=pytest.mark.others)]  # the golden run's walk, now in fp64
FP64 += [("trained", "adm", option) for option in OPTIONS if option != "plain"]
FP64 += [("trained", "ddpm", "everything")]  # the larger network
FP64 += [("random", family, "everything") for family in FAMILIES]  # other architectures; chaotic, which fp64 stands


@functools.cache
def in_fp64(kind: str, family: str) -> Model:
    model = trained_model(family) if kind == "trained" else golden_model(family)
    return dataclasses.replace(model, unet=copy.deepcopy(model.unet).double())


Side = tuple[torch.Tensor, dict[int, torch.Tensor]]  # x_T, and h by its timestep


@functools.cache
def inverted_in_fp64(kind: str, family: str, folder: str, stem: str, n_inv: int) -> tuple[Side, Side]:
    """Theirs and ours, with h at every step; the options share them."""
    model, s = in_fp64(kind, family), Settings(n_inv=n_inv)
    x0 = load_image(picture(folder, stem), model.config.image_size)[None].double()
    with torch.inference_mode():
        theirs = Official(model, s, torch.float64).invert(x0)
    ours = walk.invert(model.unet, x0, s.inversion_walk(), model.schedule, theirs[1].keys())
    return theirs, (ours.x_T, ours.h)


@pytest.mark.parametrize(("kind", "family", "option"), FP64)
def test_fp64_equals_the_official_walk(kind: str, family: str, option: str) -> None:
    model, s = in_fp64(kind, family), Settings(**{**FEW, **OPTIONS[option]})
    theirs, ours = zip(*(inverted_in_fp64(kind, family, *name, s.n_inv) for name in SIDES), strict=True)
    (_, kept), (x_T, _) = theirs
    with torch.inference_mode():
        x = Official(model, s, torch.float64).generate(x_T, kept, torch.Generator().manual_seed(s.seed))
    if option == "plain":
        key = "inv50_gen50/content_{}_style_{}".format(*(stem for _, stem in SIDES))
        assert relative(golden(family)[key], x[0]) == pytest.approx(rounding()[family][key][0], rel=1e-2)

    shape = (3, model.config.image_size, model.config.image_size)
    mask = build_mask(s.mask, next(iter(kept.values())).shape[-2:])
    blend = Blend(s.gamma, mask=None if mask is None else mask.double())
    draws = sum(step.eta > 0 for step in s.transfer_plan())
    noise = OneStream(torch.Generator().manual_seed(s.seed), shape, draws, calibrated=s.omega != 0).batch([0])
    (_, h), (our_x_T, _) = ours
    result = walk.transfer(model.unet, our_x_T, h, s.transfer_walk(), model.schedule, blend, lambda: noise().double())
    bound = 1e-9 if kind == "trained" else 1e-5
    assert relative(our_x_T, x_T) < bound and relative(result, x) < bound
    assert all(relative(h[t], kept[t]) < bound for t in kept)


def test_a_wrong_setting_is_noticed() -> None:
    """The comparison is sharp: one setting slightly off is far outside its bound."""
    model = trained_model("adm")
    content, style = (inverted("adm", *name) for name in SIDES)
    settings: list[dict[str, Any]] = [{"gamma": 0.3}, {"gamma": 0.301}, {"gamma": 0.3, "t_edit": 420}]
    right, *wrong = (diffstyle.transfer(model, content, style, n_gen=50, **each) for each in settings)
    assert all(relative(each, right) > 2 * BOUND for each in wrong)


def test_preprocessing_is_bit_exact() -> None:
    """Centre-crop to the short side, PIL's bilinear (antialiased) resize, (v - 0.5) / 0.5: done by hand with PIL."""
    for path in sorted((GOLDEN / "images").rglob("*.png")):
        image = Image.open(path).convert("RGB")
        left, top = (image.width - 160) // 2, (image.height - 160) // 2
        assert min(image.size) == 160
        image = image.crop((left, top, left + 160, top + 160)).resize((32, 32), Image.Resampling.BILINEAR)
        by_hand = (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
        assert torch.equal(load_image(path, 32), by_hand)
