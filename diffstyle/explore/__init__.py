"""The page to play with: ``main.py --explore``. ``desk`` is what it does, ``page`` what it looks like (Gradio)."""

from diffstyle.explore.serve import serve

__all__ = ["serve"]
