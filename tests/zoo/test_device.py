"""--device: what is no device, or is not there, is refused in one line."""

from __future__ import annotations

import pytest
import torch

from diffstyle.errors import UsageError
from diffstyle.zoo.device import pick_device


@pytest.mark.parametrize(
    "name", ["cpu:abc", "cpu:", "cuda:-1", "cuda:\u00b2", "cpu:99999999999999999999", "auto:0", "tpu", "", "cpu:0:1"]
)
def test_what_is_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="is not known"):
        pick_device(name)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(pick_device("cuda:1")) == "cuda:1"
    with pytest.raises(UsageError, match="there are 2 CUDA GPUs"):
        pick_device("cuda:2")


def test_the_cpu_may_have_a_number() -> None:
    assert pick_device("cpu:0").type == pick_device("cpu").type == "cpu"
