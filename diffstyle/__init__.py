"""Style transfer with frozen, unconditional diffusion models (DiffStyle / InjectFusion, arXiv 2303.15403).

    model = diffstyle.load("avatars.yml")
    content, style = diffstyle.invert(model, "content.png"), diffstyle.invert(model, "style.png")
    results = diffstyle.transfer(model, content, style, gamma=0.4)  # (1, 1, 3, H, W) in [-1, 1]
"""

from pathlib import Path

if not (Path(__file__).parent / "models").is_dir():
    # A checkout where git makes no links (Windows): models, configs and pretrained lie one folder up.
    __path__.append(str(Path(__file__).resolve().parents[1]))

from diffstyle.api import invert, load, stylize, transfer
from diffstyle.errors import DiffstyleError
from diffstyle.model import Model
from diffstyle.pipeline import Inverted
from diffstyle.settings import Settings
from diffstyle.version import __version__

__all__ = ["DiffstyleError", "Inverted", "Model", "Settings", "__version__", "invert", "load", "stylize", "transfer"]
