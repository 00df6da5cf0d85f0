"""YAML from outside: read whole, within limits, so that no file can stall or fill the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from diffstyle.errors import WorkError
from diffstyle.files import read_text


class PlainLoader(yaml.SafeLoader):
    """YAML's plain types without aliases: nine lines of them can stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: an alias (*NAME); write the value out")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> tuple[yaml.Node | None, Any]:
    """A YAML document: its nodes, which know their lines, and its value. Raises WorkError."""
    text = read_text(path)
    try:
        loader = PlainLoader(text)  # looks for characters that YAML does not allow
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:  # no such date, a list as key ...
        raise WorkError(f"{path}: not a readable YAML file: {error}") from error
