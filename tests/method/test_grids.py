"""Where solvers ask the network: grids, and h between two evaluations."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gaussian import SCHEDULE, Gaussian, picture
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from walks import invert

from diffstyle.errors import UsageError
from diffstyle.files import file_hash
from diffstyle.pipeline import cache_key
from diffstyle.settings import Settings
from diffstyle.solvers import SOLVERS, between
from diffstyle.steps import USUAL, Grid, thin_out, warp
from diffstyle.zoo.config import load_config
from diffstyle.zoo.grids import grid_file, read_grid
from golden_models import golden_model

HIGH = Grid((0, 500, 999), (0.0, 0.25, 1.0))  # three quarters of all evaluations above 500

# ---- where ---------------------------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.integers(-1, 999), st.sampled_from([USUAL, HIGH]))
def test_a_timestep_has_its_share(t: int, grid: Grid) -> None:
    assert grid.timestep(grid.share(t)) == t


def test_the_usual_grid_is_even_in_the_root() -> None:
    assert USUAL.share(249) == pytest.approx(0.5) and USUAL.share(-1) == 0 and USUAL.share(999) == 1
    walk = thin_out(Settings(n_inv=1000).inversion_plan(), 32)
    gaps = [warp(step.then[-1] if step.then else step.t_next) - warp(step.t) for step in walk]
    assert max(gaps) < 1.1 and min(gaps[8:]) > 0.9  # of warp(999) / 32 = 0.99; the first timesteps are whole numbers


@pytest.mark.parametrize("n_inv", [300, 1000])
def test_evaluations_are_where_the_grid_has_them(n_inv: int) -> None:
    settings = Settings(n_inv=n_inv, solver="abm3", nfe=24)
    ts = [step.t for step in settings.inversion_walk(HIGH)]
    assert len(ts) == 24 == settings.inversion_evaluations(grid=HIGH) and sum(t < 500 for t in ts) == 6
    assert sum(step.t < 500 for step in settings.inversion_walk()) > 15


def test_another_grid_is_another_latent() -> None:
    model, s = golden_model("ddpm"), Settings(solver="abm3")
    other = replace(model, config=replace(model.config, grid=HIGH))
    assert cache_key(model, s) != cache_key(other, s)
    assert cache_key(model, Settings()) == cache_key(other, Settings())  # ddim asks at every step


# ---- h ---------------------------------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 999), min_size=4, max_size=9, unique=True), st.integers(0, 999))
def test_h_between_is_exact_for_cubics(known: list[int], t: int) -> None:
    def cubic(t: int) -> torch.Tensor:
        u = (warp(t) - 16) / 16
        return torch.tensor([1.0, u, u**2 - u, u**3], dtype=torch.float64).view(1, 4, 1, 1)

    if min(known) <= t <= max(known):  # it is asked for nothing outside
        near = sorted(known, key=lambda each: abs(warp(each) - warp(t)))[:4]
        size = 1 + max(abs(warp(t) - warp(each)) for each in near) ** 3
        torch.testing.assert_close(between({each: cubic(each) for each in known}, t), cubic(t), atol=1e-9 * size**3, rtol=1e-6)


def test_h_costs_one_encode_however_many_are_kept() -> None:
    unet, settings = Gaussian(), Settings(n_inv=1000, n_gen=1000, solver="abm3", nfe=24)
    kept = settings.kept()
    assert len(kept) == 50
    found = invert(unet, picture(), settings.inversion_walk(), SCHEDULE, kept, latent=False, solver=SOLVERS["abm3"])
    evaluations = settings.inversion_evaluations(latent=False)
    assert (unet.encodes, unet.decodes) == (evaluations + 1, evaluations) and evaluations < 25
    assert sorted(found.h) == kept and unet.seen[-1] == kept[-1]


def test_bfloat16_h_is_summed_in_fp32() -> None:
    h = {t: torch.full((1, 1, 1, 1), 1 + t / 1000).bfloat16() for t in (0, 100, 300, 600)}
    exact = between({t: x.double() for t, x in h.items()}, 200)
    assert between(h, 200).dtype == torch.bfloat16
    assert between(h, 200).double() == exact.bfloat16().double()


# ---- files -------------------------------------------------------------------------------------------------------------------

GRID = {"t": [0, 500, 999], "share": [0, 0.25, 1]}


def test_a_grid_is_read_beside_its_config(tmp_path: Path) -> None:
    config = tmp_path / "mine.yml"
    config.write_bytes(Path("configs/custom.yml").read_bytes())
    assert load_config(config).grid == USUAL
    (tmp_path / "grids").mkdir()
    grid_file(config).write_text(json.dumps(GRID))
    assert load_config(config).grid == HIGH


def test_the_embedded_model_has_one() -> None:
    config = Path("configs/avatars.yml")
    assert json.loads(grid_file(config).read_text())["sha256"] == file_hash(Path("pretrained/avatars64.pt"))
    grid = load_config(config).grid
    assert (grid.ts[0], grid.ts[-1], grid.shares[0], grid.shares[-1]) == (0, 999, 0, 1) and len(grid.ts) == 25


@pytest.mark.parametrize(("change", "said"), [
    ({"t": [0, 500]}, "share must be"),
    ({"t": [0, 500, 500]}, "t must be"),
    ({"t": [0, 500, 1000]}, "t must be"),
    ({"t": [0, 500.5, 999]}, "t must be"),
    ({"t": [0, True, 999]}, "t must be"),
    ({"t": list(range(201))}, "t must be"),
    ({"t": "abc"}, "t must be"),
    ({"share": [0, math.nan, 1]}, "share must be"),
    ({"share": [0, 0.5, 0.9]}, "share must be"),
    ({"share": [0, 1, 1]}, "share must be"),
    ({"share": None}, "share must be"),
])  # fmt: skip
def test_a_bad_grid_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    config = tmp_path / "mine.yml"
    (tmp_path / "grids").mkdir()
    grid_file(config).write_text(json.dumps(GRID | change))
    with pytest.raises(UsageError, match=said) as caught:
        read_grid(config, 1000)
    assert "\n" not in str(caught.value) and "search_grid.py" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "3" * 300_000])
def test_what_is_no_grid_is_refused(tmp_path: Path, text: str) -> None:
    config = tmp_path / "mine.yml"
    (tmp_path / "grids").mkdir()
    grid_file(config).write_text(text)
    with pytest.raises(UsageError, match=r"search_grid\.py"):
        read_grid(config, 1000)
