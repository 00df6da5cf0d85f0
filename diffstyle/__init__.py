"""Style transfer with frozen, unconditional diffusion models (DiffStyle / InjectFusion, arXiv 2303.15403).

    model = diffstyle.load("avatars.yml")
    results = diffstyle.stylize(model, "content.png", "style.png", gamma=0.4)  # (1, 1, 3, H, W) in [-1, 1]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffstyle.api import load, stylize
    from diffstyle.errors import DiffstyleError
    from diffstyle.model import Model
    from diffstyle.settings import Settings

__all__ = ["DiffstyleError", "Model", "Settings", "load", "stylize"]
HOMES = {"DiffstyleError": "errors", "Model": "model", "Settings": "settings"}  # the others are in api


def __getattr__(name: str) -> Any:
    """The names above, with torch behind them, when first asked for: --help and wrong flags do not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'diffstyle' has no attribute {name!r}")
    return getattr(import_module(f"diffstyle.{HOMES.get(name, 'api')}"), name)
