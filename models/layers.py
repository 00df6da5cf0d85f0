"""What both U-Net families are built from, and the precision that they compute in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffstyle.models.hspace_unet import HSpaceUNet


def at_least_fp32(x: Tensor) -> Tensor:
    """x in fp32, or in fp64 if it is that already (the tests' reference precision)."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class StaysFp32:
    """A mark on modules that ``to_precision`` leaves in fp32: low precision there would feed back over 1000 steps."""


class GroupNorm32(StaysFp32, nn.GroupNorm):
    """Group normalisation in fp32 whatever the precision around it."""

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


class TimeLinear(StaysFp32, nn.Linear):
    """A layer that the time embedding goes through, (N, C) to (N, C_out).

    ``by_row`` is set in half precision: on the CPU each row is then summed alone. The order of summation of a matrix product
    depends on the number of rows, and a bit that the next rounding turns over for it would change a picture with its batch.
    """

    by_row = False

    def forward(self, x: Tensor) -> Tensor:
        if self.by_row and x.device.type == "cpu":
            return (x[:, None, :] * self.weight).sum(-1) + self.bias
        return super().forward(x)


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
    """Run ``unet`` in ``dtype``, in place, all but what is marked to stay in fp32."""
    for module in unet.modules():
        if isinstance(module, TimeLinear):
            module.by_row = dtype.itemsize < 4
        if not isinstance(module, StaysFp32):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    return unet
