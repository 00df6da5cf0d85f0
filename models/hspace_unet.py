"""The contract that both U-Net families keep: a network cut at its bottleneck.

The method reads and replaces ``h``, the output of the middle block ("h-space"). So a network here is two halves,
``encode`` and ``decode``, and changing ``h`` is ``unet.decode(f._replace(h=...))``: no hook, no flag in ``forward``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Features(NamedTuple):
    """Everything the decoder needs. ``decode`` reads it and leaves it as it is, so one encode may feed many decodes."""

    h: Tensor  # (N, C_h, H', W') output of the middle block, the bottleneck
    skips: tuple[Tensor, ...]  # encoder activations, outermost first
    temb: Tensor  # (N, C_t) time embedding


class HSpaceUNet(nn.Module):
    """A noise-prediction network eps(x_t, t) that can be run in two halves."""

    def encode(self, x: Tensor, t: Tensor) -> Features:
        """Run the encoder and the middle block on x (N, 3, H, W) in [-1, 1] at timesteps t (N,), floats in [0, 999]."""
        raise NotImplementedError

    def decode(self, f: Features) -> Tensor:
        """Return the predicted noise eps (N, 3, H, W); a learned variance, if the network has one, is dropped."""
        raise NotImplementedError

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """eps(x_t, t), the plain network."""
        return self.decode(self.encode(x, t))


def at_least_fp32(x: Tensor) -> Tensor:
    """x in fp32, or in fp64 if it is that already (the tests' reference precision)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in fp32 whatever the precision around it (its parameters stay fp32, see ``to_precision``)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(at_least_fp32(x)).to(x.dtype)


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
