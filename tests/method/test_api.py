"""The Python API."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import diffstyle
from golden_models import GOLDEN, golden_model

QUICK: dict[str, Any] = {"n_inv": 5, "n_gen": 5, "content_replace_step": 5, "gamma": 0.5}


def test_paths_and_tensors_agree() -> None:
    from diffstyle.images import load_image

    model = golden_model("ddpm")
    contents = [GOLDEN / f"images/contents/content_{c}.png" for c in "ab"]
    style = GOLDEN / "images/styles/style_a.png"
    from_paths = diffstyle.stylize(model, contents, style, **QUICK)
    tensors = torch.stack([load_image(p, 32) for p in contents])
    from_tensors = diffstyle.stylize(model, tensors, load_image(style, 32)[None], **QUICK)
    assert from_paths.shape == (2, 1, 3, 32, 32)
    assert torch.equal(from_paths, from_tensors)
    assert not torch.equal(from_paths[0], from_paths[1])


@pytest.mark.parametrize("noise", ["pair", "official"])
def test_boosting_noise_does_not_depend_on_the_batch(noise: str) -> None:
    model = golden_model("ddpm")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings: dict[str, Any] = {**QUICK, "t_0": 100, "t_boost": 60, "t_edit": 80, "noise": noise}
    one, four = (diffstyle.stylize(model, x, x, batch_size=n, **settings) for n in (1, 4))
    torch.testing.assert_close(one, four, rtol=1e-3, atol=1e-3 * float(four.abs().max()))
    other = diffstyle.stylize(model, x, x, **{**settings, "seed": 1})
    assert (other - four).abs().max() > 1e-2 * four.abs().max()


def test_wrong_calls() -> None:
    model = golden_model("ddpm")
    with pytest.raises(ValueError, match=r"the model takes \(N, 3, 32, 32\)"):
        diffstyle.stylize(model, torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 32, 32))
    with pytest.raises(diffstyle.DiffstyleError, match="--solver magic"):
        diffstyle.stylize(model, torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), solver="magic")
    with pytest.raises(TypeError, match="gama"):
        diffstyle.stylize(model, torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), gama=0.2)
