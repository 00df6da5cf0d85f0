"""What an inversion leaves behind, on disk: the latent x_T of a style, the h of a content at the injection timesteps.

Files are keyed by everything they depend on, so a cache can be shared between runs, configs and machines.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffstyle.errors import WorkError
from diffstyle.files import kind_of, make_folder, write_whole
from diffstyle.model import Model
from diffstyle.runs.tensors import Entry, Shape, read_entries, read_tensors, write_tensors

log = logging.getLogger(__name__)
T = TypeVar("T", Entry, Tensor)


@dataclass(frozen=True)
class LatentCache:
    """A folder of latents. ``key`` holds what all of them depend on: checkpoint, size, schedule, n_inv, t_0 ...

    What is read must be of the shapes and types that ``model``, if given, makes; anything else is not there, says a warning.
    """

    folder: Path
    key: Mapping[str, Any]
    model: Model | None = None

    def path(self, digest: str, kind: str) -> Path:
        """The file for a picture's ``digest``; ``kind`` is "xT" or "h"."""
        text = json.dumps({**self.key, "image": digest}, sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.{kind}.safetensors"

    @cached_property
    def h_like(self) -> tuple[torch.dtype, Shape] | None:
        """Type and shape (C_h, H', W') of the model's h; it takes an encode to know them, which is half an evaluation."""
        if self.model is None:
            return None
        size, device, unet = self.model.config.image_size, self.model.device, self.model.unet
        with torch.inference_mode():  # the class's encode: a compiled one would be compiled again for this batch size
            h = type(unet).encode(unet, torch.zeros(1, 3, size, size, device=device), torch.zeros(1, device=device)).h
        return h.dtype, tuple(h.shape[1:])

    def put_x_T(self, digest: str, x_T: Tensor) -> None:
        """Store x_T (3, H, W). Raises WorkError."""
        self.put(self.path(digest, "xT"), {"x_T": x_T})

    def put_h(self, digest: str, h: Mapping[int, Tensor]) -> None:
        """Store h (C_h, H', W') by timestep. Raises WorkError."""
        self.put(self.path(digest, "h"), {str(t): maps for t, maps in h.items()})

    def get_x_T(self, digest: str) -> Tensor | None:
        """x_T (3, H, W) on the CPU, or None when it is not there or broken."""
        stored = self.get(self.path(digest, "xT"), read_finite, self.check_x_T)
        return stored["x_T"] if stored else None

    def get_h(self, digest: str, timesteps: Sequence[int]) -> dict[int, Tensor] | None:
        """h at all of ``timesteps`` on the CPU, or None when one is missing or the file is broken."""
        stored = self.get(self.path(digest, "h"), read_finite, self.check_h)
        return {t: stored[str(t)] for t in timesteps} if stored and {str(t) for t in timesteps} <= stored.keys() else None

    def has_x_T(self, digest: str) -> bool:
        """Whether x_T is there, judged without reading its numbers."""
        return self.get(self.path(digest, "xT"), read_entries, self.check_x_T) is not None

    def has_h(self, digest: str, timesteps: Sequence[int]) -> bool:
        """Whether h at all of ``timesteps`` is there, judged without reading its numbers."""
        stored = self.get(self.path(digest, "h"), read_entries, self.check_h)
        return stored is not None and {str(t) for t in timesteps} <= stored.keys()

    def put(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        make_folder(self.folder)
        write_whole(path, lambda f: write_tensors(f, tensors))

    def get(
        self, path: Path, read: Callable[[Path], dict[str, T]], check: Callable[[Mapping[str, Entry | Tensor]], bool]
    ) -> dict[str, T] | None:
        """What ``read`` finds in a file and ``check`` takes for latents of ours, else None with a warning."""
        if not kind_of(path):
            return None
        try:
            stored = read(path)
            if not check(stored):
                raise ValueError("it holds something else")
        except (ValueError, OSError, WorkError) as error:
            log.warning("%s: broken cache file, computed anew (%s)", path, error)
            return None
        return stored

    def check_x_T(self, stored: Mapping[str, Entry | Tensor]) -> bool:
        """Whether it is one x_T, of the network's picture size, in fp32 as the sampler computes."""
        size = self.key.get("size")
        x_T = stored.get("x_T")
        return len(stored) == 1 and x_T is not None and x_T.dtype == torch.float32 and (
            tuple(x_T.shape) == (3, size, size) if size else len(x_T.shape) == 3
        )  # fmt: skip

    def check_h(self, stored: Mapping[str, Entry | Tensor]) -> bool:
        """Whether it is h by timestep, as the model makes it."""
        kinds = {(x.dtype, tuple(x.shape)) for x in stored.values()}
        return len(kinds) == 1 and all(name.isdecimal() for name in stored) and kinds == {self.h_like or next(iter(kinds))}


def read_finite(path: Path) -> dict[str, Tensor]:
    """``read_tensors``, of which none may hold infinities or NaN."""
    stored = read_tensors(path)
    if not all(bool(torch.isfinite(x).all()) for x in stored.values()):
        raise ValueError("it holds numbers that are not finite")
    return stored
