"""The contract that both U-Net families keep: a network cut at its bottleneck.

The method reads and replaces ``h``, the output of the middle block ("h-space"). So a network here is two halves,
``encode`` and ``decode``, and changing ``h`` is ``unet.decode(f._replace(h=...))``: no hook, no flag in ``forward``.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


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
