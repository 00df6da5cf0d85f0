"""A network whose eps is known in closed form, for tests of walks."""

from __future__ import annotations

import torch
from torch import Tensor

from diffstyle.diffusion import linear_schedule
from diffstyle.models.hspace_unet import Features, HSpaceUNet

SCHEDULE = linear_schedule()


class Gaussian(HSpaceUNet):
    """The exact eps for data distributed as N(mean, std^2) a pixel: eps = sqrt(1-abar) (x - sqrt(abar) mean) / variance.

    h is the mean that it assumes, so injecting another h has a closed form too. It counts what is asked of it.
    """

    def __init__(self, std: float = 0.5) -> None:
        super().__init__()
        self.std, self.encodes, self.decodes, self.seen = std, 0, 0, list[int]()

    def encode(self, x: Tensor, t: Tensor) -> Features:
        self.encodes += len(x)
        self.seen.append(int(t[0]))
        mean = 0.2 + 0.1 * torch.tanh(x.mean((2, 3), keepdim=True)) + t[:, None, None, None] / 5000
        return Features(mean.expand(-1, -1, 2, 2), (x,), t)

    def decode(self, f: Features) -> Tensor:
        self.decodes += len(f.h)
        x = f.skips[0]
        abar = torch.tensor([SCHEDULE(int(t)) for t in f.temb], dtype=x.dtype)[:, None, None, None]
        mean = f.h.mean((2, 3), keepdim=True)
        return (1 - abar).sqrt() * (x - abar.sqrt() * mean) / (abar * self.std**2 + 1 - abar)


def picture(n: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
