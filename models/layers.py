"""What both U-Net families are built from, and the precision that they compute in."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffstyle.models.hspace_unet import HSpaceUNet


def at_least_fp32(x: Tensor) -> Tensor:
    """x in fp32, or in fp64 if it is that already (the tests' reference precision)."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in fp32 whatever the precision around it (its parameters stay fp32, see ``to_precision``).

    It is exact to the rounding of fp32 in every memory layout. PyTorch's own kernel is so on GPUs and on contiguous tensors.
    On the CPU's channels_last tensors it takes the variance as E[x^2] - E[x]^2, 2e-4 off where the mean is ten deviations.
    """

    def forward(self, x: Tensor) -> Tensor:
        y = at_least_fp32(x)
        if y.device.type != "cpu" or y.is_contiguous() or y.ndim != 4 or torch.compiler.is_compiling():
            y = super().forward(y)  # torch.compile makes its own kernel of it, with a Welford variance
        elif y.shape[2] * y.shape[3] < 256:
            y = super().forward(y.contiguous()).contiguous(memory_format=torch.channels_last)
        else:
            norm = ChannelsLastNorm.apply if torch.is_grad_enabled() else channels_last_norm
            y, *_ = norm(y, self.num_groups, self.weight, self.bias, self.eps)
        return y.to(x.dtype)


def channels_last_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Group norm of x (N, C, H, W) in channels_last with exact statistics, and these: mean and 1 / deviation, (N, G) each."""
    x = x.contiguous(memory_format=torch.channels_last)
    n, c, h, w = x.shape
    # Batch norm's kernel takes mean and variance of a matrix's columns in two passes. A picture is such a matrix of
    # (H*W / parts, parts * C) numbers, its columns short enough (about 256) for a plain sum in fp32.
    parts = math.gcd(h * w, h * w // 256 or 1)
    pictures = x.as_strided((n, h * w // parts, parts * c), (c * h * w, parts * c, 1)).unbind()
    columns = [torch.batch_norm_update_stats(picture, None, None, 0.0) for picture in pictures]
    mean, var = columns[0] if n == 1 else map(torch.cat, zip(*columns, strict=True))
    # The two points mean +- deviation have their column's mean and variance, hence all points of a group have the group's.
    # They are few and made contiguous, where PyTorch's own group norm is exact.
    points = torch.addcmul(mean.view(n, 1, parts * c), var.sqrt_().view(n, 1, parts * c), SIDES)  # (N, 2, parts * C)
    points = points.view(n, 2 * parts, c).transpose(1, 2).contiguous()
    _, mean, rstd = torch.native_group_norm(points, None, None, n, c, 2 * parts, groups, eps)
    scale = rstd.view(n, groups, 1) * weight.view(groups, -1)
    shift = torch.addcmul(bias.view(groups, -1), mean.view(n, groups, 1), scale, value=-1)
    return torch.addcmul(shift.view(n, c, 1, 1), x, scale.view(n, c, 1, 1)), mean, rstd


SIDES = torch.tensor([[-1.0], [1.0]])


class ChannelsLastNorm(torch.autograd.Function):
    """``channels_last_norm`` where a gradient is recorded: PyTorch's own backward, with the exact statistics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, rstd = channels_last_norm(x, groups, weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight)
        ctx.mark_non_differentiable(mean, rstd)
        ctx.groups = groups
        return y, mean, rstd

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        x, mean, rstd, weight = ctx.saved_tensors
        n, c, h, w = x.shape
        dx, dweight, dbias = torch.ops.aten.native_group_norm_backward(
            dy, x, mean, rstd, weight, n, c, h * w, ctx.groups, [True, True, True]
        )
        return dx, None, dweight, dbias, None


class Upsample(nn.Module):
    """Double the resolution by nearest neighbour, then 3x3 unless a residual block around it convolves anyway."""

    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        if with_conv:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x) if hasattr(self, "conv") else x


# Large activations cost a CPU as much to allocate as to compute. Where no gradient is recorded, what a layer has just made
# is therefore overwritten by the next elementwise step; the numbers are the same.


def silu_(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add_(x: Tensor, y: Tensor) -> Tensor:
    return x + y if torch.is_grad_enabled() else x.add_(y)


def mul_(x: Tensor, y: Tensor) -> Tensor:
    return x * y if torch.is_grad_enabled() else x.mul_(y)


def to_precision(unet: HSpaceUNet, dtype: torch.dtype) -> HSpaceUNet:
    """Run ``unet`` in ``dtype``, in place; norms keep fp32 parameters because low precision feeds back over 1000 steps."""
    unet.to(dtype)
    for module in unet.modules():
        if isinstance(module, GroupNorm32):
            module.float()
    return unet
