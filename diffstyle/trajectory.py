"""The generation seen on its way: x_t and the clean image P_t that the network predicts from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from diffstyle.checkpoints import Model
from diffstyle.diffusion import predict_x0
from diffstyle.noise import NextNoise
from diffstyle.pipeline import blend_of
from diffstyle.sampling import timestep, transfer
from diffstyle.settings import Settings


def walk(
    model: Model, x_T: Tensor, h_content: Mapping[int, Tensor], settings: Settings, noise: NextNoise, frames: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (t, x_t, P_t) at about ``frames`` evenly spaced steps of a transfer, last (-1, x_0, x_0).

    x_T and both images are (N, 3, H, W). The walk is ``transfer``'s own, taken in pieces; P_t is the plain prediction
    from the x_t at which each piece arrives, one more evaluation.
    """
    steps = settings.transfer_plan()
    blend = blend_of(model, settings, next(iter(h_content.values())).shape[-2:])
    piece = max(1, round(len(steps) / frames))
    x = x_T.to(model.device)
    for start in range(0, len(steps), piece):
        t = steps[start].t
        with torch.inference_mode():
            eps = model.unet(x, timestep(t, x))
        yield t, x, predict_x0(x, eps, model.schedule(t))
        x = transfer(
            model.unet, x, h_content, steps[start : start + piece], model.schedule, blend, lambda: noise().to(model.device)
        )
    yield -1, x, x
