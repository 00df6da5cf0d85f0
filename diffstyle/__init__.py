"""Style transfer with frozen, unconditional diffusion models (DiffStyle / InjectFusion, arXiv 2303.15403).

model = diffstyle.load("avatars.yml")
content, style = diffstyle.invert(model, "content.png"), diffstyle.invert(model, "style.png")
results = diffstyle.transfer(model, content, style, gamma=0.4)  # (1, 1, 3, H, W) in [-1, 1]
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if not os.path.isdir(os.path.join(os.path.dirname(__file__), "models")):
    # A checkout where git makes no links (Windows): models, configs and pretrained lie one folder up.
    __path__.append(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from diffstyle.version import __version__

if TYPE_CHECKING:
    from diffstyle.api import invert, load, stylize, transfer
    from diffstyle.errors import DiffstyleError
    from diffstyle.model import Model
    from diffstyle.pipeline import Inverted
    from diffstyle.settings import Settings

__all__ = ["DiffstyleError", "Inverted", "Model", "Settings", "__version__", "invert", "load", "stylize", "transfer"]
HOMES = {"DiffstyleError": "errors", "Inverted": "pipeline", "Model": "model", "Settings": "settings"}  # the others: api


def __getattr__(name: str) -> Any:
    """The names above, with torch behind them, when first asked for: --help and wrong flags do not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'diffstyle' has no attribute {name!r}")
    return getattr(import_module(f"diffstyle.{HOMES.get(name, 'api')}"), name)
