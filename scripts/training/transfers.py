"""Training on what a transfer asks for, with drawn pictures, whose ideal transfer is known.

Two pictures, S and C, are noised to the same t and swap their h exactly as the method does it, norms matched and Slerp at
a random gamma. The target is T: the shape of C in the colours of S. Every picture is encoded once and decoded twice,
plainly and with its partner's h.

A transfer takes many steps, each from what the one before has left, and small errors add up. So half of the pairs are on a
*walk*: S is not a noised picture but the state of a transfer that the network itself began, one step further at every
iteration, as the method takes it: P_t sees the injected h, the direction does not. Its target stays T, so the network
learns to mend what it did before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffstyle.hspace import match_norm, slerp
from diffstyle.models.hspace_unet import Features, HSpaceUNet
from training.data import Layers
from training.device import CPU, Draws
from training.losses import Settings, at, draw_noise, draw_t, noised, weighted_error

STRIDE = 20  # timesteps of one step of a walk: 50 steps from 999 to 0
START = (200, 700)  # where walks begin; higher, little is left to tell the colours of S by


class Walks:
    """Transfers under way, one a row: what the picture is to become, and the x_t it has come to.

    x is on the network's device. All else is on the CPU, where it decides what is computed next.
    """

    def __init__(self, n: int, size: int, device: torch.device = CPU) -> None:
        self.x = torch.zeros(n, 3, size, size, device=device)
        self.t = torch.full((n,), -1)  # below transfer_from: over, or not begun
        self.content, self.style, self.colours = (torch.zeros(n, dtype=torch.long) for _ in range(3))
        self.flips = torch.zeros(n, 2, dtype=torch.bool)  # of content and style
        self.gamma = torch.ones(n)
        self.share = torch.ones(n)  # of the steps, that inject

    def state(self) -> dict[str, Tensor]:
        return dict(vars(self))

    def load(self, state: dict[str, Any]) -> None:
        vars(self).update(state, x=state["x"].to(self.x.device))

    def begin(self, data: Layers, abar: Tensor, s: Settings, g: Draws) -> None:
        """Put new pairs where a walk is over: S noised to a random t. Always draws the same, for an exact resume."""
        n = len(self.t)
        over = self.t < s.transfer_from
        shapes, colours = data.pick(2 * n, g)
        flips = (g.rand(n, 2) < 0.5) & s.flip
        x0 = flipped(data.paint(shapes[:n], colours[:n], g.device), g.here(flips[:, 1]))
        t = g.randint(*START, n)
        x = noised(x0, g.here(at(abar, t)), g.here(g.randn(*x0.shape)))
        fresh = {
            "x": x,
            "t": t,
            "content": shapes[n:],
            "style": shapes[:n],
            "colours": colours[:n],
            "flips": flips,
            "gamma": random_gamma(n, g),
            "share": torch.tensor([0.1, 0.2, 0.4])[g.randint(0, 3, n)],
        }
        for name, new in fresh.items():
            old = getattr(self, name)
            begun = over.view(-1, *[1] * (old.dim() - 1))
            setattr(self, name, torch.where(g.here(begun) if name == "x" else begun, new, old))

    def advance(self, eps: Tensor, eps_h: Tensor, abar: Tensor, g: Draws) -> None:
        """One step: x_next = sqrt(abar_next) P_t(eps_h) + sqrt(1 - abar_next) eps, or a plain one where nothing is injected."""
        injects = g.here((g.rand(len(self.t)) < self.share)[:, None, None, None])
        a, a_next = g.here(at(abar, self.t)), g.here(at(abar, (self.t - STRIDE).clamp(min=0)))
        P = (self.x - (1 - a).sqrt() * torch.where(injects, eps_h, eps)) / a.sqrt()
        self.x = a_next.sqrt() * P + (1 - a_next).sqrt() * eps
        self.t = self.t - STRIDE


def random_gamma(n: int, g: Draws) -> Tensor:
    """(n,) in [0.2, 1], and 1 in four of ten."""
    return (0.2 + 1.3 * g.rand(n)).clamp(max=1)


def flipped(x: Tensor, flips: Tensor) -> Tensor:
    """Pictures (N, C, H, W) mirrored where flips (N,) says so."""
    return torch.where(flips[:, None, None, None], x.flip(3), x)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """x[index] for x (N, C, H, W) that is channels last in memory; the gradient of x[index] itself is 2.5 times as slow."""
    return x.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)


def transfer_loss(unet: HSpaceUNet, data: Layers, abar: Tensor, s: Settings, g: Draws, walks: Walks) -> Tensor:
    """Plain loss of a batch of pairs, plus ``transfer`` times the loss of each with its partner's h; see the top.

    Samples 2i and 2i + 1 are a pair. The first pairs are those on a walk: content first, the walk second, which is no
    picture to be learnt plainly and has no h to give.
    """
    walking, n = len(walks.t), s.batch
    walks.begin(data, abar, s, g)
    partner = torch.arange(n) ^ 1
    on_walk = torch.arange(n) // 2 < walking
    is_walk = on_walk & (torch.arange(n) % 2 == 1)

    # Shapes and colours. Some pairs have the same shape in two colourings: what is left to change near a walk's end.
    shapes, colours = data.pick(n, g)
    flips = (g.rand(n) < 0.5) & s.flip
    same = g.rand(n // 2) < s.same_shape
    shapes[1::2], flips[1::2] = torch.where(same, shapes[::2], shapes[1::2]), torch.where(same, flips[::2], flips[1::2])
    k = 2 * walking
    shapes[:k:2], shapes[1:k:2], colours[1:k:2] = walks.content, walks.style, walks.colours
    flips[:k:2], flips[1:k:2] = walks.flips.unbind(1)
    t = draw_t(n // 2, len(abar), s, g)
    t[:walking] = walks.t
    t = t.repeat_interleave(2)

    x0 = flipped(data.paint(shapes, colours, g.device), g.here(flips))
    wanted = flipped(data.paint(shapes[partner], colours, g.device), g.here(flips[partner]))
    a, eps = g.here(at(abar, t)), draw_noise(x0, s, g)
    x = noised(x0, a, eps)
    there = g.here(is_walk.nonzero()[:, 0])
    x[there] = walks.x
    f = unet.encode(x, g.here(t.float()))

    gamma = random_gamma(n, g)
    gamma[1:k:2] = walks.gamma
    h = f.h.float()
    blended = slerp(h, match_norm(h[g.here(partner)], h), g.here(gamma[:, None, None, None])).to(f.h.dtype)  # type: ignore[arg-type]
    plain = g.here((~is_walk).nonzero()[:, 0])
    moved = g.here(((t >= s.transfer_from) & ~is_walk[partner]).nonzero()[:, 0])  # the walks are its first
    twice = torch.cat([plain, moved])
    both = Features(torch.cat([f.h[plain], blended[moved]]), tuple(rows(skip, twice) for skip in f.skips), f.temb[twice])
    found, transferred = unet.decode(both).split([len(plain), len(moved)])
    if walking:
        with torch.no_grad():
            unchanged = Features(f.h[there], tuple(rows(skip, there) for skip in f.skips), f.temb[there])
            walks.advance(unet.decode(unchanged).float(), transferred[:walking].detach().float(), abar, g)

    loss = weighted_error(found, eps[plain], a[plain], s.weighting)
    if len(moved):
        target = (x - a.sqrt() * wanted)[moved] / (1 - a[moved]).sqrt()
        loss = loss + s.transfer * len(moved) / len(plain) * weighted_error(transferred, target, a[moved], s.weighting)
    return loss
