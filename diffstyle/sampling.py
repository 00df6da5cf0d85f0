"""The two loops of the method, side by side with the same names: ``invert`` walks up, ``transfer`` walks down.

Both yield after every evaluation what they have reached, so whoever walks can watch, count or stop. Every solver goes
through them; with DDIM each ``path.go`` is the plain step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from diffstyle.diffusion import Schedule, ddim_sigma, ddim_step, predict_x0
from diffstyle.models.hspace_unet import Features, HSpaceUNet
from diffstyle.solvers import DDIM, Path, Solver, between
from diffstyle.steps import Step


@torch.inference_mode()
def invert(
    unet: HSpaceUNet,
    x0: Tensor,
    steps: Sequence[Step],
    schedule: Schedule,
    keep: Collection[int] = (),
    latent: bool = True,
    solver: Solver = DDIM,
) -> Iterator[tuple[Step, Tensor, dict[int, Tensor]]]:
    """DDIM inversion (arXiv 2010.02502) of x0 (N, 3, H, W) in [-1, 1].

    Yields each step, the x it leads to, and by timestep the h (N, C_h, H', W') that ``keep`` names: those met, or, where the walk
    passes some without asking the network, all of these once the last is reached. The last x is x_T; without ``latent`` the walk
    ends at the last h, and its x is no latent.
    """
    path, met = Path(x0, steps[0].t, schedule, solver), dict[int, Tensor]()
    walk = [steps[0].t, *(t for step in steps for t in (step.t_next, *step.then))]
    last = max(keep, key=walk.index, default=None)
    passed = set(keep) - {step.t for step in steps}
    for step in steps:
        f = unet.encode(path.x, timestep(step.t, path.x))
        h = {step.t: f.h} if step.t in keep else {}
        if passed:
            met[step.t] = f.h
        ends, x = step.t == last, path.x
        if latent or not ends:
            path.see(step.t, unet.decode(f))
            ts = (step.t, step.t_next, *step.then)
            if last in ts[1:-1]:  # no evaluation lies beyond it: it costs an encode of the x there
                ends, x = True, path.at(ts[: ts.index(last) + 1])
                met[last] = unet.encode(x, timestep(last, x)).h
            path.go(ts)
        if ends:
            h |= {t: between(met, t) for t in passed}
            passed.clear()
            if not latent:
                yield step, x, h
                return
        yield step, path.x, h


@torch.inference_mode()
def transfer(
    unet: HSpaceUNet,
    x_T: Tensor,
    h_content: Mapping[int, Tensor],
    steps: Sequence[Step],
    schedule: Schedule,
    blend: Callable[[Tensor, Tensor], Tensor],
    noise: Callable[[], Tensor] | None = None,
    solver: Solver = DDIM,
) -> Iterator[tuple[Step, Tensor, Tensor]]:
    """Regenerate the style's latents x_T (N, 3, H, W) with the contents' h blended in (arXiv 2303.15403).

    Yields each step, the x it leads to, and P_t, the clean image predicted at its start; the last x is the result, not
    clipped. ``h_content`` maps inversion timesteps to (N, C_h, H', W'). ``noise`` gives the next z (N, 3, H, W) for each
    step with eta > 0.
    """
    path = Path(x_T, steps[0].t, schedule, solver)
    for step in steps:
        eps, eps_h = evaluate(unet, path.x, step, h_content, blend)
        path.see(step.t, eps)
        if step.event:
            x, x0 = event(unet, path.x, eps, eps_h, step, schedule, noise)
            path.jump((step.t_next, *step.then), x, x0, None if step.omega else eps - eps_h)
        else:
            x0 = predict_x0(path.x, eps, schedule(step.t))
            path.go((step.t, step.t_next, *step.then))
        yield step, path.x, x0


def timestep(t: int, x: Tensor) -> Tensor:
    """t as the network takes it: (N,) floats on x's device, filled there so that nothing waits for a copy."""
    return torch.full((len(x),), float(t), device=x.device, dtype=x.dtype)


def evaluate(
    unet: HSpaceUNet,
    x: Tensor,
    step: Step,
    h_content: Mapping[int, Tensor],
    blend: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """eps(x_t) and eps(x_t | h~_t), the same where nothing is injected."""
    f = unet.encode(x, timestep(step.t, x))
    if step.h_from is None:
        eps = unet.decode(f)
        return eps, eps
    return decode_both(unet, f, blend(f.h, h_content[step.h_from]))


def event(
    unet: HSpaceUNet,
    x: Tensor,
    eps: Tensor,
    eps_h: Tensor,
    step: Step,
    schedule: Schedule,
    noise: Callable[[], Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """x_next = sqrt(abar_next) P_t(eps_h) + dt_lambda D_t(eps) + sigma z, and P_t: only P_t sees the changed bottleneck.

    This is Asyrp's asymmetric step (arXiv 2210.10960). A calibrated step moves x first, and its eps is the network's there,
    for both.
    """
    abar, abar_next = schedule(step.t), schedule(step.t_next)
    if step.omega:
        x = calibrate(x, eps, eps_h, abar, step.omega)
        eps = eps_h = unet(x, timestep(step.t, x))
    x0 = predict_x0(x, eps_h, abar)
    z = noise() if noise and step.eta else None
    return ddim_step(x0, step.dt_lambda * eps, abar_next, ddim_sigma(abar, abar_next, step.eta), z), x0


def decode_both(unet: HSpaceUNet, f: Features, h: Tensor) -> tuple[Tensor, Tensor]:
    """eps(x_t) and eps(x_t | h~) from one encode, as one stacked decode."""
    eps, eps_h = unet.decode(stacked(f, h)).chunk(2)
    return eps, eps_h


def stacked(f: Features, h: Tensor) -> Features:
    """``f``, and once more with another h, as one batch."""
    return Features(torch.cat([f.h, h]), tuple(torch.cat([s, s]) for s in f.skips), torch.cat([f.temb, f.temb]))


def calibrate(x: Tensor, eps: Tensor, eps_h: Tensor, abar: float, omega: float) -> Tensor:
    """Style calibration (2303.15403, section 3.3): move x_t so that its own prediction is the injected one, x' = x_t + dx.

    dx = sqrt(abar) dP + omega sqrt(1 - abar) d_eps, where dP = P' - P and P' is the injected prediction with its standard
    deviation (per sample, over C, H, W) brought back to P's. omega = 1 gives dx ~ 0; larger omega keeps more of the style.
    """
    P, P_h = predict_x0(x, eps, abar), predict_x0(x, eps_h, abar)
    mean = P_h.mean((1, 2, 3), keepdim=True)
    P_h = (P_h - mean) * (P.std((1, 2, 3), keepdim=True) / P_h.std((1, 2, 3), keepdim=True)) + mean
    return x + math.sqrt(abar) * (P_h - P) + omega * math.sqrt(1 - abar) * (eps_h - eps)
