"""What results are called: names that never collide and that every file system takes."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

NAME_BYTES = 200  # of 255 that file systems allow, room for result_ and .png


def picture_names(paths: Sequence[Path], root: Path) -> list[str]:
    """The stem of each file; where stems clash the file's name, then its path below ``root``, so results never collide."""
    below = [os.path.relpath(p, root) for p in paths]
    names = [p.stem for p in paths]
    for longer in ([p.name for p in paths], [b.replace("../", "").replace(os.sep, "_") for b in below]):
        taken = Counter(map(fold, names))
        names = [name if taken[fold(name)] == 1 else other for name, other in zip(names, longer, strict=True)]
    return distinct(names, below)


def distinct(names: Iterable[str], sources: Iterable[str]) -> list[str]:
    """``names``, short enough for a file system; those that still clash carry a digest of their source."""
    short = [shorten(name) for name in names]
    taken = Counter(map(fold, short))
    return [n if taken[fold(n)] == 1 else f"{n}~{mark(s)}" for n, s in zip(short, sources, strict=True)]


def fold(name: str) -> str:
    """What a file system may take for the same name: without case, composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def shorten(name: str, limit: int = NAME_BYTES) -> str:
    """A name of at most ``limit`` bytes; a cut one ends in a digest of the whole."""
    raw = os.fsencode(name)
    return name if len(raw) <= limit else f"{raw[: limit - 9].decode('utf-8', 'ignore')}~{mark(name)}"


def mark(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
