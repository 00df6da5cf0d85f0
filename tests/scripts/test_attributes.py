"""What benchmarks/attributes.py measures, on pictures whose answer is known: the ideal transfer, the style, a blur."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("python_avatars", reason="development package")
pytest.importorskip("resvg_py", reason="development package")

import attributes  # type: ignore[import-not-found]
from make_avatars import render, sample_attributes

PAIRS = [(sample_attributes(1, 2 * i), sample_attributes(1, 2 * i + 1)) for i in range(6)]


def ideal(pair: int) -> np.ndarray:
    content, style = PAIRS[pair]
    return render(replace(content, colours=style.colours), 64).astype(float)


@pytest.mark.parametrize("pair", range(len(PAIRS)))
def test_the_ideal_transfer_follows_every_rule(pair: int) -> None:
    found = attributes.measure(*PAIRS[pair], ideal(pair), 64)
    assert found["psnr"] > 100
    assert found["gradient"] == pytest.approx(1)
    assert found["hair"] > 0.97
    assert found["shape"] > 0.45
    assert all(found[name] > 0 for name in ("colours", "edges"))
    assert all(np.isnan(found[name]) or found[name] > 0 for name in ("glasses", "beard"))


@pytest.mark.parametrize("pair", range(len(PAIRS)))
def test_the_style_unchanged_follows_the_style(pair: int) -> None:
    content, style = PAIRS[pair]
    found = attributes.measure(content, style, render(style, 64).astype(float), 64)
    floors = attributes.baselines(content, style, 64)
    assert found["psnr"] == pytest.approx(floors["style unchanged"])
    assert found["shape"] < 0
    assert found["edges"] < 0
    assert min(floors.values()) > 3
    assert floors["style's means in the content's regions"] > max(floors["style unchanged"], floors["content unchanged"])


def test_blur_and_noise_show_in_the_gradient() -> None:
    truth = ideal(0)
    blurred = np.mean([np.roll(truth, (i, j), (0, 1)) for i in range(-2, 3) for j in range(-2, 3)], axis=0)
    noisy = truth + np.random.default_rng(0).normal(0, 20, truth.shape)
    assert attributes.measure(*PAIRS[0], blurred, 64)["gradient"] < 0.85
    assert attributes.measure(*PAIRS[0], noisy, 64)["gradient"] > 1.5


def test_psnr_is_that_of_clipped_pictures() -> None:
    assert attributes.psnr(np.full((4, 4, 3), 300.0), np.full((4, 4, 3), 245.0)) == pytest.approx(20 * np.log10(25.5))


def test_summary_counts_only_what_was_judged() -> None:
    rows = [dict.fromkeys(attributes.MEASURES + attributes.AMOUNTS, value) for value in (0.5, -0.5, float("nan"), 0.2)]
    share, low, high, judged = attributes.summary(rows)["beard"]
    assert share == pytest.approx(2 / 3) and judged == 3
    assert 0 <= low <= share <= high <= 1
    assert attributes.quantiles(rows)["psnr"][0] == pytest.approx(0.2)
