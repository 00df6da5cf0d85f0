"""The Dockerfile, which cannot be built here: what it names exists, and its page uses what it offers."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTRUCTIONS = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with its arguments in one line."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, rest in (line.split(maxsplit=1) for line in whole.splitlines())]


def copied() -> list[str]:
    return [path for word, rest in instructions() if word == "COPY" for path in rest.split()[:-1]]


def test_every_file_that_it_copies_exists_and_reaches_the_build() -> None:
    assert {word for word, _ in instructions()} <= INSTRUCTIONS and instructions()[1][0] == "FROM"
    rules = [rule for rule in (ROOT / ".dockerignore").read_text().splitlines() if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    for path in copied():
        assert (ROOT / path).exists(), path
        assert f"!{path}" in rules, f"{path} is ignored"
    for rule in rules:
        assert not rule.startswith("!") or rule[1:] in copied(), f"{rule} lets in what nobody copies"


def test_it_has_what_the_package_is_built_of() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    named = [*re.findall(r'"([\w.]+\.(?:md|txt))"', settings), "LICENSE", "main.py", "diffstyle"]
    named += re.findall(r'"diffstyle\.\w+" = "(\w+)"', settings)  # folders that become packages
    assert {"README.md", "requirements.txt", "models", "configs", "pretrained"} <= set(named)
    for name in named:
        assert any(fnmatch(path, f"{name}*") for path in copied()), name


def test_requirement_files_are_there_before_they_are_read() -> None:
    there: set[str] = set()
    read: list[str] = []
    for word, rest in instructions():
        if word == "COPY":
            there |= set(rest.split()[:-1])
        for file in re.findall(r"-[rc] (\S+)", rest) if word == "RUN" else ():
            read.append(file)
            assert file in there
    assert set(read) == {"requirements.txt", "constraints.txt"}


def test_arguments_are_declared_and_the_command_is_the_package_s() -> None:
    declared = {rest.split("=")[0] for word, rest in instructions() if word == "ARG"}
    used = {name for _, rest in instructions() for name in re.findall(r"\$\{?(\w+)", rest)}
    assert used == declared
    page = (ROOT / "docs/docker.md").read_text()
    assert set(re.findall(r"--build-arg (\w+)=", page)) == declared
    (entry,) = (json.loads(rest) for word, rest in instructions() if word == "ENTRYPOINT")
    assert re.search(rf"^{entry[0]} = ", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    flags = set(re.findall(r"--\w+", page.split("  diffstyle ")[1].split("\n```")[0]))
    assert flags <= set(re.findall(r'"(--\w+)"', (ROOT / "main.py").read_text()))
