"""Where a run writes must not be where it reads, nor where something of somebody else's lies."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import kind_of, read_bytes
from diffstyle.runs.config import RunConfig
from diffstyle.runs.names import fold

OF_RUN = ("grid.png", "run.json", "index.html")
FIGURES = ("sweep_", "gamma_", "t_")  # what the names of a pair's figures begin with, before its stem
GALLERY = (b'<meta name="generator" content="diffstyle">', b'<dialog id="compare" aria-labelledby="pair">')
Identity = tuple[int, int]  # device and inode


def check_places(cfg: RunConfig, written: Iterable[str], read: Iterable[Path]) -> None:
    """Raise UsageError where a file that is read would be written over, whatever it is called on the way there.

    ``written`` are names below save_dir, or below a sweep's folder in it; ``read`` are all files that must stay as they are.
    Without ``overwrite`` a run.json or gallery that is not ours must stay, too.
    """
    folders: dict[str, dict[str, str]] = {}  # below save_dir: by what a file system may take it for, the name
    for name in (*OF_RUN, *written):
        folder, file = os.path.split(name)
        folders.setdefault(folder, {})[fold(file)] = file
    taken: dict[Identity, dict[str, str]] = {}
    for base in (cfg.save_dir, *swept(cfg.save_dir)):
        for folder, files in folders.items():
            if here := identity(base / folder):
                taken.setdefault(here, {}).update(files)
    stems = {stem for files in folders.values() for stem, _ in map(os.path.splitext, files)}
    top, where = identity(cfg.save_dir), cache(identity)

    @cache
    def present(folder: Path) -> set[Identity | None]:
        """The files that lie in a folder under the names of outputs; its file system may know more ways to spell them."""
        return {identity(folder / file) for file in taken[where(folder) or (0, 0)].values()} - {None}

    for path in read:
        for entry in ways_to(path):
            here = where(entry.parent)
            if here is None or here not in taken:
                continue
            if fold(entry.name) in taken[here] or identity(entry) in present(entry.parent) or (
                here == top and is_figure(fold(entry.name), stems)
            ):  # fmt: skip
                raise UsageError(f"{path}: the run reads it and would write over it; choose another --save_dir")
    if not cfg.overwrite:
        check_own(cfg.save_dir / "run.json", is_run)
        if cfg.report:
            check_own(cfg.save_dir / "index.html", lambda data: any(mark in data for mark in GALLERY))


def check_kept(written: Iterable[Path], read: Iterable[Path], instead: str) -> None:
    """The same for a script that writes a few files of its own; ``instead`` says what to do. Raises UsageError."""
    taken = {(identity(path.parent), fold(path.name)) for path in written}
    for path in read:
        if any((identity(entry.parent), fold(entry.name)) in taken for entry in ways_to(path)):
            raise UsageError(f"{path}: it is read, and would be written over; {instead}")


def identity(path: Path) -> Identity | None:
    """What a file or folder is to the system, however it is called; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def swept(save_dir: Path) -> list[Path]:
    """The folders of sweeps that are there: gamma=0.3,omega=0 and the like."""
    try:
        return [Path(entry.path) for entry in os.scandir(save_dir) if "=" in entry.name and entry.is_dir()]
    except OSError:
        return []


def ways_to(path: Path) -> Iterator[Path]:
    """The path itself and, where it is a link, each that it leads through. (Writing over a link replaces the link.)"""
    for _ in range(40):
        yield path
        try:
            path = path.parent / os.readlink(path)
        except (OSError, ValueError):  # no link
            return


def is_figure(name: str, stems: set[str]) -> bool:
    """Whether a figure or animation of a pair with one of these stems may have this name."""
    for kind in FIGURES:
        words = os.path.splitext(name.removeprefix(kind))[0].split("_")
        if name.startswith(kind) and any("_".join(words[:n]) in stems for n in range(1, len(words) + 1)):
            return True
    return False


def check_own(path: Path, ours: Callable[[bytes], bool]) -> None:
    """Raise UsageError for a file with something in it that is not ours."""
    if kind_of(path) != "file":
        return
    try:
        data = read_bytes(path)
    except WorkError:
        data = b"?"
    if data and not ours(data):
        raise UsageError(f"{path}: not written by diffstyle; choose another --save_dir, or replace it with --overwrite")


def is_run(data: bytes) -> bool:
    """Whether these are the bytes of a run.json, of this version or an earlier one."""
    try:
        record = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"settings", "model", "results"} <= record.keys()
