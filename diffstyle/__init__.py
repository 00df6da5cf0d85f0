"""Style transfer with frozen, unconditional diffusion models (DiffStyle / InjectFusion, arXiv 2303.15403).

    model = diffstyle.load("avatars.yml")
    results = diffstyle.stylize(model, "content.png", "style.png", gamma=0.4)  # (1, 1, 3, H, W) in [-1, 1]
"""

from diffstyle.api import load, stylize
from diffstyle.errors import DiffstyleError
from diffstyle.model import Model
from diffstyle.settings import Settings

__all__ = ["DiffstyleError", "Model", "Settings", "load", "stylize"]
