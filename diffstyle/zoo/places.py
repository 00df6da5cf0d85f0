"""Where the files of the zoo lie: what comes with the package, and where downloads go."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
BUNDLED = PACKAGE / "pretrained"  # zoo.yml and the embedded model; a link in a checkout, a folder in an installation


def root() -> Path:
    """What relative paths of checkpoints start at: the checkout, or, where that is none to write to, the user's cache."""
    checkout = BUNDLED.resolve().parent
    if checkout != PACKAGE and os.access(checkout, os.W_OK):
        return checkout
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache")) / "diffstyle"


def downloads() -> Path:
    """The folder of downloaded checkpoints. It need not be there yet."""
    return root() / "pretrained"
