"""--device and --precision: what is no device, or is not there, is refused in one line; what a precision means where."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffstyle.errors import UsageError
from diffstyle.pipeline import cache_key
from diffstyle.runs.records import model_stamp
from diffstyle.settings import Settings
from diffstyle.zoo.device import pick_device, pick_precision
from golden_models import golden_model

ROOT = Path(__file__).resolve().parents[2]
CARDS = {"H100": (9, 0), "A100": (8, 0), "T4": (7, 5)}


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


# ---- --precision -------------------------------------------------------------------------------------------------------


@pytest.fixture
def _switches_restored() -> Iterator[None]:
    yield
    pick_precision("fp32", torch.device("cpu"))


@pytest.mark.parametrize(
    ("card", "name", "precision", "convolutions", "products"),
    [
        ("H100", "auto", "tf32-conv", True, False),  # PyTorch's defaults
        ("A100", "auto", "tf32-conv", True, False),
        ("A100", "tf32", "tf32", True, True),
        ("A100", "fp32", "fp32", False, False),
        ("A100", "bf16", "bf16", False, False),
        ("T4", "auto", "fp32", False, False),
        ("T4", "tf32", "fp32", False, False),
        ("T4", "fp16", "fp16", False, False),
        ("", "auto", "fp32", False, False),
        ("", "tf32-conv", "fp32", False, False),
    ],
)
@pytest.mark.usefixtures("_switches_restored")
def test_what_a_precision_means(
    card: str, name: str, precision: str, convolutions: bool, products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: CARDS[card])
    device = torch.device("cuda" if card else "cpu")
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = not convolutions, not products
    assert pick_precision(name, device) == precision
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (convolutions, products)
    if hasattr(torch.backends.cudnn, "conv"):  # since 2.9
        assert (torch.backends.cudnn.conv.fp32_precision == "tf32") == convolutions
        assert (torch.backends.cuda.matmul.fp32_precision == "tf32") == products


def test_other_devices_have_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_precision("auto", torch.device("mps")) == "fp32"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 4))
    assert pick_precision("auto", torch.device("cuda")) == "fp32"
    with pytest.raises(UsageError, match="--precision int8 is not known: use one of auto, fp32, tf32-conv, tf32, bf16, fp16"):
        pick_precision("int8", torch.device("cpu"))


def test_the_switches_are_set_without_a_warning() -> None:
    code = (
        "import torch; from unittest import mock; from diffstyle.zoo.device import pick_precision\n"
        "with mock.patch('torch.cuda.get_device_capability', lambda _: (8, 0)):\n"
        "    print(*(pick_precision(name, torch.device('cuda')) for name in ('auto', 'tf32', 'fp32')))\n"
        "assert not torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == 'highest'\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("tf32-conv tf32 fp32\n", "")


@pytest.mark.parametrize(
    ("precision", "said"),
    [("fp32", "float32"), ("tf32-conv", "tf32-conv"), ("tf32", "tf32"), ("bf16", "bfloat16"), ("fp16", "float16")],
)
def test_records_and_caches_tell_precisions_apart(precision: str, said: str) -> None:
    """fp32 is said as before there were others, so that older records and caches stay valid."""
    model = dataclasses.replace(golden_model("ddpm"), precision=precision)
    assert model_stamp(model)["precision"] == said
    assert cache_key(model, Settings())["precision"] == f"torch.{said}"
