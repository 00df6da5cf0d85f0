"""Where and in which precision a run computes; nothing here is decided at import time."""

from __future__ import annotations

import ctypes
import warnings

import torch

from diffstyle.errors import UsageError
from diffstyle.model import DTYPES

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", *DTYPES)


def pick_device(name: str, local: int = 0) -> torch.device:
    """The torch device for ``--device``: auto takes CUDA, then MPS, then the CPU. "cuda:1" is fine too.

    ``local`` is this process's number on its machine: each takes a GPU of its own.

    Raises UsageError when what is asked for is absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, colon, number = name.partition(":")
    if colon and not (number.isascii() and number.isdecimal() and len(number) < 4):
        raise UsageError(f"--device {name} is not known: a device's number is one of 0, 1, 2 ..., as in cuda:1")
    if kind not in DEVICES or (colon and kind == "auto"):
        raise UsageError(f"--device {name} is not known: use one of {', '.join(DEVICES)}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA GPU is visible to PyTorch; use --device cpu, or check CUDA_VISIBLE_DEVICES")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this machine has no Apple GPU that PyTorch can use; use --device cpu")
    if kind == "cuda" and colon and int(number) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} CUDA GPUs, numbered from 0")
    if name == "cuda":
        name = f"cuda:{local % torch.cuda.device_count()}"
    if kind == "cpu":
        keep_freed_memory()
    return torch.device(name)


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks for the next tensors; False where there is no glibc.

    It would map every large tensor anew, and the kernel's clearing of fresh pages takes a quarter of a full-size network's
    time (benchmarks/README.md).
    """
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, 2**31 - 1))


def pick_precision(name: str, device: torch.device) -> str:
    """What ``--precision`` means on ``device``, a key of DTYPES.

    auto is the official code's, which leaves PyTorch's defaults as they are: on CUDA tf32-conv, elsewhere fp32. Where
    there is no TF32 its names mean fp32. This sets PyTorch's TF32 switches, which hold for the whole process.

    Raises UsageError for a name that is not known.
    """
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name} is not known: use one of {', '.join(PRECISIONS)}")
    precision = "tf32-conv" if name == "auto" else name
    if precision.startswith("tf32") and not has_tf32(device):
        precision = "fp32"
    with warnings.catch_warnings():
        # These older switches set PyTorch 2.9's fp32_precision too, and say that they are old. The newer ones alone leave
        # the two at odds, and then torch.compile fails (pytorch/pytorch#166387).
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision in ("tf32", "tf32-conv")
    return precision


def has_tf32(device: torch.device) -> bool:
    """NVIDIA's cards have TF32 from Ampere (8.0) on; AMD's, which PyTorch also calls CUDA, have it not."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
