"""Blends of the ablation, sweeps, labelled figures and animations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

import main
from diffstyle.diffusion import predict_x0
from diffstyle.errors import UsageError, WorkError
from diffstyle.figures import table as figure
from diffstyle.hspace import Blend, norm
from diffstyle.images import read_record
from diffstyle.pipeline import invert, noise_of_pairs, transfer, transfer_walk
from diffstyle.settings import Settings
from diffstyle.steps import timestep_grid
from golden_models import GOLDEN, golden_model


def maps(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, 5, 5, generator=g), 2 * torch.randn(3, 4, 5, 5, generator=g)


def test_blends_are_what_they_say() -> None:
    h, c = maps()
    torch.testing.assert_close(Blend(0.3, "replace")(h, c), c)
    torch.testing.assert_close(Blend(1.0, "add")(h, c), h + c)
    torch.testing.assert_close(Blend(0.3, "lerp")(h, c), 0.7 * h + 0.3 * c)
    torch.testing.assert_close(norm(Blend(0.3)(h, c)), norm(h))
    assert (norm(Blend(0.5, "lerp")(h, c / 2)) < 0.9 * norm(h)).all()  # what Slerp is there to avoid


@pytest.mark.parametrize("kind", ["slerp", "lerp", "replace", "add"])
@pytest.mark.parametrize("match", [True, False])
def test_masks_bound_every_blend(kind: str, match: bool) -> None:
    h, c = maps(1)
    mask = torch.zeros(1, 1, 5, 5)
    mask[..., 1:3, 2:4] = 1
    mixed = Blend(0.5, kind, mask, match)(h, c)
    outside = (mask == 0).expand_as(h)
    assert torch.equal(mixed[outside], h[outside])
    assert not torch.isclose(mixed[~outside], h[~outside]).all()


def test_unknown_blend() -> None:
    with pytest.raises(UsageError, match="--blend mush is not known: use slerp or lerp or replace or add"):
        Settings(blend="mush").check()


# ---- sweeps ------------------------------------------------------------------------------------------------------


@pytest.fixture
def base(config: Path, tmp_path: Path) -> list[str]:
    """A command line for one pair, in few steps."""
    images = GOLDEN / "images"
    return [
        "--config", str(config), "--model_path", str(config.with_name("model.pt")), "--device", "cpu",
        "--content_dir", str(images / "contents/content_a.png"), "--style_dir", str(images / "styles/style_a.png"),
        "--save_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache"),
        "--n_inv", "4", "--n_gen", "4", "--content_replace_step", "4", "--verbose", "warning",
    ]  # fmt: skip


NAME = "content_content_a_style_style_a"


def test_sweep_of_two_axes(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*base, "--sweep", "gamma=0,0.5,1", "--sweep", "blend=slerp,lerp", "--animate", "gamma", "--report"]) == 0
    out = tmp_path / "out"
    assert capsys.readouterr().out.strip() == str(out / f"sweep_{NAME}.png")
    folders = sorted(p.name for p in out.iterdir() if p.is_dir())
    assert folders == [f"gamma={g},blend={b}" for g in ("0", "0.5", "1") for b in ("lerp", "slerp")]
    for folder in folders:
        record = read_record(out / folder / f"result_{NAME}.png")
        assert record is not None
        assert f"gamma={record['settings']['gamma']:g},blend={record['settings']['blend']}" == folder
        assert (out / folder / "index.html").is_file()
    assert len(list((tmp_path / "cache").iterdir())) == 2  # one content's h and one style's x_T, inverted once
    for blend in ("slerp", "lerp"):
        with Image.open(out / f"gamma_{NAME}_blend={blend}.gif") as gif:
            assert getattr(gif, "n_frames", 1) == 3

    at_zero = [pixels(out / f"gamma=0,blend={b}" / f"result_{NAME}.png") for b in ("slerp", "lerp")]
    assert abs(at_zero[0].astype(int) - at_zero[1]).max() <= 1
    figure = pixels(out / f"sweep_{NAME}.png")
    assert figure.shape[0] > 2 * 96 and figure.shape[1] > 4 * 96


def test_more_combinations_than_can_be_meant(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = ",".join(map(str, range(1000)))
    axes = [word for key in ("gamma", "omega", "dt_lambda") for word in ("--sweep", f"{key}={values}")]
    assert main.main([*base, *axes]) == 2
    assert "1000000000 combinations of gamma, omega, dt_lambda; use 10000 at most" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_third_axis_is_a_figure_each(base: list[str], tmp_path: Path) -> None:
    axes = ["--sweep", "gamma=0,1", "--sweep", "omega=0,0.3", "--sweep", "n_gen=3,4"]
    assert main.main([*base, *axes]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("sweep_*")) == [f"sweep_{NAME}_n_gen={n}.png" for n in (3, 4)]


def test_variant_brings_its_omega(base: list[str], tmp_path: Path) -> None:
    assert main.main([*base, "--sweep", "variant=official,paper"]) == 0
    omegas = [
        (read_record(tmp_path / "out" / f"variant={v}" / f"result_{NAME}.png") or {})["settings"]["omega"]
        for v in ("official", "paper")
    ]
    assert omegas == [0.0, 0.3]


def test_dry_run_counts_every_setting(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*base, "--sweep", "gamma=0,0.5,1", "--dry_run"]) == 0
    assert "1 pairs x 3 settings, 17 network evaluations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--sweep", "gama=0"], "use KEY=VALUE"),
        (["--sweep", "gamma"], "use KEY=VALUE"),
        (["--sweep", "gamma=a"], "gamma takes numbers"),
        (["--sweep", "n_gen=1.5"], "n_gen takes whole numbers"),
        (["--sweep", "gamma="], "gamma takes numbers"),
        (["--sweep", "gamma=0", "--sweep", "gamma=1"], "swept already"),
        (["--sweep", "gamma=inf"], "out of range"),
        (["--animate", "omega"], "use gamma or t"),
        (["--animate", ""], "use gamma or t"),
        (["--sweep", "gamma=1e308"], "use a finite number"),
        (["--animate", "t.avi"], "use gamma or t"),
    ],
)
def test_wrong_sweeps(base: list[str], argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*base, *argv]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


# ---- animation over t --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_animation_over_t(base: list[str], tmp_path: Path, ending: str) -> None:
    assert main.main([*base, "--gamma", "0.5", "--t_boost", "400", "--animate", f"t.{ending}"]) == 0
    with Image.open(tmp_path / "out" / f"t_{NAME}.{ending}") as image:
        assert getattr(image, "n_frames", 1) == 5


@pytest.mark.parametrize(("ending", "width"), [("webp", 16_384), ("gif", 65_536)])
def test_an_animation_too_large_for_its_format_is_one_line(ending: str, width: int, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (width, 1), colour) for colour in ("red", "blue")]
    with pytest.raises(WorkError, match=rf"a\.{ending}: {width} x 1 pixels cannot be written as {ending.upper()}"):
        figure.save_animation(tmp_path / f"a.{ending}", frames)
    assert not list(tmp_path.iterdir())


def test_walk_ends_in_the_result() -> None:
    """Watching the walk changes nothing, and P_t of the first step is the network's own prediction."""
    model = golden_model("ddpm")
    s = Settings(gamma=0.5, n_inv=5, n_gen=7, content_replace_step=4, t_boost=500)
    x0 = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    both = invert(model, x0, s, ["a"])
    seen = list(transfer_walk(model, both, both, s, noise_of_pairs(model, s, both, both)))
    assert [step.t for step, _, _ in seen] == timestep_grid(7)[::-1]
    whole = transfer(model, both, both, s, noise_of_pairs(model, s, both, both))
    assert torch.equal(seen[-1][1], whole)
    with torch.inference_mode():
        f = model.unet.encode(both.x_T, torch.full((1,), 999.0))
        eps = model.unet.decode(f._replace(h=Blend(0.5)(f.h, both.h[max(both.h)])))
    torch.testing.assert_close(seen[0][2], predict_x0(both.x_T, eps, model.schedule(999)), rtol=1e-4, atol=1e-2)


# ---- drawing -----------------------------------------------------------------------------------------------------


def test_table_without_a_greek_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without DejaVu the symbols become names, and hostile labels stay inside the figure."""
    monkeypatch.setattr(ImageFont, "truetype", refuse)
    figure.font.cache_clear()
    try:
        assert figure.symbol("gamma") == "gamma"
        sheet = figure.table([[None, Image.new("RGB", (8, 8))]], column_labels=["x" * 500, "\n\u202e"], title="t" * 900)
        assert sheet.size == (8 + 2 * 100 + 8, 8 + 2 * 18 + 100 + 8)
    finally:
        figure.font.cache_clear()


REAL_TRUETYPE = ImageFont.truetype


def refuse(font: object = None, *args: Any, **kwargs: Any) -> object:
    """Pillow's own font is read from memory; nothing is found by name."""
    if isinstance(font, str):
        raise OSError("no such font")
    return REAL_TRUETYPE(font, *args, **kwargs)  # type: ignore[arg-type]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
