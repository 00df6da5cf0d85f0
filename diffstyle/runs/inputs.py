"""The inputs of a run: which files, what they are called in results, what their bytes are, decoded once where possible."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import kind_of, read_bytes
from diffstyle.images import decode, orientation, readable_endings, record_in
from diffstyle.runs.names import picture_names

log = logging.getLogger(__name__)
KEPT_BYTES = 64 << 20  # of decoded inputs


@dataclass(frozen=True)
class Sample:
    """A picture that the model draws itself, and all that it depends on besides the model."""

    path: Path  # where it is put
    seed: int
    index: int
    n_gen: int
    t_0: int

    @property
    def digest(self) -> str:
        """What identifies it and its latents, instead of a file's bytes: as a file it would have other latents."""
        text = f"{self.seed}|{self.index}|{self.n_gen}|{self.t_0}"
        return f"sample-{hashlib.sha256(text.encode()).hexdigest()}"


Input = Path | Sample


def path_of(each: Input) -> Path:
    return each if isinstance(each, Path) else each.path


@dataclass(frozen=True)
class Picture:
    """One input: where it is, what results are called after it, and what it shows."""

    path: Path
    name: str
    digest: str  # sha256 of the file, and "+exif6" when it is turned as that says; "" when it cannot be read
    sample: Sample | None = None  # it is drawn by the model, and its digest the sample's


def list_images(folder: Path, flag: str, recursive: bool = False, leave_out: Collection[Path] = ()) -> list[Path]:
    """The pictures of a folder (or the one file given), sorted by name; other files are skipped with a notice.

    ``leave_out`` are folders of ours, whose contents are no input. Raises UsageError if there is nothing to do.
    """
    kind = kind_of(folder)
    if kind == "file":
        return [folder]
    if kind != "folder":
        raise UsageError(f"{flag} {folder}: {'a pipe or device' if kind else 'no such folder'}")
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


def read_pictures(inputs: Sequence[Input], root: Path, exif: bool = False) -> tuple[list[Picture], dict[str, str]]:
    """Name and digest every input; also the reasons, by path, why some cannot be read (their digest is "")."""
    pictures, failed = [], {}
    paths = [path_of(each) for each in inputs]
    for each, path, name in zip(inputs, paths, picture_names(paths, root), strict=True):
        if isinstance(each, Sample):
            pictures.append(Picture(path, name, each.digest, each))
            continue
        digest = ""
        try:
            digest = identify(read_bytes(path), exif)
        except WorkError as error:
            failed[str(path)] = str(error)
        pictures.append(Picture(path, name, digest))
    return pictures, failed


def identify(data: bytes, exif: bool) -> str:
    """The digest of a picture's file; one that is shown turned as its EXIF says is another picture."""
    turn = orientation(data) if exif else 1
    return hashlib.sha256(data).hexdigest() + (f"+exif{turn}" if turn != 1 else "")


def picture_reader(size: int) -> Callable[[Picture], Image.Image]:
    """A function that decodes a picture for a network of this size and keeps those read lately; raises WorkError.

    It decodes the very bytes that the picture's digest is of: a file that has changed since is refused.
    """

    @lru_cache(maxsize=max(16, KEPT_BYTES // (3 * size * size)))
    def read(picture: Picture) -> Image.Image:
        data, exif = read_bytes(picture.path), "+exif" in picture.digest
        if picture.sample:
            if (record_in(data) or {}).get("sample") != picture.digest:
                raise WorkError(f"{picture.path}: is not, or no longer, the picture that was drawn")
        elif identify(data, exif) != picture.digest:
            raise WorkError(f"{picture.path}: changed during the run; run again when it stays as it is")
        return decode(data, picture.path, size, exif)

    return read
