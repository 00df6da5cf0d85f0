"""The two loops walked to their ends, for tests that want what comes out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from diffstyle import sampling
from diffstyle.diffusion import Schedule
from diffstyle.hspace import Blend
from diffstyle.models.hspace_unet import HSpaceUNet
from diffstyle.solvers import DDIM, Solver
from diffstyle.steps import Step


@dataclass(frozen=True)
class Found:
    x_T: Tensor
    h: dict[int, Tensor]


def invert(
    unet: HSpaceUNet,
    x0: Tensor,
    steps: Sequence[Step],
    schedule: Schedule,
    keep: Collection[int] = (),
    latent: bool = True,
    solver: Solver = DDIM,
) -> Found:
    x, h = x0, dict[int, Tensor]()
    for _, x, met in sampling.invert(unet, x0, steps, schedule, keep, latent, solver):  # noqa: B007
        h |= met
    return Found(x, h)


def transfer(
    unet: HSpaceUNet,
    x_T: Tensor,
    h_content: Mapping[int, Tensor],
    steps: Sequence[Step],
    schedule: Schedule,
    blend: Callable[[Tensor, Tensor], Tensor] | None = None,
    noise: Callable[[], Tensor] | None = None,
    solver: Solver = DDIM,
) -> Tensor:
    x = x_T
    for _, x, _ in sampling.transfer(unet, x_T, h_content, steps, schedule, blend or Blend(), noise, solver):  # noqa: B007
        pass
    return x
