"""Animations of a pair: the result over gamma, or x_t and P_t over the generation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from diffstyle.errors import UsageError, WorkError
from diffstyle.figures.sweeps import Figures, beside, figure_name, picture
from diffstyle.figures.table import Cell, save_animation, symbol, table
from diffstyle.images import to_image, to_tensor
from diffstyle.model import Model
from diffstyle.pipeline import Inverted, cache_key, invert, noise_of_pairs, one_stream, transfer_walk
from diffstyle.runs.config import RunConfig
from diffstyle.runs.inputs import picture_reader
from diffstyle.runs.latents import LatentCache
from diffstyle.runs.names import fold
from diffstyle.runs.plan import Pair, Plan
from diffstyle.runs.sweep import Point
from diffstyle.settings import Settings
from diffstyle.steps import Step


def animate_gamma(figures: Figures, cfg: RunConfig, points: Sequence[Point], plan: Plan, size: int, ending: str) -> None:
    """One animation over gamma a pair, and for each combination of the other settings, from the pictures of a sweep."""
    groups: dict[tuple[tuple[str, float | int | str], ...], list[Point]] = {}
    for point in points:
        groups.setdefault(tuple((k, v) for k, v in point.values.items() if k != "gamma"), []).append(point)
    for pair, (others, group) in itertools.product(plan.pairs, groups.items()):
        frames = [
            table([[*(image for _, image in beside(pair, size)), picture(p.cfg.save_dir / pair.result_name, size)]],
                  column_labels=["content", "style", f"{symbol('gamma')} = {p.cfg.settings.gamma:g}"])
            for p in sorted(group, key=lambda p: p.cfg.settings.gamma)
        ]  # fmt: skip
        path = cfg.save_dir / f"{figure_name('gamma', pair, dict(others))}.{ending}"
        with figures.writing(path):
            save_animation(path, frames, 0.3)


def check_animations(plan: Plan, ending: str) -> None:
    """Without a sweep, animations lie beside the pairs' pictures and must be none of them. Raises UsageError."""
    files = {fold(name): pair for pair in plan.pairs for name in (pair.name, pair.result_name)}
    for pair in plan.pairs:
        name = f"{figure_name('t', pair, {})}.{ending}"
        if fold(name) in files:
            other = files[fold(name)].stem
            raise UsageError(f"--animate t.{ending}: the animation of {pair.stem} and the picture of {other} are both {name}; "
                             "give the row another name")  # fmt: skip


def animate_t(figures: Figures, model: Model, cfg: RunConfig, plan: Plan, ending: str, frames: int = 50) -> None:
    """One animation a pair over the generation: x_t and the predicted clean image P_t, at about ``frames`` of its steps.

    It is the run's own walk with the run's own noise; the inversions come from its cache where there is one.
    """
    read = picture_reader(model.config.image_size)
    stream = one_stream(model, cfg.settings) if cfg.settings.noise != "pair" else None
    for pair in plan.pairs:
        s = pair.settings(cfg.settings)
        try:
            pictures = [to_tensor(read(p))[None] for p in (pair.content, pair.style)]
        except WorkError:
            continue  # the run has said so
        content, style = inverted(model, cfg, pair, pictures)
        noise = stream.batch([pair.index]) if stream else noise_of_pairs(model, s, content, style)
        inputs = [to_image(x[0]) for x in pictures]
        sheets, steps = [], s.transfer_walk(model.config.grid)
        shown = set(range(len(steps) - 1, -1, -max(1, round(len(steps) / frames))))
        for i, (step, x, P) in enumerate(transfer_walk(model, content, style, s, noise)):
            if i == 0:
                sheets.append(frame(inputs, style.x_T, P, f"t = {step.t}: the style's latent"))
            if i in shown:
                sheets.append(frame(inputs, x, P, f"t = {max(step.t_next, 0)}: {part_of(step, s)}"))
        path = cfg.save_dir / f"{figure_name('t', pair, {})}.{ending}"
        with figures.writing(path):
            save_animation(path, sheets)


def frame(inputs: Sequence[Cell], x: Tensor, P: Tensor, title: str) -> Image.Image:
    """Content, style, x_t and P_t side by side; x and P are (1, 3, H, W)."""
    return table([[*inputs, to_image(x[0]), to_image(P[0])]], column_labels=["content", "style", "x_t", "P_t"], title=title)


def inverted(model: Model, cfg: RunConfig, pair: Pair, pictures: Sequence[Tensor]) -> tuple[Inverted, Inverted]:
    """Content and style of a pair, from the cache of its run or made anew from ``pictures`` (1, 3, H, W)."""
    s, keys = cfg.settings, (pair.content.digest, pair.style.digest)
    cache = LatentCache(cfg.cache_dir, cache_key(model, s)) if cfg.cache_dir else None
    h = cache.get_h(keys[0], s.kept()) if cache else None
    x_T = cache.get_x_T(keys[1]) if cache else None
    if h is None or x_T is None:
        one, other = (invert(model, x, s, [key]) for x, key in zip(pictures, keys, strict=True))
        return one, other
    content = Inverted(torch.empty(1, 0), {t: maps[None] for t, maps in h.items()}, keys[:1], s)
    return content, Inverted(x_T[None], {}, keys[1:], s)


def part_of(step: Step, s: Settings) -> str:
    """Which of the method's intervals a step belongs to."""
    return "the result" if step.t_next < 0 else "inject" if step.t >= s.t_edit else "boost" if step.t <= s.t_boost else "DDIM"
