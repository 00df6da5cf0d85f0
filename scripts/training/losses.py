"""The plain loss of a DDPM, with two terms for any pictures that make the bottleneck h carry the content.

An unconditional DDPM learns to predict the noise of a noised picture. A large one draws its layout from h by itself; a small
one sends everything through its skips, and then the method has nothing to inject. So:

- ``twin``: h is encoded from the same picture in other colours with other noise;
- ``skip_drop``: inner skips are zeroed at random.

Where the truth of a transfer is known there is more: transfers.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffstyle.models.hspace_unet import Features, HSpaceUNet
from training.data import Layers, Pictures
from training.device import Draws

WEIGHTINGS = ("uniform", "p2", "root")
ROOT_LIMITS = (0.1, 60.0)  # below t = 100 grain would stay in the pictures; above 900 bfloat16 cannot express more


@dataclass(frozen=True)
class Settings:
    """What determines the loss curve; a resumed run must repeat it."""

    batch: int = 16
    lr: float = 1e-3
    warmup: int = 200  # iterations of linear warm-up
    ema: float = 0.999  # decay of the averaged weights; shorter at the start
    weighting: str = "uniform"
    skip_drop: float = 0.0
    twin: float = 0.0
    twin_clean: float = 0.0
    transfer: float = 0.0  # weight of the transfers against the plain loss
    walks: float = 0.5  # share of the transfer pairs that are on a walk
    same_shape: float = 0.2  # share of the transfer pairs with the same shape in two colourings
    transfer_from: int = 100  # t under which nothing is transferred
    uneven: float = 0.0  # deviation of the noise's gain and of its coarse parts, which a walk's errors look like
    t_power: float = 1.0  # t is drawn as the power of a uniform number: above 1 low t come more often
    flip: bool = False
    precision: str = "fp32"
    seed: int = 0


def draw_t(n: int, timesteps: int, s: Settings, g: Draws) -> Tensor:
    """n timesteps (n,) in 0 ... timesteps - 1, on the CPU: another device may round the power in another way."""
    return (g.rand(n) ** s.t_power * timesteps).long().clamp(max=timesteps - 1)


def at(abar: Tensor, t: Tensor) -> Tensor:
    """abar_t (N, 1, 1, 1) of the timesteps t (N,)."""
    return abar[t, None, None, None]


def noised(x: Tensor, a: Tensor, noise: Tensor) -> Tensor:
    """x_t of the pictures x at abar a, channels last in memory."""
    return (a.sqrt() * x + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)


def draw_noise(x0: Tensor, s: Settings, g: Draws) -> Tensor:
    """Noise for pictures x0 (N, C, H, W), which the network is to find again; where g wants it.

    In a walk from x_T each error of eps stays in x: as noise that is too strong or too weak, and as a tint. Noise of plain
    training hardly ever looks so; with ``uneven`` it does, and the network takes such errors out again.
    """
    n, c, *size = x0.shape
    eps = g.here(g.randn(*x0.shape))
    if not s.uneven:
        return eps
    gain = 1 + s.uneven * g.here(g.randn(n, 1, 1, 1))
    tint, blots = g.here(g.randn(n, c, 1, 1)), g.here(g.randn(n, c, 4, 4))
    return gain * eps + s.uneven * (tint + nn.functional.interpolate(blots, size, mode="bilinear"))


def loss_weights(a: Tensor, weighting: str) -> Tensor:
    """Weights on the squared eps error, for abar a of any shape.

    uniform: 1. p2: 1 / (1 + SNR) = 1 - abar. root: (1 - abar) / sqrt(abar) within ROOT_LIMITS, which on the squared error of
    P_t = (x_t - sqrt(1 - abar) eps) / sqrt(abar) is sqrt(abar): high t, where layout is decided, counts for more than in p2.
    """
    if weighting == "uniform":
        return torch.ones_like(a)
    return 1 - a if weighting == "p2" else ((1 - a) / a.sqrt()).clamp(*ROOT_LIMITS)


def weighted_error(eps: Tensor, target: Tensor, a: Tensor, weighting: str) -> Tensor:
    """Mean over pictures of weight x mean squared error."""
    error = (eps.float() - target).square().mean((1, 2, 3))
    return (loss_weights(a.flatten(), weighting) * error).mean()


def maybe_flip(x: Tensor, s: Settings, g: Draws) -> Tensor:
    """Each picture mirrored with probability 1/2, if the settings say so."""
    return torch.where(g.here(g.rand(len(x), 1, 1, 1) < 0.5), x.flip(3), x) if s.flip else x


def plain_loss(unet: HSpaceUNet, data: Pictures | Layers, abar: Tensor, s: Settings, g: Draws) -> Tensor:
    """The usual eps-prediction, with the terms ``twin`` and ``skip_drop`` where they are set; abar (T,) on the CPU.

    Of several processes each takes its share of the batch.
    """
    n, twins = s.batch // g.share.count, round(s.twin * s.batch)
    x0 = maybe_flip(data.draw(n, g), s, g)
    t = draw_t(n, len(abar), s, g)
    a, eps = g.here(at(abar, t)), draw_noise(x0, s, g)
    f = unet.encode(noised(x0, a, eps), g.here(t.float()))
    if twins:
        own = len(g.own(torch.arange(twins)))
        t_twin = (t * (1 - s.twin_clean * g.rand(n))).long()[:own]
        twin = noised(recolour(x0, g)[:own], g.here(at(abar, t_twin)), g.here(g.randn(*x0.shape)[:own]))
        if own:  # the first of several processes may have them all
            f = f._replace(h=torch.cat([unet.encode(twin, g.here(t_twin.float())).h, f.h[own:]]))
    if s.skip_drop:
        f = drop_skips(f, s.skip_drop, g)
    return weighted_error(unet.decode(f), eps, a, s.weighting)


def recolour(x: Tensor, g: Draws) -> Tensor:
    """The twin's picture: every image's colours pushed through a random affine map that keeps only the shape.

    x (N, 3, H, W) in [-1, 1]. A random rotation/reflection of RGB space (QR of a Gaussian), a random contrast in
    [0.4, 1] and a random shift, so neither hue nor lightness can be trusted while every edge stays.
    """
    n = len(x)
    q, _ = torch.linalg.qr(g.randn(n, 3, 3))
    contrast = 0.4 + 0.6 * g.rand(n, 1, 1)
    shift = 0.8 * g.rand(n, 3, 1, 1) - 0.4
    return (torch.einsum("nij,njhw->nihw", g.here(q * contrast), x) + g.here(shift)).clamp(-1, 1)


def drop_skips(f: Features, probability: float, g: Draws) -> Features:
    """For half of the samples, zero each skip connection with this probability; those at full resolution are kept."""
    full = f.skips[0].shape[-1]
    spared = g.rand(len(f.h), 1, 1, 1) < 0.5
    skips = []
    for skip in f.skips:
        keep = spared | (g.rand(len(skip), 1, 1, 1) >= probability)
        skips.append(skip if skip.shape[-1] == full else skip * g.here(keep.to(skip.dtype)))
    return f._replace(skips=tuple(skips))
