"""Model, pictures and settings to results, in tensors: what the command line and the Python API share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffstyle.masks import build_mask
from diffstyle.model import Model
from diffstyle.noise import NextNoise
from diffstyle.sampling import Blend, Inversion, Progress, invert, transfer
from diffstyle.settings import Settings
from diffstyle.solvers import SOLVERS
from diffstyle.steps import Step, nearest


def cache_key(model: Model, settings: Settings) -> dict[str, Any]:
    """Everything that a latent depends on, besides the picture itself."""
    c = model.config
    return {
        "format": 1,
        "checkpoint": model.digest,
        "size": c.image_size,
        "architecture": dict(c.architecture),
        "schedule": [c.beta_start, c.beta_end, c.timesteps],
        "n_inv": settings.n_inv,
        "t_0": settings.t_0,
        "precision": str(model.dtype),
        **({} if (c.beta_schedule, c.prediction) == ("linear", "eps") else {"network": [c.beta_schedule, c.prediction]}),
        **({} if settings.solver == "ddim" else {"solver": settings.solver, "nfe": settings.nfe}),
    }


def invert_batch(
    model: Model,
    x0: Tensor,
    settings: Settings,
    keep: Sequence[int] = (),
    progress: Progress | None = None,
    latent: bool = True,
) -> Inversion:
    """DDIM-invert x0 (N, 3, H, W) in [-1, 1]; h is kept at the timesteps ``keep``, and without ``latent`` that is all.

    Results lie on the model's device.
    """
    x0 = x0.to(model.device, torch.float32, memory_format=torch.channels_last)
    walk, solver = settings.inversion_walk(), SOLVERS[settings.solver]
    return invert(model.unet, x0, walk, model.schedule, frozenset(keep), progress, latent, solver)


def sample_batch(model: Model, x_T: Tensor, settings: Settings) -> tuple[Tensor, dict[int, Tensor]]:
    """Draw pictures from noise x_T (N, 3, H, W) by plain DDIM; x0 (N, 3, H, W) and h by inversion timestep.

    It is the inversion's walk downwards: h is kept at the generation steps nearest to the timesteps that injections read.
    """
    walk = [Step(step.t, step.t_next) for step in settings.transfer_plan()]
    grid = [step.t for step in reversed(walk)]
    at = {t: nearest(t, grid) for t in settings.kept()}
    x_T = x_T.to(model.device, torch.float32, memory_format=torch.channels_last)
    chain = invert(model.unet, x_T, walk, model.schedule, frozenset(at.values()))
    return chain.x_T, {t: chain.h[source] for t, source in at.items()}


def transfer_batch(
    model: Model,
    x_T: Tensor,
    h_content: Mapping[int, Tensor],
    settings: Settings,
    noise: NextNoise,
    progress: Progress | None = None,
) -> Tensor:
    """Regenerate style latents x_T (N, 3, H, W) with contents' h (N, C_h, H', W') by timestep; x0 (N, 3, H, W), not clipped."""
    x_T = x_T.to(model.device, memory_format=torch.channels_last)
    h_content = {t: h.to(model.device) for t, h in h_content.items()}
    blend = blend_of(model, settings, next(iter(h_content.values())).shape[-2:])

    def z() -> Tensor:
        return noise().to(model.device)

    walk, solver = settings.transfer_walk(), SOLVERS[settings.solver]
    return transfer(model.unet, x_T, h_content, walk, model.schedule, blend, z, progress, solver)


def blend_of(model: Model, settings: Settings, size: Sequence[int]) -> Blend:
    """How h is blended under these settings, for h maps of ``size`` (H', W')."""
    mask = build_mask(settings.mask, size)
    return Blend(
        gamma=settings.gamma,
        omega=settings.omega,
        mask=None if mask is None else mask.to(model.device),
        match_masked=settings.variant == "paper",
        kind=settings.blend,
    )
