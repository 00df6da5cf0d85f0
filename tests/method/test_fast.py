"""Faster, with the same numbers: --compile, in-place steps, memory that is kept."""

from __future__ import annotations

import ctypes
import functools
import logging
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from diffstyle import pipeline
from diffstyle.models.hspace_unet import Features
from diffstyle.settings import Settings
from diffstyle.zoo.compiled import CompiledHalf, compile_model
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


def test_every_batch_finds_the_code_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encodes, decodes and stacked decodes of batches of 4, 3 and 2 are two compilations; of 1, two more; again, none."""
    model, counter = golden_model("ddpm"), CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter, fullgraph=True))
    settings = Settings(n_inv=3, n_gen=3, content_replace_step=3, omega=0.3)

    def whole(n: int) -> None:
        inverted = pipeline.invert(model, torch.rand(n, 3, 32, 32) * 2 - 1, settings, "abcd"[:n])
        pipeline.transfer(model, inverted, inverted, settings, lambda: torch.zeros(n, 3, 32, 32))

    torch._dynamo.reset()
    counts = []
    try:
        compile_model(model)
        for n in (4, 3, 2, 1, 4, 1):
            whole(n)
            counts.append(counter.frame_count)
    finally:
        for half in ("encode", "decode"):
            vars(model.unet).pop(half, None)
        torch._dynamo.reset()
    assert counts == [2, 2, 2, 4, 4, 4]


def test_cuda_graphs_for_small_batches_give_what_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph writes its outputs to the same memory every time, as this stand-in does."""
    memory, modes = torch.zeros(1, 3), list[str | None]()

    def replay(half: Any, mode: str | None = None) -> Any:
        def call(x: Any) -> Any:
            modes.append(mode)
            memory.fill_(float(x.sum()))
            return memory if half == "decode" else Features(memory, (memory,), memory)

        return call

    monkeypatch.setattr(torch, "compile", replay)
    encode, decode = CompiledHalf("encode", graphs=True), CompiledHalf("decode", graphs=True)  # type: ignore[arg-type]
    eps, f = decode(torch.ones(1, 1)), encode(torch.ones(2, 1))
    decode(torch.ones(8, 1))
    assert eps.tolist() == [[1.0] * 3] and f.h.tolist() == f.temb.tolist() == [[2.0] * 3]
    decode(torch.ones(9, 1))
    CompiledHalf("decode", graphs=False)(torch.ones(1, 1))  # type: ignore[arg-type]
    assert modes == ["reduce-overhead"] * 3 + [None] * 2


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
