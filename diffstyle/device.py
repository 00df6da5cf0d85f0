"""Where and in which precision a run computes; nothing here is decided at import time."""

from __future__ import annotations

import torch

from diffstyle.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


def pick_device(name: str, local: int = 0) -> torch.device:
    """The torch device for ``--device``: auto takes CUDA, then MPS, then the CPU. "cuda:1" is fine too.

    ``local`` is this process's number on its machine: each takes a GPU of its own.

    Raises UsageError when what is asked for is absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise UsageError(f"--device {name} is not known: use one of {', '.join(DEVICES)}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA GPU is visible to PyTorch; use --device cpu, or check CUDA_VISIBLE_DEVICES")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this machine has no Apple GPU that PyTorch can use; use --device cpu")
    if name == "cuda":
        name = f"cuda:{local % torch.cuda.device_count()}"
    return torch.device(name)


def pick_dtype(precision: str) -> torch.dtype:
    """The network's dtype. fp32 is exact; tf32 lets CUDA matmuls and convolutions round their inputs to 10 bits.

    This sets PyTorch's TF32 switches, the only process-wide state there is.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision} is not known: use one of {', '.join(PRECISIONS)}")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
