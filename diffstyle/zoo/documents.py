"""Small text files from outside, YAML and JSON: read whole, within limits, so that none can stall or fill the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from diffstyle.errors import WorkError
from diffstyle.files import check_regular

LARGEST = 256 << 10  # bytes; a config has 1 kB


class PlainLoader(yaml.SafeLoader):
    """YAML's plain types without aliases: nine lines of them can stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: an alias (*NAME); write the value out")
        return super().compose_node(parent, index)


def read_text(path: Path) -> str:
    """The text of a small regular file in UTF-8. Raises WorkError."""
    size = check_regular(path)
    if not 0 < size <= LARGEST:
        raise WorkError(f"{path}: has {size} bytes, a text of 1 to {LARGEST} was expected")
    try:
        with path.open("rb") as file:
            return file.read(LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkError(f"{path}: not readable: {error}") from error


def read_yaml(path: Path) -> tuple[yaml.Node | None, Any]:
    """A YAML document: its nodes, which know their lines, and its value. Raises WorkError."""
    text = read_text(path)
    try:
        loader = PlainLoader(text)  # looks for characters that YAML does not allow
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:  # no such date, a list as key ...
        raise WorkError(f"{path}: not a readable YAML file: {error}") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises WorkError."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise WorkError(f"{path}: not readable as JSON ({error})") from error
