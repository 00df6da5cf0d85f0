"""``--pairs FILE.csv``: a list of content, style and, row by row, other strengths. Errors name the file and the line."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import kind_of, read_bytes

NUMBERS: dict[str, Callable[[str], float]] = {"gamma": float, "omega": float, "seed": int}  # settings a row may change
COLUMNS = ("content", "style", *NUMBERS, "name")


@dataclass(frozen=True)
class Row:
    """One line of the list; paths as written."""

    line: int
    content: str
    style: str
    changes: dict[str, float] = field(default_factory=dict)  # field of Settings -> value
    name: str = ""

    @property
    def suffix(self) -> str:
        """What a result's name says of the row's own settings: "_gamma0.3"."""
        return "".join(f"_{key}{value:.12g}" for key, value in self.changes.items())


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV with a header (comma, semicolon or tab; UTF-8). Raises UsageError for anything odd."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--pairs {path}: not a text file in UTF-8") from None
    except WorkError as error:
        raise UsageError(f"--pairs {error}") from None
    header = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    rows: list[Row] = []
    columns: list[str] = []
    try:
        for cells in reader:
            where = f"--pairs {path}, line {reader.line_num}"
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = read_header(cells, where)
            else:
                rows.append(read_row(columns, cells, where, reader.line_num))
    except csv.Error as error:
        raise UsageError(f"--pairs {path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise UsageError(f"--pairs {path}: no pairs in it; a header with content,style comes first, then a line a pair")
    return rows


def read_header(cells: list[str], where: str) -> list[str]:
    columns = [cell.lower() for cell in cells]
    for column in columns:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(f"{where}: unknown column {column[:40]!r}{hint}; there are {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            raise UsageError(f"{where}: the column {column} is there twice")
    missing = [column for column in COLUMNS[:2] if column not in columns]
    if missing:
        raise UsageError(f"{where}: the header lacks the column {' and '.join(missing)}")
    return columns


def read_row(columns: list[str], cells: list[str], where: str, line: int) -> Row:
    if len(cells) > len(columns) and any(cells[len(columns) :]):
        raise UsageError(f"{where}: {len(cells)} cells, the header has {len(columns)} columns")
    given = {column: cell for column, cell in zip(columns, cells, strict=False) if cell}
    for column in COLUMNS[:2]:
        if column not in given:
            raise UsageError(f"{where}: no {column}")
    if "\0" in given["content"] + given["style"]:
        raise UsageError(f"{where}: a path with a zero byte")
    changes = {}
    for column, kind in NUMBERS.items():
        if column in given:
            try:
                changes[column] = kind(given[column])
            except ValueError:
                what = "an integer" if kind is int else "a number"
                raise UsageError(f"{where}: {column} is {given[column][:40]!r}, not {what}") from None
    name = given.get("name", "")
    if name and (set(name) & set('/\\:*?"<>|') or not name.isprintable() or name[0] in ".-" or name.lower() == "grid"):
        raise UsageError(f"{where}: {name[:40]!r} cannot be the name of a picture")
    return Row(line, given["content"], given["style"], changes, name)


class Finder:
    """Finds a row's file: as written (from the current folder), beside the list, or in --content_dir / --style_dir."""

    def __init__(self, listing: Path) -> None:
        self.listing = listing
        self.found: dict[tuple[str, Path], Path] = {}

    def __call__(self, cell: str, folder: Path, line: int) -> Path:
        """Raises UsageError if it is nowhere. A list names few files many times, so answers are kept."""
        if (cell, folder) not in self.found:
            for place in (Path(), self.listing.parent, folder):
                if kind_of(place / cell) == "file":
                    self.found[cell, folder] = place / cell
                    break
            else:
                raise UsageError(f"--pairs {self.listing}, line {line}: there is no file {cell[:200]}")
        return self.found[cell, folder]
