"""Where the files of the zoo lie: what comes with the package, and where downloads go."""

from __future__ import annotations

import os
from pathlib import Path

from diffstyle.configs import paths_config

HOME = Path(paths_config.__file__).resolve().parents[1]  # the checkout, or the installed package
BUNDLED = HOME / "pretrained"  # zoo.yml and the embedded model


def root() -> Path:
    """What relative paths of checkpoints start at: the checkout, or, where that is none to write to, the user's cache."""
    if (HOME / "main.py").is_file() and os.access(HOME, os.W_OK):
        return HOME
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache")) / "diffstyle"


def downloads() -> Path:
    """The folder of downloaded checkpoints. It need not be there yet."""
    return root() / "pretrained"
