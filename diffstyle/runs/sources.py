"""Where contents and styles come from besides a folder: a configured data set, or pictures drawn by the model itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from diffstyle.configs import paths_config
from diffstyle.configs.paths_config import DATASET_PATHS
from diffstyle.errors import UsageError
from diffstyle.files import kind_of
from diffstyle.images import readable_endings
from diffstyle.noise import seeded
from diffstyle.runs.inputs import Sample
from diffstyle.settings import Settings

log = logging.getLogger(__name__)
SAMPLES = "samples"  # the folder of save_dir that drawn pictures go to
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
    if kind not in ("dataset", "sample") or not rest or kind_of(Path(spec)):
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


def samples(count: int, settings: Settings, save_dir: Path) -> list[Sample]:
    """The first ``count`` pictures that the model draws from a seed, into a folder of save_dir; none is drawn yet."""
    folder, seed = save_dir / SAMPLES, settings.seed
    return [Sample(folder / f"sample_{seed}_{i:04d}.png", seed, i, settings.n_gen, settings.t_0) for i in range(count)]


def initial_noise(seed: int, index: int, size: int) -> torch.Tensor:
    """x_T (3, size, size) of sample ``index``."""
    return torch.randn(3, size, size, generator=seeded(f"sample|{seed}|{index}"))
