"""Where contents and styles come from besides a folder: a configured data set, or pictures drawn by the model itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from diffstyle.configs import paths_config
from diffstyle.configs.paths_config import DATASET_PATHS
from diffstyle.errors import UsageError
from diffstyle.files import file_hash
from diffstyle.images import save_png, to_image
from diffstyle.model import Model
from diffstyle.noise import seeded
from diffstyle.pipeline import draw
from diffstyle.runs.inputs import readable_endings
from diffstyle.runs.latents import LatentCache
from diffstyle.settings import Settings

log = logging.getLogger(__name__)
REPOSITORY = Path(paths_config.__file__).resolve().parents[1]


@dataclass(frozen=True)
class Source:
    """``dataset:NAME[:N]`` or ``sample:N``, parsed."""

    kind: str  # "dataset" or "sample"
    name: str = ""
    count: int | None = None


def parse_source(spec: str, flag: str) -> Source | None:
    """The source that ``spec`` names, None if it is a folder or file. Raises UsageError for a malformed one."""
    kind, *rest = spec.split(":")
    if kind not in ("dataset", "sample") or not rest or Path(spec).exists():
        return None
    *name, last = rest
    count = int(last) if last.isdecimal() else None
    if kind == "sample" and not name and count:
        return Source("sample", count=count)
    if kind == "dataset" and len(rest) <= 2 and rest[0] and (len(rest) == 1 or count):
        return Source("dataset", rest[0], count if len(rest) == 2 else None)
    raise UsageError(f"{flag} {spec}: write dataset:NAME, dataset:NAME:N or sample:N with N >= 1")


def dataset_images(source: Source, flag: str) -> list[Path]:
    """The first N pictures (sorted by path) of the folder tree that configs/paths_config.py names."""
    if source.name not in DATASET_PATHS:
        known = ", ".join(DATASET_PATHS)
        raise UsageError(f"{flag} dataset:{source.name}: not in DATASET_PATHS of configs/paths_config.py; there are {known}")
    folder = REPOSITORY / DATASET_PATHS[source.name]
    if not folder.is_dir():
        raise UsageError(f"{flag} dataset:{source.name}: {folder} is no folder; edit configs/paths_config.py")
    known_endings = readable_endings()
    images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in known_endings and p.is_file())
    if not images:
        raise UsageError(f"{flag} dataset:{source.name}: no picture in {folder}")
    if source.count and source.count > len(images):
        log.warning("%s: %d pictures asked for, %s has %d", flag, source.count, folder, len(images))
    return images[: source.count]


def draw_samples(
    model: Model, settings: Settings, count: int, folder: Path, cache: LatentCache, batch_size: int
) -> list[Path]:
    """Draw pictures with the model into ``folder`` and put their latents into ``cache``, as if they had been inverted.

    Their h is that of the chain which generates them and their x_T the noise it starts from, so nothing is inverted.
    Picture i depends on (seed, i) only; one that is there with its latents is not drawn again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"sample_{settings.seed}_{i:04d}.png" for i in range(count)]
    missing = [i for i, path in enumerate(paths) if not path.is_file() or not has_latents(path, settings, cache)]
    size = model.config.image_size
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        x_T = torch.stack([initial_noise(settings.seed, i, size) for i in batch])
        x0, drawn = draw(model, x_T, settings, [f"{settings.seed}/{i}" for i in batch])
        for k, i in enumerate(batch):
            save_png(paths[i], to_image(x0[k]))
            digest = file_hash(paths[i])
            cache.put_x_T(digest, x_T[k])
            cache.put_h(digest, {t: maps[k] for t, maps in drawn.h.items()})
    return paths


def has_latents(path: Path, settings: Settings, cache: LatentCache) -> bool:
    digest = file_hash(path)
    return cache.get_x_T(digest) is not None and cache.get_h(digest, settings.kept()) is not None


def initial_noise(seed: int, index: int, size: int) -> torch.Tensor:
    """x_T (3, size, size) of sample ``index``."""
    return torch.randn(3, size, size, generator=seeded(f"sample|{seed}|{index}"))


