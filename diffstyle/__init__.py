"""Style transfer with frozen, unconditional diffusion models (DiffStyle / InjectFusion, arXiv 2303.15403).

    model = diffstyle.load("avatars.yml")
    results = diffstyle.stylize(model, "content.png", "style.png", gamma=0.4)  # (1, 1, 3, H, W) in [-1, 1]
"""

from pathlib import Path

if not (Path(__file__).parent / "models").is_dir():
    # A checkout where git makes no links (Windows): models, configs and pretrained lie one folder up.
    __path__.append(str(Path(__file__).resolve().parents[1]))

from diffstyle.api import load, stylize
from diffstyle.errors import DiffstyleError
from diffstyle.model import Model
from diffstyle.settings import Settings
from diffstyle.version import __version__

__all__ = ["DiffstyleError", "Model", "Settings", "__version__", "load", "stylize"]
