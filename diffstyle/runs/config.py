"""Where a run reads and writes, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffstyle.settings import Settings

LAYOUTS = ("flat", "by-style", "by-content")


@dataclass(frozen=True)
class RunConfig:
    """Where a run reads and writes, and how; what the pictures depend on is in ``settings``."""

    content_dir: Path
    style_dir: Path
    save_dir: Path
    settings: Settings
    pairs: Path | None = None  # a CSV of pairs; None: every content with every style
    recursive: bool = False
    exif: bool = False
    layout: str = "flat"
    cache_dir: Path | None = None  # None: latents live in a temporary folder during the run
    overwrite: bool = False
    batch_size: int | None = None  # None: by free memory; results depend on it by rounding alone
    show_progress: bool = True
    report: bool = False  # a gallery is written at the end
