"""Faithfulness to the official code (docs/precision.md has the figures that this file prints).

- In fp32 every array of the golden runs, made by the official code with trained networks, is met within 1e-4 of its maximum,
  and the command line's pictures are the golden ones. Where a result is further off, it is within twice the distance of the
  official run from its own walk in fp64: two runs that round differently may lie on both sides of the exact one.
- In fp64, where rounding does not matter, ours equals a literal re-statement of the official walk, for options that the golden
  runs do not have and for a network with other ones.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import walks as walk
from PIL import Image

import diffstyle
import main
from diffstyle.hspace import Blend
from diffstyle.images import load_image
from diffstyle.masks import build_mask
from diffstyle.model import Model
from diffstyle.noise import OneStream
from diffstyle.settings import Settings
from golden_models import FAMILIES, GOLDEN, TRAINED, Official, golden_model, meta, relative, trained_model, trained_settings

BOUND = 1e-4
CASES = [(family, case) for family in FAMILIES for case in meta(TRAINED / family)["cases"]]


def picture(folder: str, stem: str) -> Path:
    return TRAINED / "images" / folder / f"{stem}.png"


@functools.cache
def golden(family: str) -> dict[str, np.ndarray]:
    with np.load(TRAINED / family / "expected.npz") as file:
        return {key: file[key] for key in file.files}


# ---- fp32 --------------------------------------------------------------------------------------------------------


@functools.cache
def inverted(family: str, folder: str, stems: tuple[str, ...], n_inv: int) -> diffstyle.Inverted:
    """The golden pictures of one side; all cases of a family share them."""
    paths = [picture(folder, stem) for stem in stems]
    return diffstyle.invert(trained_model(family), paths, batch_size=len(paths), n_inv=n_inv)


@pytest.mark.parametrize(("family", "case"), CASES)
def test_golden_arrays(family: str, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, s, arrays = trained_model(family), trained_settings(family, case), golden(family)
    keys = [key for key in arrays if key.startswith(f"{case}/")]
    contents, styles = (
        tuple(key.rpartition("_")[2] for key in keys if f"/xT_{folder}_" in key) for folder in ("contents", "styles")
    )
    found: dict[str, torch.Tensor] = {}
    sides = {"contents": inverted(family, "contents", contents, s.n_inv), "styles": inverted(family, "styles", styles, s.n_inv)}
    for (folder, side), stems in zip(sides.items(), (contents, styles), strict=True):
        for i, stem in enumerate(stems):
            found[f"{case}/xT_{folder}_{stem}"] = side.x_T[i]
            found |= {f"{case}/h_{folder}_{stem}_t{t}": h[i] for t, h in side.h.items()}
    said = meta(TRAINED / family)["cases"][case]
    one = sides["contents"][[contents.index(stem) for stem in said["contents"]]]
    other = sides["styles"][[styles.index(stem) for stem in said["styles"]]]
    results = diffstyle.transfer(model, one, other, batch_size=4, **dataclasses.asdict(s))
    for (c, content), (i, style) in itertools.product(enumerate(said["contents"]), enumerate(said["styles"])):
        found[f"{case}/content_{content}_style_{style}"] = results[c, i]

    assert len(keys) == 4 * len(contents) + 4 * len(styles) + len(said["contents"]) * len(said["styles"]) >= 9
    errors = {key: relative(found[key], arrays[key][0] if arrays[key].ndim == 4 else arrays[key]) for key in keys}
    for kind in ("xT_", "h_", "content_"):
        worst = max((key for key in keys if key.split("/")[1].startswith(kind)), key=lambda key: errors[key])
        with capsys.disabled():
            print(f"\n{family:5} {worst:45} {errors[worst]:.1e}", end="")
    for key in keys:
        if errors[key] > BOUND:
            assert "/content_" in key, f"{key}: {errors[key]:.1e}"
            own = relative(arrays[key], fp64_walk(family, s, *key.split("/content_")[1].split("_style_")))
            assert errors[key] <= 2 * own, f"{key}: {errors[key]:.1e}, the official run itself {own:.1e}"


def fp64_walk(family: str, s: Settings, content: str, style: str) -> torch.Tensor:
    """The official walk of one pair in fp64; only for what draws no noise before it, i.e. the first pair of a run."""
    model = trained_model(family)
    official = Official(dataclasses.replace(model, unet=copy.deepcopy(model.unet).double()), s, torch.float64)
    size = model.config.image_size
    with torch.inference_mode():
        _, kept = official.invert(load_image(picture("contents", content), size)[None].double())
        x_T, _ = official.invert(load_image(picture("styles", style), size)[None].double())
        return official.generate(x_T, kept, torch.Generator().manual_seed(s.seed))[0]


@pytest.mark.parametrize(("family", "case"), [pair for pair in CASES if pair[1] in ("inv50_gen50", "omega")])
def test_golden_pictures_by_the_command_line(family: str, case: str, tmp_path: Path) -> None:
    """At most one level of 255, on at most 0.3 % of the values: what errors of 1e-5 move across a rounding's edge."""
    said = meta(TRAINED / family)["cases"][case]
    sides = {}
    for folder, stems in (("contents", said["contents"]), ("styles", said["styles"])):
        sides[folder] = tmp_path / folder
        sides[folder].mkdir()
        for stem in stems:
            (sides[folder] / f"{stem}.png").write_bytes(picture(folder, stem).read_bytes())
    out = tmp_path / "out"
    argv = ["--config", str(TRAINED / f"{family}.yml"), "--model_path", str(TRAINED / family / "model.pt"), "--device", "cpu"]
    argv += ["--content_dir", str(sides["contents"]), "--style_dir", str(sides["styles"]), "--save_dir", str(out)]
    assert main.main([*argv, "--no_cache", "--noise", "golden", *said["args"]]) == 0
    for content, style in itertools.product(said["contents"], said["styles"]):
        theirs = golden(family)[f"{case}/content_{content}_style_{style}"].squeeze()
        theirs = np.clip((theirs + 1) / 2 * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        with Image.open(out / f"result_content_{content}_style_{style}.png") as image:
            difference = np.abs(np.asarray(image).astype(int) - theirs)
        assert difference.max() <= 1 and (difference > 0).mean() <= 3e-3


# ---- fp64 --------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "omega": {"omega": 0.3},
    "boost": {"t_boost": 200},
    "dt_lambda": {"dt_lambda": 0.9985},
    "mask": {"mask": "box"},
    "every step": {"content_replace_step": -1, "gamma": 0.02},
    "everything": {"omega": 0.3, "t_boost": 200, "dt_lambda": 0.9985, "mask": "box", "t_edit": 500},
}
FP64 = [("trained", "adm", option) for option in OPTIONS]
FP64 += [("trained", "ddpm", "everything")]  # the larger network
FP64 += [("random", family, "everything") for family in FAMILIES]  # other architectures; chaotic, which fp64 stands


@functools.cache
def in_fp64(kind: str, family: str) -> Model:
    model = trained_model(family) if kind == "trained" else golden_model(family)
    return dataclasses.replace(model, unet=copy.deepcopy(model.unet).double())


def walks(model: Model, s: Settings) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Theirs and ours of one pair, in the precision of the network."""
    size = model.config.image_size
    content, style = (load_image(picture(*name), size)[None].double() for name in (("contents", "019"), ("styles", "003")))
    official = Official(model, s, torch.float64)
    with torch.inference_mode():
        x_T, _ = official.invert(style)
        _, kept = official.invert(content)
        x = official.generate(x_T, kept, torch.Generator().manual_seed(s.seed))
    theirs = {"x_T": x_T, "x": x} | {f"h{t}": kept[t] for t in s.kept()}

    mask = build_mask(s.mask, next(iter(kept.values())).shape[-2:])
    blend = Blend(s.gamma, mask=None if mask is None else mask.double())
    draws = sum(step.eta > 0 for step in s.transfer_plan())
    noise = OneStream(torch.Generator().manual_seed(s.seed), (3, size, size), draws, calibrated=s.omega != 0).batch([0])
    one = walk.invert(model.unet, content, s.inversion_walk(), model.schedule, s.kept())
    other = walk.invert(model.unet, style, s.inversion_walk(), model.schedule)
    result = walk.transfer(model.unet, other.x_T, one.h, s.transfer_walk(), model.schedule, blend, lambda: noise().double())
    return theirs, {"x_T": other.x_T, "x": result} | {f"h{t}": h for t, h in one.h.items()}


@pytest.mark.parametrize(("kind", "family", "option"), FP64)
def test_fp64_equals_the_official_walk(kind: str, family: str, option: str) -> None:
    s = Settings(**{"gamma": 0.4, "n_inv": 50, "n_gen": 50, **OPTIONS[option]})
    theirs, ours = walks(in_fp64(kind, family), s)
    bound = 1e-9 if kind == "trained" else 1e-5
    for key, value in theirs.items():
        assert relative(ours[key], value) < bound, key


def test_a_wrong_setting_is_noticed() -> None:
    """The comparison is sharp: one setting slightly off is far outside its bound."""
    model = trained_model("adm")
    content, style = inverted("adm", "contents", ("019",), 50), inverted("adm", "styles", ("003",), 50)
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
