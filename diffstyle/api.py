"""The Python API: the same code that the command line calls, on tensors or paths, without writing anything."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffstyle.images import load_image
from diffstyle.model import Model
from diffstyle.noise import NextNoise, OfficialNoise, pair_noise
from diffstyle.pipeline import invert_batch, transfer_batch
from diffstyle.settings import Settings
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.device import pick_device, pick_dtype

Images = Tensor | str | Path | Sequence[str | Path]


def load(
    config: str | Path, model_path: str | Path | None = None, device: str = "auto", precision: str = "fp32"
) -> Model:
    """A model ready for ``stylize``. ``config`` is a name in configs/ or a path; see ``main.py --help`` for the rest.

    Raises UsageError or WorkError with one line that says what is wrong.
    """
    path = Path(model_path) if model_path else None
    return load_model(load_config(config), path, pick_device(device), pick_dtype(precision))


def stylize(model: Model, contents: Images, styles: Images, batch_size: int = 4, **settings: Any) -> Tensor:
    """Transfer every content onto every style.

    ``contents`` (C, 3, H, W) and ``styles`` (S, 3, H, W) are tensors in [-1, 1] of the model's size, or paths. ``settings``
    are the fields of ``Settings`` (gamma, omega, t_edit, n_inv ...). Returns (C, S, 3, H, W) on the CPU, about [-1, 1].
    """
    s = Settings(**settings)
    s.check(model.config.timesteps)
    content_x, style_x = as_tensor(model, contents), as_tensor(model, styles)
    kept = s.kept()
    shape = (content_x.shape[1], content_x.shape[2], content_x.shape[3])

    h_parts = [invert_batch(model, x, s, kept, latent=False).h for x in content_x.split(batch_size)]
    h_all = {t: torch.cat([h[t] for h in h_parts]) for t in kept}
    x_T_all = torch.cat([invert_batch(model, x, s).x_T for x in style_x.split(batch_size)])

    content_keys, style_keys = digests(content_x), digests(style_x)
    draws = sum(step.eta > 0 for step in s.transfer_plan())
    official = OfficialNoise(s.seed, shape, draws, calibrated=s.omega != 0)
    pairs = [(c, i) for c in range(len(content_x)) for i in range(len(style_x))]
    results = []
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        noise: NextNoise
        if s.noise == "official":
            noise = official.batch(range(start, start + len(batch)))
        else:
            noise = pair_noise(s.seed, [(content_keys[c], style_keys[i]) for c, i in batch], shape)
        h = {t: h_all[t][[c for c, _ in batch]] for t in kept}
        results.append(transfer_batch(model, x_T_all[[i for _, i in batch]], h, s, noise).cpu())
    return torch.cat(results).unflatten(0, (len(content_x), len(style_x)))


def as_tensor(model: Model, images: Images) -> Tensor:
    """(N, 3, H, W) in [-1, 1] from a tensor of that shape, a path or paths."""
    size = model.config.image_size
    if isinstance(images, (str, Path)):
        images = [images]
    x = images if isinstance(images, Tensor) else torch.stack([load_image(Path(p), size) for p in images])
    if x.dim() != 4 or x.shape[1:] != (3, size, size):
        raise ValueError(f"images have shape {tuple(x.shape)}, the model takes (N, 3, {size}, {size})")
    return x


def digests(x: Tensor) -> list[str]:
    """What identifies each picture of a batch for the noise: the sha256 of its values."""
    return [hashlib.sha256(one.detach().float().cpu().numpy().tobytes()).hexdigest() for one in x]


