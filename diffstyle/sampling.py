"""The two loops of the method, side by side with the same names: ``invert`` walks up, ``transfer`` walks down."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffstyle.diffusion import Schedule, ddim_sigma, ddim_step, predict_x0
from diffstyle.hspace import inject
from diffstyle.steps import Step, nearest
from models.hspace_unet import Features, HSpaceUNet

Progress = Callable[[int], object]  # told how many samples x evaluations have been done


@dataclass(frozen=True)
class Inversion:
    """What DDIM inversion leaves behind: the latent, and h where it was kept."""

    x_T: Tensor  # (N, 3, H, W)
    h: dict[int, Tensor]  # timestep -> (N, C_h, H', W')


@dataclass(frozen=True)
class Blend:
    """How the content's h enters: the strengths gamma and omega, and where."""

    gamma: float = 0.9  # share of the content in h, 0 to 1
    omega: float = 0.0  # style calibration; 0 is off
    mask: Tensor | None = None  # (1, 1, H', W') in [0, 1]
    match_masked: bool = False
    kind: str = "slerp"  # how two maps are combined: hspace.mix


def timestep(t: int, x: Tensor) -> Tensor:
    """t as the network takes it: (N,) floats on x's device, filled there so that nothing waits for a copy."""
    return torch.full((len(x),), float(t), device=x.device, dtype=x.dtype)


@torch.inference_mode()
def invert(
    unet: HSpaceUNet,
    x0: Tensor,
    steps: Sequence[Step],
    schedule: Schedule,
    keep: Collection[int] = (),
    progress: Progress | None = None,
    latent: bool = True,
) -> Inversion:
    """DDIM inversion of x0 (N, 3, H, W) in [-1, 1]; h is kept at the source timesteps in ``keep``.

    Without ``latent`` it stops at the last h that is kept, and x_T is no latent but the x reached there.
    """
    x, h = x0, {}
    for step in steps:
        f = unet.encode(x, timestep(step.t, x))
        if step.t in keep:
            h[step.t] = f.h
        if not latent and len(h) == len(keep):
            break
        eps = unet.decode(f)
        x = ddim_step(predict_x0(x, eps, schedule(step.t)), eps, schedule(step.t_next))
        if progress:
            progress(len(x))
    return Inversion(x, h)


@torch.inference_mode()
def transfer(
    unet: HSpaceUNet,
    x_T: Tensor,
    h_content: Mapping[int, Tensor],
    steps: Sequence[Step],
    schedule: Schedule,
    blend: Blend,
    noise: Callable[[], Tensor] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Regenerate the style's latents x_T (N, 3, H, W) with the contents' h blended in; returns x0, not clipped.

    ``h_content`` maps inversion timesteps to (N, C_h, H', W'); an injection at t reads the nearest one. ``noise`` gives
    the next z (N, 3, H, W) for each step with eta > 0.
    """
    x = x_T
    for step in steps:
        eps, eps_h = evaluate(unet, x, step, h_content, blend)
        if step.calibrate:
            x = calibrate(x, eps, eps_h, schedule(step.t), blend.omega)
            eps = eps_h = unet(x, timestep(step.t, x))
        x = asyrp_step(x, eps, eps_h, step, schedule, noise)
        if progress:
            progress(len(x) * (2 if step.calibrate else 1))
    return x


def evaluate(
    unet: HSpaceUNet, x: Tensor, step: Step, h_content: Mapping[int, Tensor], blend: Blend
) -> tuple[Tensor, Tensor]:
    """eps(x_t) and eps(x_t | h~_t), the same where nothing is injected."""
    f = unet.encode(x, timestep(step.t, x))
    if not step.inject:
        eps = unet.decode(f)
        return eps, eps
    h = inject(f.h, h_content[nearest(step.t, sorted(h_content))], blend.gamma, blend.mask, blend.match_masked, blend.kind)
    return decode_both(unet, f, h)


def asyrp_step(
    x: Tensor, eps: Tensor, eps_h: Tensor, step: Step, schedule: Schedule, noise: Callable[[], Tensor] | None
) -> Tensor:
    """x_next = sqrt(abar_next) P_t(eps_h) + D_t(eps) + sigma z: only P_t sees the changed bottleneck."""
    abar, abar_next = schedule(step.t), schedule(step.t_next)
    sigma = ddim_sigma(abar, abar_next, step.eta)
    z = noise() if noise and step.eta else None
    return ddim_step(predict_x0(x, eps_h, abar), step.dt_lambda * eps, abar_next, sigma, z)


def decode_both(unet: HSpaceUNet, f: Features, h: Tensor) -> tuple[Tensor, Tensor]:
    """eps(x_t) and eps(x_t | h~) from one encode, as one stacked decode."""
    stacked = Features(
        torch.cat([f.h, h]), tuple(torch.cat([s, s]) for s in f.skips), torch.cat([f.temb, f.temb])
    )
    eps, eps_h = unet.decode(stacked).chunk(2)
    return eps, eps_h


def calibrate(x: Tensor, eps: Tensor, eps_h: Tensor, abar: float, omega: float) -> Tensor:
    """Style calibration: move x_t so that its own prediction is the injected one, x' = x_t + dx.

    dx = sqrt(abar) dP + omega sqrt(1 - abar) d_eps, where dP = P' - P and P' is the injected prediction with its standard
    deviation (per sample, over C, H, W) brought back to P's. omega = 1 gives dx ~ 0; larger omega keeps more of the style.
    """
    P, P_h = predict_x0(x, eps, abar), predict_x0(x, eps_h, abar)
    mean = P_h.mean((1, 2, 3), keepdim=True)
    P_h = (P_h - mean) * (P.std((1, 2, 3), keepdim=True) / P_h.std((1, 2, 3), keepdim=True)) + mean
    return x + math.sqrt(abar) * (P_h - P) + omega * math.sqrt(1 - abar) * (eps_h - eps)
