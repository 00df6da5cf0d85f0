"""Style transfer with frozen, unconditional diffusion models (DiffStyle / InjectFusion, arXiv 2303.15403).

    model = diffstyle.load("avatars.yml")
    content, style = diffstyle.invert(model, "content.png"), diffstyle.invert(model, "style.png")
    results = diffstyle.transfer(model, content, style, gamma=0.4)  # (1, 1, 3, H, W) in [-1, 1]
"""

from diffstyle.api import invert, load, stylize, transfer
from diffstyle.errors import DiffstyleError
from diffstyle.model import Model
from diffstyle.pipeline import Inverted
from diffstyle.settings import Settings

__version__ = "0.2.0.dev0"

__all__ = ["DiffstyleError", "Inverted", "Model", "Settings", "invert", "load", "stylize", "transfer"]
