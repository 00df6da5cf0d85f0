"""Animations of a pair: the result over gamma, or x_t and P_t over the generation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffstyle.diffusion import predict_x0
from diffstyle.errors import UsageError, WorkError
from diffstyle.figures.sweeps import beside, figure_name, picture
from diffstyle.figures.table import Cell, save_animation, symbol, table
from diffstyle.images import to_image, to_tensor
from diffstyle.model import Model
from diffstyle.noise import NextNoise, pair_noise
from diffstyle.pipeline import blend_of, invert_batch
from diffstyle.runs.inputs import picture_reader
from diffstyle.runs.names import fold
from diffstyle.runs.plan import Plan, RunConfig
from diffstyle.runs.sweep import Point
from diffstyle.sampling import timestep, transfer
from diffstyle.settings import Settings


def animate_gamma(cfg: RunConfig, points: Sequence[Point], plan: Plan, size: int, ending: str) -> list[Path]:
    """One animation over gamma a pair, and for each combination of the other settings, from the pictures of a sweep."""
    groups: dict[tuple[tuple[str, float | int | str], ...], list[Point]] = {}
    for point in points:
        groups.setdefault(tuple((k, v) for k, v in point.values.items() if k != "gamma"), []).append(point)
    paths = []
    for pair, (others, group) in itertools.product(plan.pairs, groups.items()):
        frames = [
            table([[*(image for _, image in beside(pair, size)), picture(p.cfg.save_dir / pair.result_name, size)]],
                  column_labels=["content", "style", f"{symbol('gamma')} = {p.cfg.settings.gamma:g}"])
            for p in sorted(group, key=lambda p: p.cfg.settings.gamma)
        ]  # fmt: skip
        paths.append(cfg.save_dir / f"{figure_name('gamma', pair, dict(others))}.{ending}")
        save_animation(paths[-1], frames, 0.3)
    return paths


def check_animations(plan: Plan, ending: str) -> None:
    """Without a sweep, animations lie beside the pairs' pictures and must be none of them. Raises UsageError."""
    files = {fold(name): pair for pair in plan.pairs for name in (pair.name, pair.result_name)}
    for pair in plan.pairs:
        name = f"{figure_name('t', pair, {})}.{ending}"
        if fold(name) in files:
            other = files[fold(name)].stem
            raise UsageError(f"--animate t.{ending}: the animation of {pair.stem} and the picture of {other} are both {name}; "
                             "give the row another name")  # fmt: skip


def animate_t(model: Model, cfg: RunConfig, plan: Plan, ending: str, frames: int = 50) -> list[Path]:
    """One animation a pair over the generation: x_t and the predicted clean image P_t. The walk is DDIM's, every step."""
    size, paths = model.config.image_size, []
    read = picture_reader(size)
    for pair in plan.pairs:
        s = pair.settings(cfg.settings)
        try:
            content, style = (to_tensor(read(p))[None] for p in (pair.content, pair.style))
        except WorkError:
            continue  # the run has said so
        h, x_T = invert_batch(model, content, s, s.kept()).h, invert_batch(model, style, s).x_T
        noise = pair_noise(s.seed, [(pair.content.digest, pair.style.digest)], (3, size, size))
        sheets = []
        for t, x, P in walk(model, x_T, h, s, noise, frames):
            part = "the result" if t < 0 else "inject" if t >= s.t_edit else "boost" if t <= s.t_boost else "DDIM"
            cells: list[Cell] = [to_image(content[0]), to_image(style[0]), to_image(x[0]), to_image(P[0])]
            sheets.append(table([cells], column_labels=["content", "style", "x_t", "P_t"], title=f"t = {max(t, 0)}: {part}"))
        paths.append(cfg.save_dir / f"{figure_name('t', pair, {})}.{ending}")
        save_animation(paths[-1], sheets)
    return paths


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
