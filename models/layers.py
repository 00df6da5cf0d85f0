"""What both U-Net families are built from, and the precision that they compute in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffstyle.models.hspace_unet import HSpaceUNet


def at_least_fp32(x: Tensor) -> Tensor:
    """x in fp32, or in fp64 if it is that already (the tests' reference precision)."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in fp32 whatever the precision around it (its parameters stay fp32, see ``to_precision``)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(at_least_fp32(x)).to(x.dtype)


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


def memory_format(device: torch.device) -> torch.memory_format:
    """How activations lie in memory on ``device``: channels last, which GPUs compute faster; on the CPU contiguous.

    PyTorch's group norm is exact to the rounding of fp32 on GPUs and on contiguous tensors. On the CPU's channels-last ones it
    takes the variance as E[x^2] - E[x]^2, 2e-4 off where the mean is ten deviations (docs/precision.md).
    """
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


def to_precision(unet: HSpaceUNet, dtype: torch.dtype) -> HSpaceUNet:
    """Run ``unet`` in ``dtype``, in place; norms keep fp32 parameters because low precision feeds back over 1000 steps."""
    unet.to(dtype)
    for module in unet.modules():
        if isinstance(module, GroupNorm32):
            module.float()
    return unet
