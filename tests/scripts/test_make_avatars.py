"""What scripts/make_avatars.py promises: known attributes, free recombination, exact masks, whole files."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("python_avatars", reason="development package")
pytest.importorskip("resvg_py", reason="development package")

import make_avatars as m

REPOSITORY = Path(__file__).resolve().parents[2]
REGIONS = ("background", "hair", "beard", "skin", "clothes")


def first(**wanted: bool) -> m.Avatar:
    """The first avatar of seed 1 that wears (True) or lacks (False) what is named."""
    for index in range(1000):
        avatar = m.sample_attributes(1, index)
        if all((getattr(avatar.shape, part) != "NONE") == worn for part, worn in wanted.items()):
            return avatar
    raise AssertionError(wanted)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(REPOSITORY / "scripts" / "make_avatars.py"), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


# ---- sampling


def test_an_avatar_depends_on_seed_and_index_only() -> None:
    few, many = (list(m.draw_all(n, seed=1, size=32)) for n in (2, 4))
    for (row, image), (row_again, image_again) in zip(few, many, strict=False):
        assert row == row_again
        assert np.array_equal(image, image_again)
    assert m.sample_attributes(0, 5) != m.sample_attributes(1, 5)


def test_workers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not forked: beside another thread such a child may hang."""
    monkeypatch.delattr(os, "fork")
    for (row, image), (row_two, image_two) in zip(m.draw_all(3, 1, 16), m.draw_all(3, 1, 16, workers=2), strict=True):
        assert row == row_two
        assert np.array_equal(image, image_two)


def test_every_part_and_a_wide_palette_occur() -> None:
    avatars = [m.sample_attributes(0, index) for index in range(600)]
    assert {a.shape.top for a in avatars} == set(m.TOPS)
    assert {a.shape.mouth for a in avatars} == set(m.MOUTHS)
    assert {a.shape.glasses for a in avatars} == {"NONE", *m.GLASSES}
    assert {a.shape.beard for a in avatars} == {"NONE", *m.BEARDS}
    backgrounds = np.array([a.colours.background for a in avatars])
    assert (backgrounds.std(axis=0) > 60).all()


def test_colours_tell_each_other_apart() -> None:
    for index in range(200):
        four = np.array(list(asdict(m.sample_attributes(0, index).colours).values()), dtype=float)
        distance = np.linalg.norm(four[:, None] - four[None], axis=-1)
        assert distance[~np.eye(4, dtype=bool)].min() >= m.MIN_DISTANCE


def test_shape_and_colours_are_uncorrelated() -> None:
    avatars = [m.sample_attributes(0, index) for index in range(1500)]
    shape = np.array([[a.shape.zoom, a.shape.tilt, a.shape.glasses != "NONE", m.TOPS.index(a.shape.top)] for a in avatars])
    colours = np.array([np.concatenate(list(asdict(a.colours).values())) for a in avatars])
    correlation = np.corrcoef(shape.T, colours.T)[:4, 4:]
    assert np.abs(correlation).max() < 4 / len(avatars) ** 0.5  # 4 standard errors of a correlation of zero


# ---- drawing


@pytest.mark.parametrize("wanted", [{"glasses": True, "beard": True}, {"glasses": False, "beard": False}])
def test_masks_rebuild_the_picture(wanted: dict[str, bool]) -> None:
    """Blending is linear: in any colours the picture is a constant plus the masks times the colours."""
    avatar = first(**wanted)
    masks = m.region_masks(avatar, 48)
    assert set(masks) == {*REGIONS, "glasses"}
    assert all(mask.shape == (48, 48) and mask.dtype == np.float32 for mask in masks.values())
    total = np.sum([masks[name] for name in REGIONS], axis=0)
    assert total.max() < 1.02
    assert total.mean() > 0.75  # the rest is eyes, mouth, shadows and glasses

    def mixed(colours: m.Colours) -> np.ndarray:
        of = {**asdict(colours), "beard": colours.hair}
        return np.sum([masks[name][..., None] * np.array(of[name]) for name in REGIONS], axis=0)

    other = m.sample_attributes(1, 99).colours
    change = m.render(replace(avatar, colours=other), 48).astype(float) - m.render(avatar, 48)
    assert np.abs(change - (mixed(other) - mixed(avatar.colours))).max() <= 5


def test_layers_make_every_colouring() -> None:
    for index in range(4):
        avatar = replace(m.sample_attributes(1, index), colours=m.sample_attributes(1, 50 + index).colours)
        constant, weights = m.layers(m.sample_attributes(1, index), 48)
        assert constant.dtype == weights.dtype == np.uint8
        colours = np.array(list(asdict(avatar.colours).values()), dtype=float)  # background, hair, skin, clothes
        made = constant + weights / 255 @ colours
        assert np.abs(made - m.render(avatar, 48)).max() <= 2.5


def test_masks_do_not_depend_on_the_colours() -> None:
    avatar = first(glasses=True, beard=True)
    recoloured = replace(avatar, colours=m.sample_attributes(1, 99).colours)
    before, after = m.region_masks(avatar, 32), m.region_masks(recoloured, 32)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_each_region_shows_its_colour() -> None:
    avatar = first(glasses=False, beard=True)
    masks, image = m.region_masks(avatar, 64), m.render(avatar, 64).astype(float)
    colours = {**asdict(avatar.colours), "beard": avatar.colours.hair}
    for name in REGIONS:
        inside = masks[name] > 0.99
        if inside.sum() >= 20:
            assert np.abs(image[inside].mean(axis=0) - colours[name]).max() < 3, name


def test_glasses_and_beard_are_masked_only_where_worn() -> None:
    worn, bare = (
        m.region_masks(first(glasses=True, beard=True), 64),
        m.region_masks(first(glasses=False, beard=False), 64),
    )
    for name in ("glasses", "beard"):
        assert 0.005 < worn[name].mean() < 0.35
        assert bare[name].max() == 0


def test_portraits_fill_the_frame() -> None:
    for index in range(12):
        masks = m.region_masks(m.sample_attributes(1, index), 32)
        assert 0.05 < masks["background"].mean() < 0.75
        assert (masks["skin"] + masks["beard"] + masks["glasses"]).mean() > 0.15
        assert masks["clothes"][-1].max() > 0.9  # shoulders reach the lower edge
        assert masks["clothes"][0].max() < 0.1


def test_size_does_not_change_the_geometry() -> None:
    avatar = m.sample_attributes(1, 3)
    large = Image.fromarray(m.render(avatar, 128)).reduce(4)
    assert np.abs(np.asarray(large, dtype=float) - m.render(avatar, 32)).mean() < 2


def test_test_images_are_what_the_script_draws() -> None:
    files = sorted((REPOSITORY / "test_images" / "avatars").rglob("*.png"))
    assert len(files) == 12
    for path in files[::5]:
        drawn = m.render(m.sample_attributes(2, int(path.stem)), 256)
        # another release of the rasteriser may round an edge differently
        assert np.abs(np.asarray(Image.open(path), dtype=float) - drawn).mean() < 0.5


# ---- files and command line


def test_npz(tmp_path: Path) -> None:
    done = command("--n", 3, "--seed", 1, "--size", 32, "--out", tmp_path / "new" / "a.npz")
    assert done.returncode == 0, done.stderr
    images = np.load(tmp_path / "new" / "a.npz")["images"]
    assert images.shape == (3, 32, 32, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images[2], m.render(m.sample_attributes(1, 2), 32))
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.npz", "a_attributes.csv"]  # nothing temporary


def test_layers_npz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "PALETTES", 5)
    m.write_layers(tmp_path / "layers.npz", n=2, seed=1, size=16)
    arrays = np.load(tmp_path / "layers.npz")
    assert {k: arrays[k].shape for k in arrays} == {
        "constant": (2, 16, 16, 3),
        "weights": (2, 16, 16, 4),
        "colours": (5, 4, 3),
    }
    assert arrays["colours"][3].tolist() == [list(c) for c in asdict(m.sample_attributes(1, 3).colours).values()]
    done = command("--n", 1, "--layers", "--out", tmp_path / "folder")
    assert done.returncode == 2
    assert "--layers writes an .npz" in done.stderr


def test_folder_and_attributes(tmp_path: Path) -> None:
    m.write(tmp_path / "faces", n=2, seed=1, size=32)
    assert sorted(p.name for p in (tmp_path / "faces").iterdir()) == ["000000.png", "000001.png", "attributes.csv"]
    avatar = m.sample_attributes(1, 1)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "faces" / "000001.png")), m.render(avatar, 32))
    with open(tmp_path / "faces" / "attributes.csv", newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[1]
    assert (row["seed"], row["index"]) == ("1", "1")
    assert all(row[name] == str(value) for name, value in asdict(avatar.shape).items())
    assert row["colour_skin"] == "#{:02x}{:02x}{:02x}".format(*avatar.colours.skin)
    assert set(row) == {"seed", "index", *asdict(avatar.shape), *(f"colour_{name}" for name in asdict(avatar.colours))}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--n", 0, "--out", "a.npz"), 2, "--n must be at least 1, not 0"),
        (("--n", 1), 2, "--out"),
        (("--n", 1, "--size", 4, "--out", "a.npz"), 2, "--size must be at least 8, not 4"),
        (("--n", 1, "--size", 8, "--out", __file__), 1, "cannot write"),
        (("--n", 10**12, "--out", "{tmp}/a.npz"), 1, "cannot write"),
    ],
)
def test_error_lines(arguments: tuple[object, ...], code: int, says: str, tmp_path: Path) -> None:
    done = command(*(str(argument).format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(("error:", "make_avatars.py: error:"))
