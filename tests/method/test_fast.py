"""Faster, with the same numbers: --compile, in-place steps, memory that is kept."""

from __future__ import annotations

import ctypes
import functools
import logging
from typing import Any

import pytest
import torch

from diffstyle.zoo.checkpoints import compile_model
from diffstyle.zoo.device import keep_freed_memory
from golden_models import golden_model


def test_without_a_compiler_nothing_changes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no working C++ compiler\nlong story")

    model = golden_model("ddpm")
    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.WARNING):
        compile_model(model)
    assert "no working C++ compiler" in caplog.text and "long story" not in caplog.text
    assert "encode" not in vars(model.unet)
    assert model.unet(torch.zeros(1, 3, 32, 32), torch.zeros(1)).shape == (1, 3, 32, 32)


def test_compiled_equals_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves can be traced whole; the code generation itself (a minute) is left to benchmarks/speed.py --compile."""
    model = golden_model("ddpm")
    x, t = torch.rand(2, 3, 32, 32) * 2 - 1, torch.tensor([10.0, 900.0])
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    with torch.inference_mode():
        plain = model.unet(x, t)
        compile_model(model)
        assert {"encode", "decode"} <= set(vars(model.unet))
        torch.testing.assert_close(model.unet(x, t), plain, rtol=1e-5, atol=1e-5)
    for half in ("encode", "decode"):  # the golden model is shared between tests
        del vars(model.unet)[half]


def test_freed_memory_is_kept_only_where_glibc_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_libc(_: None) -> Any:
        raise OSError("no libc")

    assert keep_freed_memory() in (True, False)  # never an error
    monkeypatch.setattr(ctypes, "CDLL", no_libc)
    assert not keep_freed_memory()


@pytest.mark.parametrize("family", ["ddpm", "adm"])
def test_inference_overwrites_nothing_that_is_read_again(family: str) -> None:
    """The in-place steps of inference give what training's do, and an encode may feed two decodes."""
    unet = golden_model(family).unet
    x, t = torch.rand(2, 3, 32, 32) * 2 - 1, torch.tensor([10.0, 900.0])
    before = x.clone()
    with torch.enable_grad():
        trained = unet(x, t)
    with torch.inference_mode():
        f = unet.encode(x, t)
        kept = [f.h.clone(), *(s.clone() for s in f.skips), f.temb.clone()]
        first, second = unet.decode(f), unet.decode(f)
    assert torch.equal(x, before)
    assert all(torch.equal(a, b) for a, b in zip([f.h, *f.skips, f.temb], kept, strict=True))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, trained, rtol=1e-4, atol=1e-5)
