"""bf16 and fp16: what stays in fp32, and that a picture does not depend on its batch. Nothing in the loops waits for a device."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from diffstyle import pipeline
from diffstyle.model import DTYPES, Model
from diffstyle.models.layers import GroupNorm32, TimeLinear
from diffstyle.noise import pair_noise
from diffstyle.settings import Settings
from diffstyle.solvers import SOLVERS
from diffstyle.zoo.checkpoints import load_model
from golden_models import FAMILIES, GOLDEN, golden_config, relative

HALVES = ("bf16", "fp16")
SHORT: dict[str, Any] = {"gamma": 0.4, "n_inv": 6, "n_gen": 6, "content_replace_step": 6, "t_boost": 300, "nfe": 4}
# Cutting and joining, and what makes no number of another.
NO_ARITHMETIC = ("aten.cat", "aten._to_copy", "aten.to.", "aten.split", "aten.chunk", "aten.view", "aten.slice", "aten.detach",
                 "aten.clone", "aten.expand", "aten.alias", "aten.index")  # fmt: skip


@functools.cache
def model(family: str, precision: str) -> Model:
    return load_model(golden_config(family), GOLDEN / family / "model.pt", precision=precision)


def pictures(n: int) -> Tensor:
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.interpolate(coarse, size=32, mode="bilinear")


def whole(model: Model, settings: Settings, batch: int = 2) -> Tensor:
    """Four pictures in the style of the next one each."""
    x, keys = pictures(4), "abcd"
    parts = [pipeline.invert(model, x[i : i + batch], settings, keys[i : i + batch]) for i in range(0, 4, batch)]
    inverted, results = pipeline.Inverted.join(parts), []
    for i in range(0, 4, batch):
        content, style = inverted[range(i, i + batch)], inverted[[(j + 1) % 4 for j in range(i, i + batch)]]
        noise = pair_noise(1, list(zip(content.keys, style.keys, strict=True)), (3, 32, 32))
        results.append(pipeline.transfer(model, content, style, settings, noise))
    return torch.cat(results)


class Watch(TorchDispatchMode):
    """Sees every operation outside of the network."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.inside, self.seen = False, set[str]()
        for name in ("encode", "decode"):
            monkeypatch.setattr(model.unet, name, functools.partial(self.within, getattr(model.unet, name)), raising=False)

    def within(self, half: Any, *args: Any) -> Any:
        self.inside = True
        try:
            return half(*args)
        finally:
            self.inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.inside:
            self.look(str(func), args)
        return func(*args, **(kwargs or {}))

    def look(self, name: str, args: Any) -> None:
        self.seen.add(name)
        halves = [x for x in args if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)]
        assert not halves or name.startswith(NO_ARITHMETIC), f"{name} in half precision outside of the network"


@pytest.mark.parametrize("more", [{}, {"omega": 0.3}, {"mask": "box", "variant": "paper"}, {"solver": "abm3"}])
def test_the_sampler_stays_in_fp32(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Slerp, calibration, P_t, the steps and the solvers' sums: no arithmetic in half precision outside of the network."""
    m = model("ddpm", "bf16")
    with Watch(m, monkeypatch) as watch:
        x = whole(m, Settings(**SHORT, **more))
    assert x.dtype == torch.float32 and bool(x.isfinite().all())
    assert "aten.acos.default" in watch.seen  # Slerp


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_norms_and_time_embedding_stay_in_fp32(family: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen where they compute, not only where their parameters lie; and x and eps are fp32, h is not."""
    m, kinds = model(family, precision), list[tuple[torch.dtype, ...]]()
    x, t = pictures(2)[..., :16, :16], torch.tensor([3.0, 900.0])  # fp16 is slow on some CPUs
    with torch.inference_mode():
        exact = model(family, "fp32").unet.encode(x, t).temb
    group_norm = F.group_norm

    def watched(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        kinds.append((x.dtype, weight.dtype, bias.dtype))
        return group_norm(x, groups, weight, bias, eps)

    monkeypatch.setattr(F, "group_norm", watched)
    with torch.inference_mode():
        f = m.unet.encode(x, t)
        eps = m.unet.decode(f)
    assert len(kinds) == sum(isinstance(part, GroupNorm32) for part in m.unet.modules())
    assert set(kinds) == {(torch.float32,) * 3}
    assert {p.dtype for part in m.unet.modules() if isinstance(part, TimeLinear) for p in part.parameters()} == {torch.float32}
    assert (f.h.dtype, f.temb.dtype, eps.dtype) == (DTYPES[precision], torch.float32, torch.float32)
    assert relative(f.temb, exact) <= 1e-6  # with the checkpoint's weights: these are not rounded either


@pytest.mark.parametrize("precision", HALVES)
def test_softmax_is_in_fp32(precision: str) -> None:
    """Logits up to 100: in bf16 they would be a quarter off, and the weights by a quarter too."""
    q, k, v = (torch.randn(1, 1, 256, 64, generator=torch.Generator().manual_seed(i)).to(DTYPES[precision]) for i in range(3))
    q = q * 4
    exact = torch.softmax(q.double() @ k.double().mT / 8, dim=-1) @ v.double()
    unit = torch.finfo(DTYPES[precision]).eps
    error = float((F.scaled_dot_product_attention(q, k, v).double() - exact).abs().max() / exact.abs().max())
    rounded = (q @ k.mT / 8).softmax(-1) @ v
    assert error <= unit < float((rounded.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_does_not_depend_on_its_batch(family: str) -> None:
    """bf16 on a CPU: within 2 levels of 255. PyTorch's norm of channels-last tensors broke it until version 0.1 (31 levels)."""
    settings = Settings(**SHORT)
    alone, together = (whole(model(family, "bf16"), settings, batch).clamp(-1, 1) for batch in (1, 4))
    assert float((alone - together).abs().max()) * 127.5 <= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_fp16_depends_on_the_batch_by_its_rounding(family: str) -> None:
    """CPUs that cannot calculate in fp16 sum in an order that depends on the batch; a chaotic network makes much of that."""
    unet, x, t = model(family, "fp16").unet, pictures(4)[..., :16, :16], torch.full((4,), 500.0)
    with torch.inference_mode():
        together, alone = unet(x, t), torch.cat([unet(x[i : i + 1], t[:1]) for i in range(4)])
    assert float((together - alone).abs().max() / together.abs().max()) <= 4 * torch.finfo(torch.float16).eps


# ---- no waiting --------------------------------------------------------------------------------------------------------


class NoWaiting(Watch):
    """Refuses what would make a GPU wait: a number read from a tensor, a copy to another device, a shape out of values."""

    WAITS = ("aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.masked_select", "aten.equal", "aten.is_nonzero")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not str(func).startswith(self.WAITS), f"{func} waits for the device"
        moved = any(isinstance(value, torch.device) for value in [*args, *(kwargs or {}).values()])
        assert not (moved and str(func).startswith(("aten.to.", "aten._to_copy"))), f"{func} copies between devices"
        assert not str(func).startswith("aten.lift_fresh"), "a tensor made from Python's numbers is copied to the device"
        return func(*args, **(kwargs or {}))


CASES: list[dict[str, Any]] = [{"solver": solver} for solver in SOLVERS]
CASES += [
    {"omega": 0.3},
    {"mask": "box"},
    {"mask": "box", "variant": "paper"},
    {"blend": "lerp"},
    {"omega": 0.3, "solver": "abm3"},
]


@functools.cache
def inverted(family: str) -> pipeline.Inverted:
    return pipeline.invert(model(family, "fp32"), pictures(2), Settings(**SHORT), "ab")


@pytest.mark.parametrize("more", CASES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loops_never_wait(family: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first step to the last, the network's too. Noise comes by ``to_device``, which has a test of its own."""
    monkeypatch.setattr(pipeline, "to_device", lambda x, _: x)
    m, settings = model(family, "fp32"), Settings(**SHORT, **more)
    walk = pipeline.transfer_walk(m, inverted(family), inverted(family), settings, lambda: torch.zeros(2, 3, 32, 32))
    on_device = pipeline.to_model(m, pictures(2))
    with NoWaiting(m, monkeypatch):
        pipeline.invert(m, on_device, settings, "ab")
        steps = [step for step, _, _ in walk]
    assert len(steps) == len(settings.transfer_walk())


def test_what_goes_to_a_gpu_goes_by_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCpu:
        device, said = torch.device("cpu"), list[Any]()

        def pin_memory(self) -> OnCpu:
            self.said.append("pinned")
            return self

        def to(self, device: torch.device, non_blocking: bool) -> OnCpu:
            self.said.append((device.type, non_blocking))
            return self

    pipeline.to_device(OnCpu(), torch.device("cuda"))  # type: ignore[arg-type]
    assert OnCpu.said == ["pinned", ("cuda", True)]
    pipeline.to_device(OnCpu(), torch.device("cpu"))  # type: ignore[arg-type]
    assert OnCpu.said[2:] == [("cpu", False)]
