"""The default batch size on a card, whose memory is a stand-in here."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from diffstyle import pipeline
from diffstyle.models.hspace_unet import Features, HSpaceUNet
from diffstyle.runs import batching
from diffstyle.runs.batching import default_batch_size
from golden_models import golden_model

MB = 1 << 20


@pytest.mark.parametrize(
    ("free", "peak", "size"),
    [
        (1000 * MB, 300 * MB, 9),  # two pictures take 200 MB besides the weights; nine tenths are used
        (100 * MB, 300 * MB, 1),
        (80_000 * MB, 300 * MB, 32),  # beyond which a larger batch is hardly faster
        (1000 * MB, None, 1),  # two do not fit
    ],
)
def test_a_cards_batch_is_measured(free: int, peak: int | None, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def injection(_: object, n: int) -> None:
        order.append(f"pass of {n}")
        if peak is None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batching, "injection", injection)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 100 * MB)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: peak or 0)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: order.append("reset"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("emptied"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2 * free))
    model = dataclasses.replace(golden_model("ddpm"), device=torch.device("cuda"))
    assert default_batch_size(model, processes=4) == size
    assert order == ["reset", "pass of 2", "emptied"]


def test_the_pass_decodes_twice_as_many_as_it_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = golden_model("adm"), list[int]()
    kind = type(model.unet)
    encode, decode = kind.encode, kind.decode

    def watched_encode(unet: HSpaceUNet, x: Tensor, t: Tensor) -> Features:
        seen.append(len(x))
        return encode(unet, x, t)

    def watched_decode(unet: HSpaceUNet, f: Features) -> Tensor:
        seen.append(len(f.h))
        return decode(unet, f)

    monkeypatch.setattr(kind, "encode", watched_encode)
    monkeypatch.setattr(kind, "decode", watched_decode)
    pipeline.injection(model, 2)
    assert seen == [2, 4]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_real_cards_batch_fits() -> None:
    golden = golden_model("ddpm")
    model = dataclasses.replace(golden, device=torch.device("cuda"), unet=golden.unet.cuda())
    try:
        assert 1 <= batching.measured_bytes(model) < batching.free_memory(model.device)
        pipeline.injection(model, default_batch_size(model))
    finally:
        golden.unet.cpu()
