"""The published checkpoints (pretrained/zoo.yml): in which files they come, and is a file the right one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffstyle.configs import paths_config
from diffstyle.errors import WorkError
from diffstyle.files import file_hash
from diffstyle.zoo.weights import sniff

PRETRAINED = Path(paths_config.__file__).resolve().parents[1] / "pretrained"  # the repository's, or the installed package's


@dataclass(frozen=True)
class Source:
    """One place to get a file from, and what is known of that file."""

    url: str  # https://..., gdrive:ID, or a local file
    file: str  # its name in pretrained/
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def page(self) -> str:
        """Where a person would get it, in a browser."""
        if self.url.startswith("gdrive:"):
            return f"https://drive.google.com/file/d/{self.url.removeprefix('gdrive:')}/view"
        return self.url.split("/resolve/")[0] if "//huggingface.co/" in self.url else self.url

    @property
    def expected(self) -> str:
        """What the file has to be, in words."""
        size = f"{self.size} bytes" if self.size else ""
        digest = f"sha256 {self.sha256}" if self.sha256 else f"md5 {self.md5}" if self.md5 else "no published hash"
        return ", ".join(part for part in (size, digest) if part)


@dataclass(frozen=True)
class Entry:
    """One model of the zoo; its sources in the order in which to try them."""

    name: str
    title: str
    config: str
    keys: tuple[str, ...]
    format: str
    licence: str
    sources: tuple[Source, ...]

    def present(self, folder: Path) -> Source | None:
        """The first of its files that lies in ``folder``."""
        return next((source for source in self.sources if (folder / source.file).is_file()), None)


def load_zoo(path: Path = PRETRAINED / "zoo.yml") -> dict[str, Entry]:
    """All entries by name, in the file's order. Raises WorkError."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name: read_entry(name, **body) for name, body in raw.items()}
    except (OSError, yaml.YAMLError, TypeError, AttributeError, KeyError, ValueError) as error:
        raise WorkError(f"{path}: not a readable zoo: {' '.join(str(error).split())}") from error


def read_entry(
    name: str, title: str, config: str, keys: list[str], format: str, licence: str, file: str,
    sources: list[dict[str, Any]], **hashes: Any,
) -> Entry:  # fmt: skip
    """One entry; a source without a file name of its own is the official file, with the entry's size and hashes."""
    official = {"file": file, **hashes}
    listed = tuple(Source(**(source if "file" in source else official | source)) for source in sources)
    for source in listed:
        if Path(source.file).name != source.file:
            raise ValueError(f"{name}: file {source.file!r} would lie outside the folder")
    return Entry(name, title, config, tuple(keys), format, licence, listed)


def find_entry(zoo: dict[str, Entry], keys: list[str]) -> Entry | None:
    """The entry that goes with a config's name, category or data set, tried in that order."""
    for key in keys:
        for entry in zoo.values():
            if key.casefold() in {entry.name.casefold(), *(k.casefold() for k in entry.keys)}:
                return entry
    return None


# ---- is it the right file? ---------------------------------------------------------------------------------------


def complaint(path: Path, source: Source, target: Path | None = None) -> str:
    """Why ``path`` is not the file that ``source`` names, or "": size, structure, then hash.

    ``target`` is the name that a partial file is to get; its first download may have left a hash.
    """
    size = path.stat().st_size
    if source.size and size != source.size:
        return f"{size} bytes instead of {source.size}"
    try:
        sniff(path)
    except WorkError as error:
        return str(error).removeprefix(f"{path}: ")
    for algorithm, wanted in (("sha256", source.sha256), ("md5", source.md5)):
        if wanted and (found := file_hash(path, algorithm)) != wanted:
            return f"{algorithm} {found} instead of {wanted}"
    return changed(path, target or path)


def changed(path: Path, target: Path) -> str:
    """Why ``path`` is not what was first downloaded as ``target``, or ""."""
    wanted = recorded(target)
    if wanted and (found := file_hash(path)) != wanted:
        return f"sha256 {found} instead of {wanted} as first downloaded (delete {sidecar(target)} to accept it)"
    return ""


def sidecar(path: Path) -> Path:
    """Where the sha256 of a downloaded file is kept, in the format of the sha256sum command."""
    return path.with_name(path.name + ".sha256")


def record(path: Path) -> None:
    """Remember the sha256 of a file that has just been downloaded."""
    sidecar(path).write_text(f"{file_hash(path)}  {path.name}\n", encoding="utf-8")


def recorded(path: Path) -> str | None:
    """The sha256 of ``path`` at its download, if it was one."""
    try:
        words = sidecar(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0] if words else None


def status(entry: Entry, folder: Path) -> str:
    """For the list: missing, verified, present (no hash is known) or WRONG with the reason."""
    source = entry.present(folder)
    if source is None:
        return "missing"
    path = folder / source.file
    problem = complaint(path, source)
    if problem:
        return f"WRONG: {path.name}: {problem}"
    known = source.sha256 or source.md5 or recorded(path)
    return f"{'verified' if known else 'present, no hash known'}: {path.name}"
