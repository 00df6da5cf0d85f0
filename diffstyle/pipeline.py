"""Model, pictures and settings to results, in tensors: what the command line, the Python API and the figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from diffstyle import sampling
from diffstyle.hspace import Blend
from diffstyle.masks import build_mask
from diffstyle.model import Model
from diffstyle.models import build_unet
from diffstyle.models.layers import memory_format
from diffstyle.noise import NextNoise, OneStream, generator_after, pair_noise
from diffstyle.settings import Settings
from diffstyle.solvers import SOLVERS
from diffstyle.steps import Step, nearest

Progress = Callable[[int], object]  # told how many samples x evaluations have been done


@dataclass(frozen=True)
class Inverted:
    """Pictures after DDIM inversion: all that a transfer reads of them."""

    x_T: Tensor  # (N, 3, H, W), the start of the generation; meaningless where only h was asked for
    h: Mapping[int, Tensor]  # inversion timestep -> (N, C_h, H', W'); empty where only x_T was asked for
    keys: tuple[str, ...]  # what identifies each picture for the noise: a sha256
    settings: Settings  # what they were inverted with

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Sequence[int]) -> Inverted:
        """The pictures at these positions."""
        rows = list(index)
        h = {t: maps[rows] for t, maps in self.h.items()}
        return Inverted(self.x_T[rows], h, tuple(self.keys[i] for i in rows), self.settings)

    @staticmethod
    def join(parts: Sequence[Inverted]) -> Inverted:
        """One after the other; all inverted with the same settings, and h kept at the same timesteps."""
        h = {t: torch.cat([part.h[t] for part in parts]) for t in parts[0].h}
        keys = tuple(key for part in parts for key in part.keys)
        return Inverted(torch.cat([part.x_T for part in parts]), h, keys, parts[0].settings)


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
        "precision": f"torch.{model.numbers}",
        **({} if (c.beta_schedule, c.prediction) == ("linear", "eps") else {"network": [c.beta_schedule, c.prediction]}),
        **({} if settings.solver == "ddim" else {"solver": settings.solver, "nfe": settings.nfe, "grid": astuple(c.grid)}),
    }


def invert(
    model: Model,
    x0: Tensor,
    settings: Settings,
    keys: Sequence[str],
    keep: Sequence[int] | None = None,
    latent: bool = True,
    progress: Progress | None = None,
) -> Inverted:
    """DDIM-invert pictures x0 (N, 3, H, W) in [-1, 1] in one batch, on the model's device.

    h is kept at the timesteps ``keep`` (None: all that a transfer reads); without ``latent`` that is all.
    """
    keep = settings.kept() if keep is None else keep
    x = to_model(model, x0)
    h: dict[int, Tensor] = {}
    steps, solver = settings.inversion_walk(model.config.grid), SOLVERS[settings.solver]
    walk = sampling.invert(model.unet, x, steps, model.schedule, frozenset(keep), latent, solver)
    for _, x, met in walk:
        h |= met
        if progress:
            progress(len(x))
    return Inverted(x, {t: h[t] for t in keep}, tuple(keys), settings)


def transfer(
    model: Model,
    content: Inverted,
    style: Inverted,
    settings: Settings,
    noise: NextNoise,
    progress: Progress | None = None,
) -> Tensor:
    """The i-th content in the i-th style, in one batch; x0 (N, 3, H, W) on the model's device, about [-1, 1], not clipped."""
    x = style.x_T
    for step, x, _ in transfer_walk(model, content, style, settings, noise):
        if progress:
            progress(len(x) * step.evaluations)
    return x


def transfer_walk(
    model: Model, content: Inverted, style: Inverted, settings: Settings, noise: NextNoise
) -> Iterator[tuple[Step, Tensor, Tensor]]:
    """``transfer`` as it goes: each step, the x (N, 3, H, W) it leads to, and the clean image P_t predicted at its start."""
    h = {t: to_device(maps, model.device) for t, maps in content.h.items()}
    mask = build_mask(settings.mask, next(iter(h.values())).shape[-2:])
    blend = Blend(
        gamma=settings.gamma,
        kind=settings.blend,
        mask=None if mask is None else mask.to(model.device),
        match_masked=settings.variant == "paper",
    )

    def z() -> Tensor:
        return to_device(noise(), model.device)

    x_T, walk, solver = to_model(model, style.x_T), settings.transfer_walk(model.config.grid), SOLVERS[settings.solver]
    return sampling.transfer(model.unet, x_T, h, walk, model.schedule, blend, z, solver)


def draw(
    model: Model, x_T: Tensor, settings: Settings, keys: Sequence[str], keep: Sequence[int] | None = None
) -> tuple[Tensor, Inverted]:
    """Draw pictures from noise x_T (N, 3, H, W) by plain DDIM: x0 (N, 3, H, W), and what their inversion would leave.

    It is the inversion's walk downwards: h is kept at the generation steps nearest to the timesteps ``keep`` (None: those
    that a transfer reads).
    """
    down = [Step(step.t, step.t_next) for step in settings.transfer_plan()]
    grid = [step.t for step in reversed(down)]
    source = {t: nearest(t, grid) for t in (settings.kept() if keep is None else keep)}
    x = to_model(model, x_T)
    h: dict[int, Tensor] = {}
    walk = sampling.invert(model.unet, x, down, model.schedule, frozenset(source.values()))
    for _, x, met in walk:  # noqa: B007  # the last x is wanted
        h |= met
    return x, Inverted(x_T, {t: h[near] for t, near in source.items()}, tuple(keys), settings)


@torch.inference_mode()
def injection(model: Model, n: int) -> None:
    """An encode and a stacked decode of n empty pictures, uncompiled: of all that the loops do, what takes the most memory."""
    size, unet = model.config.image_size, model.unet
    x = to_model(model, torch.zeros(n, 3, size, size))
    f = type(unet).encode(unet, x, sampling.timestep(0, x))
    type(unet).decode(unet, sampling.stacked(f, f.h))


def to_model(model: Model, x: Tensor) -> Tensor:
    x = to_device(x, model.device)
    return x.to(torch.float32, memory_format=memory_format(model.device))


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """x on ``device``. From the CPU to a GPU it is copied by way of pinned memory, so that the program does not wait for it."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=device.type == "cuda")


# ---- noise -------------------------------------------------------------------------------------------------------


def noise_of_pairs(model: Model, settings: Settings, content: Inverted, style: Inverted) -> NextNoise:
    """The noise of the i-th content in the i-th style, each pair's own."""
    size = model.config.image_size
    return pair_noise(settings.seed, list(zip(content.keys, style.keys, strict=True)), (3, size, size))


def one_stream(model: Model, settings: Settings) -> OneStream:
    """The noise of a whole run as the official code draws it.

    "official": as a run of its main.py, which seeds and then builds its network. "golden": as the recorded golden arrays,
    whose generator was seeded after the last inversion.
    """
    c = model.config
    generator = torch.Generator().manual_seed(settings.seed)
    if settings.noise == "official":
        generator = generator_after(settings.seed, lambda: build_unet(c.family, c.image_size, c.architecture))
    draws = sum(step.eta > 0 for step in settings.transfer_plan())
    return OneStream(generator, (3, c.image_size, c.image_size), draws, calibrated=settings.omega != 0)
