"""What an inversion leaves behind, on disk: the latent x_T of a style, the h of a content at the injection timesteps.

Files are keyed by everything they depend on, so a cache can be shared between runs, configs and machines.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffstyle.files import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatentCache:
    """A folder of latents. ``key`` holds what all of them depend on: checkpoint, size, schedule, n_inv, t_0 ..."""

    folder: Path
    key: Mapping[str, Any]

    def path(self, digest: str, kind: str) -> Path:
        """The file for a picture's ``digest``; ``kind`` is "xT" or "h"."""
        text = json.dumps({**self.key, "image": digest}, sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.{kind}.pt"

    def put_x_T(self, digest: str, x_T: Tensor) -> None:
        """Store x_T (3, H, W)."""
        self.put(self.path(digest, "xT"), {"x_T": x_T})

    def put_h(self, digest: str, h: Mapping[int, Tensor]) -> None:
        """Store h (C_h, H', W') by timestep."""
        self.put(self.path(digest, "h"), {"t": torch.tensor(list(h)), "h": torch.stack(list(h.values()))})

    def get_x_T(self, digest: str) -> Tensor | None:
        """x_T (3, H, W) on the CPU, or None when it is not there or broken."""
        path, size = self.path(digest, "xT"), self.key.get("size")
        stored = self.get(path, {"x_T": 3})
        if stored and size and stored["x_T"].shape != (3, size, size):
            log.warning("%s: broken cache file, computed anew (it is of another size)", path)
            return None
        return stored["x_T"] if stored else None

    def get_h(self, digest: str, timesteps: Sequence[int]) -> dict[int, Tensor] | None:
        """h at all of ``timesteps`` on the CPU, or None when one is missing or the file is broken."""
        stored = self.get(self.path(digest, "h"), {"t": 1, "h": 4})
        if not stored:
            return None
        h = dict(zip(stored["t"].tolist(), stored["h"], strict=True))
        return {t: h[t] for t in timesteps} if set(timesteps) <= set(h) else None

    def has_x_T(self, digest: str) -> bool:
        """Whether x_T is there, judged without reading its numbers."""
        return self.get(self.path(digest, "xT"), {"x_T": 3}, skim=True) is not None

    def has_h(self, digest: str, timesteps: Sequence[int]) -> bool:
        """Whether h at all of ``timesteps`` is there, judged without reading its numbers."""
        stored = self.get(self.path(digest, "h"), {"t": 1, "h": 4}, skim=True)
        return stored is not None and set(timesteps) <= set(stored["t"].tolist())

    def put(self, path: Path, tensors: dict[str, Tensor]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        on_cpu = {name: x.contiguous().cpu().clone() for name, x in tensors.items()}
        write_whole(path, lambda f: torch.save(on_cpu, f))

    def get(self, path: Path, dims: Mapping[str, int], skim: bool = False) -> dict[str, Tensor] | None:
        """The tensors of a file if it is one of ours (names and dimensions as in ``dims``), else None with a warning.

        ``skim`` maps the file instead of reading it, and does not look at the numbers.
        """
        if not path.is_file():
            return None
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True, mmap=skim)
            if {name: x.dim() for name, x in stored.items()} != dict(dims):
                raise ValueError("it holds something else")
            if "h" in stored and len(stored["t"]) != len(stored["h"]):
                raise ValueError("it holds something else")
            if not skim and not all(bool(torch.isfinite(x).all()) for x in stored.values()):
                raise ValueError("it holds numbers that are not finite")
        except Exception as error:  # torch.load has no common error; whatever it is, the file can be made anew
            log.warning("%s: broken cache file, computed anew (%s)", path, str(error).splitlines()[0][:100])
            return None
        return stored
