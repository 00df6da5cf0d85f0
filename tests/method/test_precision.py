"""What fp32 loses on the way through a network, against the same in fp64: a bound for every part that could lose more."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffstyle.images import load_image
from diffstyle.models import adm, ddpm
from diffstyle.models.layers import GroupNorm32, silu_
from diffstyle.pipeline import to_model
from golden_models import FAMILIES, TRAINED, relative, trained_model


@functools.cache
def pictures(size: int) -> Tensor:
    return torch.stack([load_image(path, size) for path in sorted((TRAINED / "images").rglob("*.png"))])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("t", "bound"), [(0, 4e-6), (489, 1e-6), (978, 1e-6), (999, 1e-6)])
def test_eps(family: str, t: int, bound: float) -> None:
    """Of max |eps|. At t = 0 half a unit in the last place of the picture itself moves the ADM's eps by 1.9e-6, and the
    official code is 2.8e-6 off, by its convolutions."""
    model = trained_model(family)
    x0, abar = pictures(model.config.image_size), model.schedule(t) if t else 1.0
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    x = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * noise
    ts = torch.full((len(x),), float(t))
    with torch.inference_mode():
        exact = copy.deepcopy(model.unet).double()(x.double(), ts.double())
        eps = model.unet(to_model(model, x), ts)
    assert max(relative(*pair) for pair in zip(eps, exact, strict=True)) <= bound


# Small and large, odd, one group a channel, and so many pixels that a plain sum of them would lose digits.
SHAPES = [(2, 128, 8, 8), (3, 32, 64, 64), (1, 96, 20, 12), (2, 64, 13, 7), (1, 32, 256, 256)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("deviations", [0.0, 10.0])
def test_group_norm(shape: tuple[int, ...], deviations: float) -> None:
    """As the pipeline lays tensors out, with a mean of so many deviations. The result is as exact as the input's rounding."""
    torch.manual_seed(0)
    norm = GroupNorm32(32, shape[1], eps=1e-6).requires_grad_(False)
    norm.weight.normal_()
    norm.bias.normal_()
    x = to_model(trained_model("adm"), torch.randn(shape) + deviations)
    exact = copy.deepcopy(norm).double()(x.double())
    assert relative(norm(x), exact) <= 1e-6
    assert torch.equal(norm(x[:1].clone(memory_format=torch.preserve_format)), norm(x)[:1])  # alone as in a batch


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_group_norm_of_halves_is_that_of_fp32_rounded(dtype: torch.dtype) -> None:
    norm = GroupNorm32(32, 64)
    x = to_model(trained_model("adm"), torch.randn(2, 64, 32, 32) * 3 + 5).to(dtype)
    assert torch.equal(norm(x), norm(x.float()).to(dtype))


def test_gradients_of_group_norm() -> None:
    norm = GroupNorm32(32, 64)
    exact = copy.deepcopy(norm).double()
    x = to_model(trained_model("adm"), torch.randn(2, 64, 32, 32) + 10).requires_grad_()
    y = x.detach().double().requires_grad_()
    weights = torch.randn(x.shape)
    (norm(x) * weights).sum().backward()
    (exact(y) * weights.double()).sum().backward()
    for ours, theirs in ((x, y), (norm.weight, exact.weight), (norm.bias, exact.bias)):
        assert ours.grad is not None and theirs.grad is not None
        assert relative(ours.grad, theirs.grad) <= 1e-5


@pytest.mark.parametrize("scale", [1.0, 8.0])  # 8: one position takes all of the attention
def test_attention(scale: float) -> None:
    """PyTorch's fused kernel for the CPU, at the sizes of the published networks."""
    q, k, v = (torch.randn(2, 4, 256, 64, generator=torch.Generator().manual_seed(i)) * scale for i in range(3))
    exact = torch.softmax(q.double() @ k.double().mT / 8, dim=-1) @ v.double()
    assert relative(F.scaled_dot_product_attention(q, k, v), exact) <= (1e-6 if scale == 1 else 2e-5)


@pytest.mark.parametrize("embedding", [ddpm.timestep_embedding, adm.timestep_embedding])
def test_time_embedding(embedding: object) -> None:
    """The frequencies' rounding is multiplied by t: at 999 it is 4e-5, as in the official code, whose formula it is."""
    assert callable(embedding)
    for t, bound in ((0.0, 0.0), (1.0, 2e-7), (999.0, 1e-4)):
        ts = torch.tensor([t])
        assert float((embedding(ts, 128) - embedding(ts.double(), 128)).abs().max()) <= bound


def test_silu_in_place() -> None:
    x = torch.randn(4, 1000) * 5
    with torch.inference_mode():
        ours = silu_(x.clone())
        assert torch.equal(ours, F.silu(x)) and relative(ours, F.silu(x.double())) <= 2e-7
