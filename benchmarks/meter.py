"""What the benchmarks count: evaluations and FLOPs of a network, told apart by encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffstyle.models.hspace_unet import Features, HSpaceUNet


class Meter(HSpaceUNet):
    """A network that counts, by sample, what is asked of it. One evaluation-equivalent is the FLOPs of encode + decode."""

    def __init__(self, unet: HSpaceUNet, image_size: int) -> None:
        super().__init__()
        self.unet = unet
        self.encode_flops, self.decode_flops = flops_of(unet, image_size)
        self.encodes = self.decodes = 0

    def encode(self, x: Tensor, t: Tensor) -> Features:
        self.encodes += len(x)
        return self.unet.encode(x, t)

    def decode(self, f: Features) -> Tensor:
        self.decodes += len(f.h)
        return self.unet.decode(f)

    @property
    def flops(self) -> int:
        return self.encodes * self.encode_flops + self.decodes * self.decode_flops

    @property
    def evaluations(self) -> float:
        return self.flops / (self.encode_flops + self.decode_flops)


@torch.inference_mode()
def flops_of(unet: HSpaceUNet, image_size: int) -> tuple[int, int]:
    """FLOPs (a multiply and an add are two) of one encode and of one decode of one picture."""
    weight = next(unet.parameters())
    x, t = torch.zeros(1, 3, image_size, image_size, device=weight.device), torch.zeros(1, device=weight.device)
    with FlopCounterMode(display=False) as encode:
        f = unet.encode(x, t)
    with FlopCounterMode(display=False) as decode:
        unet.decode(f)
    return encode.get_total_flops(), decode.get_total_flops()
