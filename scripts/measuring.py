"""What the scripts that measure a model on pictures of its domain have in common: their flags, and the model with its grid."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffstyle.api import load
from diffstyle.errors import UsageError
from diffstyle.files import open_folder
from diffstyle.model import Model
from diffstyle.zoo.config import find_config
from diffstyle.zoo.grids import grid_file


def flags(doc: str | None, n_images: int, images: Path | None = None, batch_size: int = 4) -> argparse.ArgumentParser:
    """A parser with the flags of all of them; without ``images``, the default, --images must be given."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="avatars.yml")
    parser.add_argument("--model_path")
    parser.add_argument("--images", type=Path, default=images, required=not images, help="a folder, with those inside it")
    parser.add_argument("--n_images", type=int, default=n_images, help="at most so many of them")
    parser.add_argument("--batch_size", type=int, default=batch_size)
    parser.add_argument("--device", default="auto")
    return parser


def grid_flags(doc: str | None, n_images: int, images: Path | None = None) -> argparse.ArgumentParser:
    parser = flags(doc, n_images, images)
    parser.add_argument("--out", type=Path, help="the file (default: grids/NAME.json beside the config)")
    return parser


def model_with_grid(args: argparse.Namespace) -> tuple[Model, Path, Path]:
    """The model, its grid's file, and the file to write. Raises UsageError where its walk has not 1000 timesteps."""
    known = grid_file(find_config(args.config))
    model = load(args.config, args.model_path, args.device)
    if model.config.timesteps != 1000:
        raise UsageError(f"{args.config}: its walk has {model.config.timesteps} timesteps; grids are of walks of 1000")
    out = args.out or known
    open_folder(out.parent, "--out")
    return model, known, out
