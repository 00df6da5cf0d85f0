"""The published checkpoints (pretrained/zoo.yml): in which files they come and from where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffstyle.errors import WorkError
from diffstyle.zoo.documents import read_yaml
from diffstyle.zoo.places import BUNDLED


@dataclass(frozen=True)
class Mirror:
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
    """One model of the zoo; its mirrors in the order in which to try them."""

    name: str
    title: str
    config: str
    keys: tuple[str, ...]
    format: str
    licence: str
    mirrors: tuple[Mirror, ...]

    def present(self, folder: Path) -> Mirror | None:
        """The first of its files that lies in ``folder``."""
        return next((mirror for mirror in self.mirrors if (folder / mirror.file).is_file()), None)


def load_zoo(path: Path = BUNDLED / "zoo.yml") -> dict[str, Entry]:
    """All entries by name, in the file's order. Raises WorkError."""
    try:
        _, raw = read_yaml(path)
        return {name: read_entry(name, **body) for name, body in raw.items()}
    except (WorkError, TypeError, AttributeError, KeyError, ValueError) as error:
        raise WorkError(f"{path}: not a readable zoo: {error}") from error


def read_entry(
    name: str, title: str, config: str, keys: list[str], format: str, licence: str, file: str,
    mirrors: list[dict[str, Any]], **hashes: Any,
) -> Entry:  # fmt: skip
    """One entry; a mirror without a file name of its own is the official file, with the entry's size and hashes."""
    official = {"file": file, **hashes}
    listed = tuple(Mirror(**(mirror if "file" in mirror else official | mirror)) for mirror in mirrors)
    for mirror in listed:
        if Path(mirror.file).name != mirror.file:
            raise ValueError(f"{name}: file {mirror.file!r} would lie outside the folder")
    return Entry(name, title, config, tuple(keys), format, licence, listed)


def find_entry(zoo: dict[str, Entry], keys: list[str]) -> Entry | None:
    """The entry that goes with a config's name, category or data set, tried in that order."""
    for key in keys:
        for entry in zoo.values():
            if key.casefold() in {entry.name.casefold(), *(k.casefold() for k in entry.keys)}:
                return entry
    return None
