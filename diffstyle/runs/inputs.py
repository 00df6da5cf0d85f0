"""The inputs of a run: which files, what they are called in results, what their bytes are, decoded once where possible."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import file_hash
from diffstyle.images import open_fitted, orientation
from diffstyle.runs.names import picture_names

log = logging.getLogger(__name__)
# Formats that Pillow lists but cannot decode itself (or leaves to Ghostscript).
NOT_OURS = {"EPS", "MPEG", "BUFR", "GRIB", "HDF5", "WMF"}
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
            digest = file_hash(path)
            turn = orientation(path) if exif else 1
            digest += f"+exif{turn}" if turn != 1 else ""
        except WorkError as error:
            failed[str(path)] = str(error)
        pictures.append(Picture(path, name, digest))
    return pictures, failed


def picture_reader(size: int) -> Callable[[Picture], Image.Image]:
    """A function that decodes a picture for a network of this size and keeps those read lately; raises WorkError."""

    @lru_cache(maxsize=max(16, KEPT_BYTES // (3 * size * size)))
    def read(picture: Picture) -> Image.Image:
        return open_fitted(picture.path, size, "+exif" in picture.digest)

    return read
