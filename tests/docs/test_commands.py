"""Every command that a document names goes through its parser and, with main.py, its plan: all that it names is understood.

In full they run elsewhere (tests/scripts, tests/figures, tests/runs, tests/explore, tests/test_package.py), or take hours.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "pretrained/README.md")),
         *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip
SCRIPTS = sorted(
    [*(ROOT / "scripts").glob("*.py"), *(ROOT / "scripts/figures").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
)
PROGRAMS = "python|bash|pip|diffstyle|torchrun|docker"
FOLDERS = ("faces", "styles", "paintings", "contents", "my/faces", "my/paintings", "my/styles", "my/dogs")


class Understood(BaseException):
    """A parser took its arguments."""


def of_page(page: Path) -> Iterator[str]:
    """The commands in a page's shell blocks, then those in its sentences."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    yield from (" ".join(words.split()) for words in re.findall(rf"`((?:\w+=\S+ |\.venv/bin/)*(?:{PROGRAMS}) [^`]+)`", prose))


def of_docstring(script: Path) -> Iterator[str]:
    """The commands in a script's docstring."""
    doc = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    yield from re.findall(r"^ *((?:python|bash) .*)$", doc.replace("\\\n", " "), flags=re.MULTILINE)


def simple(lines: Iterator[str]) -> list[str]:
    """One command a line, without comments."""
    found = []
    for line in lines:
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        found += [text] if text.startswith("{") else text.split(" && ")
    return [text for text in found if text]


COMMANDS = [(str(file.relative_to(ROOT)), command) for file in PAGES for command in simple(of_page(file))]
COMMANDS += [(str(file.relative_to(ROOT)), command) for file in SCRIPTS for command in simple(of_docstring(file))]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader stands: the repository's folders, and pictures under the names that the documents use for the reader's."""
    here = tmp_path
    monkeypatch.chdir(here)
    for name in ("scripts", "benchmarks", "configs", "test_images", "tests", "main.py"):
        (here / name).symlink_to(ROOT / name)
    for name in FOLDERS:
        (here / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(here / name / "1.png")
    (here / "pairs.csv").write_text("content,style\nfaces/1.png,styles/1.png\n")
    return here


@pytest.fixture(autouse=True)
def stop_at_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    real = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, args: list[str] | None = None, namespace: None = None) -> argparse.Namespace:
        found = real(self, args, namespace)
        if self.prog == "main.py":
            return found
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)


def by_main(words: list[str]) -> None:
    """main.py's plan where the pictures are named and the network needs no download; else its flags."""
    named = "--pairs" in words or {"--content_dir", "--style_dir"} <= set(words)
    if not named or "--model_path" in words or "--explore" in words:
        main.parse(words)
    else:
        assert main.main([*words, "--dry_run", "--no_download", "--device", "cpu", "--verbose", "warning"]) == 0


def by_script(path: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script's own parser; one without flags is only there."""
    module = importlib.import_module(Path(path).stem)
    assert Path(str(module.__file__)).resolve() == (ROOT / path).resolve()
    if path == "benchmarks/memory.py":
        assert not words and callable(module.main)
        return
    monkeypatch.setattr("sys.argv", [path, *words])
    with pytest.raises(Understood):
        module.main(*([words] if inspect.signature(module.main).parameters else []))


def by_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[:2] == ["-m", "pytest"]:
        assert all(Path(word).exists() for word in words[2:] if not word.startswith("-"))
    elif words[0] == "main.py":
        by_main(words[1:])
    elif words[0] == "tests/fuzz/kills.py":
        assert {"--kills"} >= set(words[1::2]) and '"--kills"' in Path(words[0]).read_text()
    else:
        by_script(words[0], words[1:], monkeypatch)


def by_bash(words: list[str]) -> None:
    """It is there and can be read; the recipes and the environment have tests of their own."""
    names = (words[0], f"scripts/{words[0]}")  # the official script is called from its own folder
    script = next(Path(name) for name in names if Path(name).exists())
    subprocess.run(["bash", "-n", script], check=True)
    assert all(Path(word).exists() for word in words[1:] if "/" in word)


def by_pip(words: list[str]) -> None:
    """A package that the metadata names, or ours with an extra that there is."""
    metadata = (ROOT / "pyproject.toml").read_text()
    assert words[0] == "install"
    wanted = words[-1] if len(words) > 1 else "."
    if extra := re.search(r"\[(\w+)\]$", wanted):
        assert re.search(rf"^{extra[1]} = \[", metadata, flags=re.MULTILINE)
    else:
        assert wanted == "." or f'"{re.split("[<>=]", wanted)[0]}' in metadata + (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("where", "command"), COMMANDS, ids=[f"{where}: {command[:60]}" for where, command in COMMANDS])
def test_a_command_is_understood(where: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.startswith(("{ ", "export ")):
        subprocess.run(["bash", "-ec", command], check=True)
        assert "pairs.csv" not in command or Path("pairs.csv").read_text() == "content,style\n1.png,1.png\n"
        return
    words = [word for word in shlex.split(command) if word != "..."]
    while re.fullmatch(r"\w+=.*", words[0]):
        words.pop(0)
    program = words.pop(0).removeprefix(".venv/bin/")
    if program == "docker" and words[0] == "build":
        return  # tests/scripts/test_docker.py
    if program == "docker":
        by_main(words[words.index("diffstyle") + 1 :])
    elif program == "torchrun":
        by_python(words[next(i for i, word in enumerate(words) if word.endswith(".py")) :], monkeypatch)
    elif program == "python":
        by_python(words, monkeypatch)
    elif program == "diffstyle":
        by_main(words)
    else:
        {"bash": by_bash, "pip": by_pip}[program](words)


@pytest.mark.parametrize("place", ["scripts/figures", "benchmarks"])
def test_scripts_find_what_they_import_of_other_scripts(place: str) -> None:
    """Python looks in a script's own folder, where links of the same names lie."""
    for path in (ROOT / place).glob("*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (node.module for node in tree if isinstance(node, ast.ImportFrom)):
            assert not (ROOT / f"scripts/{name}.py").exists() or (ROOT / place / f"{name}.py").exists(), f"{path.name}: {name}"


def test_there_are_commands_on_every_page_that_should_have_some() -> None:
    counted = {page: sum(where == page for where, _ in COMMANDS) for page, _ in COMMANDS}
    assert counted["README.md"] >= 5 and counted["docs/checkpoints.md"] >= 12 and counted["benchmarks/README.md"] >= 4
    assert len(COMMANDS) > 80
