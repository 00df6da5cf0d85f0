"""GroupNorm + SiLU in one pass for training in bfloat16 on a CPU: built with the C compiler that is there, if any."""

from __future__ import annotations

import ctypes
import logging
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.ddpm import ResBlock
from models.hspace_unet import add_

log = logging.getLogger("train_ddpm")
SOURCE = Path(__file__).with_name("fused_norm.c")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where no compiler builds them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    out = Path(tempfile.mkdtemp()) / "fused_norm.so"
    flags = ["-Ofast", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC"]
    done = subprocess.run([compiler, *flags, str(SOURCE), "-o", str(out), "-lm"], capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("the fused norm does not compile, training goes on slower: %s", done.stderr.strip()[:150])
        return None
    return ctypes.CDLL(str(out))


def pointer(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def channels_last(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


class NormSilu(torch.autograd.Function):
    """silu(group_norm(x)), x (N, C, H, W) -> the same shape in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        x = channels_last(x)
        n, c, height, width = x.shape
        y, mean, rstd = torch.empty_like(x), torch.empty(n, groups), torch.empty(n, groups)
        sizes = (ctypes.c_long(v) for v in (n, height * width, c, groups))
        library().norm_silu_forward(*map(pointer, (x, weight, bias, y, mean, rstd)), *sizes, ctypes.c_float(eps))  # type: ignore[union-attr]
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        dy = channels_last(gradients[0])
        n, c, height, width = x.shape
        dx, dweight, dbias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        scratch = torch.empty(height * width, c)
        sizes = (ctypes.c_long(v) for v in (n, height * width, c, mean.shape[1]))
        tensors = (x, dy, weight, bias, mean, rstd, dx, dweight, dbias, scratch)
        library().norm_silu_backward(*map(pointer, tensors), *sizes)  # type: ignore[union-attr]
        return dx, dweight, dbias, None, None


def norm_silu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    result: Tensor = NormSilu.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    return result


class FusedResBlock(ResBlock):
    """A ResBlock whose two norms take their SiLU with them."""

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv1(norm_silu(self.norm1, x))
        h = add_(h, self.temb_proj(nn.functional.silu(temb))[:, :, None, None])
        h = self.conv2(self.dropout(norm_silu(self.norm2, h)))
        return add_(h, self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


def fuse(unet: nn.Module) -> None:
    """Make every residual block of a DDPM take the fast way, in place; weights and their names stay. No compiler: no change."""
    if library() is None:
        return
    for module in unet.modules():
        if type(module) is ResBlock:
            module.__class__ = FusedResBlock
