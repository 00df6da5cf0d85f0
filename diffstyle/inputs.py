"""The inputs of a run: which files, what they are called in results, what their bytes are, decoded once where possible."""

from __future__ import annotations

import hashlib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from diffstyle.errors import UsageError
from diffstyle.images import open_fitted, orientation

log = logging.getLogger(__name__)
# Formats that Pillow lists but cannot decode itself (or leaves to Ghostscript).
NOT_OURS = {"EPS", "MPEG", "BUFR", "GRIB", "HDF5", "WMF"}
NAME_BYTES = 200  # of 255 that file systems allow, room for result_ and .png
KEPT_BYTES = 64 << 20  # of decoded inputs


@dataclass(frozen=True)
class Picture:
    """One input: where it is, what results are called after it, and what it shows."""

    path: Path
    name: str
    digest: str  # sha256 of the file, and "+exif6" when it is turned as that says; "" when it cannot be read


def list_images(
    folder: Path, flag: str, recursive: bool = False, leave_out: Collection[Path] = ()
) -> list[Path]:
    """The pictures of a folder (or the one file given), sorted by name; other files are skipped with a notice.

    ``leave_out`` are folders of ours, whose contents are no input. Raises UsageError if there is nothing to do.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise UsageError(f"{flag} {folder}: no such folder")
    ours = {p.resolve() for p in leave_out}
    if folder.resolve() in ours:
        raise UsageError(f"{flag} {folder}: results would become inputs there; choose another --save_dir or --cache_dir")
    known = readable_endings()
    try:
        files = sorted(walk(folder, ours) if recursive else files_of(folder), key=lambda p: p.relative_to(folder).parts)
    except OSError as error:
        raise UsageError(f"{flag} {folder}: cannot be read ({error.strerror})") from None
    images = [p for p in files if p.suffix.lower() in known]
    skipped = [p.name for p in files if p.suffix.lower() not in known]
    if skipped:
        log.info("%s: skipped %d file(s) that are no pictures: %s", folder, len(skipped), ", ".join(skipped[:5]))
    if not images:
        deeper = "; --recursive looks into its folders" if not recursive and any(p.is_dir() for p in folder.iterdir()) else ""
        raise UsageError(f"{flag} {folder}: no picture in it{deeper}")
    return images


def readable_endings() -> set[str]:
    """The endings, as ".png", of the formats that Pillow decodes itself."""
    Image.init()
    return {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN.keys() - NOT_OURS}


def files_of(folder: Path) -> Iterator[Path]:
    """The visible files of a folder; a link that leads nowhere, or to itself, is none."""
    return (p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())


def walk(folder: Path, leave_out: Collection[Path]) -> Iterator[Path]:
    """The visible files under ``folder``; links to folders are followed, each folder is visited once."""
    seen: set[tuple[int, int]] = set()
    for name, folders, _ in os.walk(folder, followlinks=True):
        here = Path(name)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen or here.resolve() in leave_out:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        try:
            yield from files_of(here)
        except OSError as error:
            log.warning("%s: skipped, cannot be read (%s)", here, error.strerror)


def read_pictures(
    paths: Sequence[Path], root: Path, exif: bool = False
) -> tuple[list[Picture], dict[str, str]]:
    """Name and digest every input; also the reasons, by path, why some cannot be read (their digest is "")."""
    pictures, failed = [], {}
    for path, name in zip(paths, picture_names(paths, root), strict=True):
        digest = ""
        try:
            digest = sha256(path)
            turn = orientation(path) if exif else 1
            digest += f"+exif{turn}" if turn != 1 else ""
        except OSError as error:
            failed[str(path)] = f"{path}: cannot be read ({error.strerror})"
        pictures.append(Picture(path, name, digest))
    return pictures, failed


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def picture_reader(size: int) -> Callable[[Picture], Image.Image]:
    """A function that decodes a picture for a network of this size and keeps those read lately; raises WorkError."""

    @lru_cache(maxsize=max(16, KEPT_BYTES // (3 * size * size)))
    def read(picture: Picture) -> Image.Image:
        return open_fitted(picture.path, size, "+exif" in picture.digest)

    return read


# ---- names -------------------------------------------------------------------------------------------------------


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
