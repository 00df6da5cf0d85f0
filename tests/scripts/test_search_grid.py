"""scripts/search_grid.py: the search puts evaluations where eps varies, and what it writes is read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import measuring
import numpy as np
import pytest
import search_grid
import torch
from gaussian import SCHEDULE, Gaussian

from diffstyle.model import Model
from diffstyle.solvers import noise_ratio, weights
from diffstyle.steps import USUAL
from diffstyle.zoo.config import load_config
from diffstyle.zoo.grids import grid_file
from golden_models import golden_config, golden_model


def test_leg_errors_are_those_of_the_solver_s_own_weights() -> None:
    """The error from products of eps is that of the sum itself, taken directly."""
    eps = torch.randn(999, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).cumsum(0)
    legs = search_grid.Legs((eps @ eps.T).numpy(), SCHEDULE)
    s = [noise_ratio(SCHEDULE(t)) for t in range(1000)]
    for known, a, b in (([20, 50], 50, 90), ([20, 50, 90], 50, 90), ([400, 640, 700], 640, 700)):
        exact = torch.stack([(s[t + 1] - s[t]) * eps[t] for t in range(a, b)]).sum(0)
        ours = zip(weights(SCHEDULE, range(a, b + 1), known), known, strict=True)
        wanted = (
            float((exact - torch.stack([w * eps[t] for w, t in ours]).sum(0)).square().sum())
            * float(search_grid.faded(np.array(s[a]))) ** 2
        )
        found = legs.error([np.array([t]) for t in known], np.array([a]), np.array([b]))
        assert found[0] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0, 100), (500, 700)])
def test_evaluations_go_where_eps_varies(low: int, high: int) -> None:
    t = np.arange(999)
    inside = np.clip((t - low) / (high - low), 0, 1)
    eps = np.stack([np.sin(k * inside) for k in range(1, 20)] + [np.ones(999)], 1)
    nodes = search_grid.search(eps @ eps.T, SCHEDULE, 12)
    assert len(nodes) == 12 and nodes[0] == 0 and nodes == sorted(set(nodes))
    assert sum(low <= node <= high for node in nodes) >= 8


def test_smoothing_keeps_the_density_and_drops_the_chance() -> None:
    even = [k * k - 1 for k in range(1, 32)] + [999]
    assert search_grid.smoothed(even)[:29] == even[:29] and search_grid.smoothed(even)[-1] == 999
    crowded = [*even[:14], even[14] - 14, even[14], even[14] + 14, *even[15:]]  # three where one belongs
    gaps = np.diff(np.sqrt(np.array(search_grid.smoothed(crowded)) + 1.0))
    assert np.diff(np.sqrt(np.array(crowded) + 1.0)).min() < 0.48 < 0.58 < gaps[:-1].min()
    assert search_grid.smoothed([0, 1, 2, 3, 4, 999])[:3] == [0, 1, 2]  # none twice


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole script on a network that costs nothing."""
    config, pictures = tmp_path / "mine.yml", tmp_path / "pictures"
    config.write_bytes(Path("configs/custom.yml").read_bytes())
    shutil.copytree("test_images/avatars/contents", pictures)
    model: Model = replace(golden_model("ddpm"), unet=Gaussian(), config=replace(golden_config("ddpm"), image_size=8))
    monkeypatch.setattr(measuring, "load", lambda *_: model)
    assert search_grid.main(["--config", str(config), "--images", str(pictures), "--n_images", "2"]) == 0
    record = json.loads(grid_file(config).read_text())
    assert record["pictures"] == 2 and len(record["t"]) == 25 and record["sha256"] == model.digest
    grid = load_config(config).grid
    assert grid != USUAL and grid.ts == tuple(record["t"])
    assert str(grid_file(config)) in capsys.readouterr().out


@pytest.mark.parametrize("arguments", ["--n_images 0", "--batch_size 0", "--images nowhere", "--config nothing"])
def test_wrong_usage_is_one_line(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert search_grid.main(arguments.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
