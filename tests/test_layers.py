"""Imports point down only (the house plan), so no module can reach one above it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FREE = {"diffusion", "steps", "errors", "masks", "noise", "images", "latents", "device"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in {"diffstyle", "models", "scripts", "benchmarks", "main", "configs"}}


def test_networks_know_nothing_of_the_method() -> None:
    for path in (ROOT / "models").glob("*.py"):
        assert all(name.startswith("models") for name in imports(path)), path


def test_foundations_import_nothing_above_them() -> None:
    for name in FREE:
        allowed = {"diffstyle.errors", "diffstyle.images"} - {f"diffstyle.{name}"}
        assert imports(ROOT / "diffstyle" / f"{name}.py") <= allowed, name


def test_there_is_no_cycle_and_no_way_up() -> None:
    graph = {f"diffstyle.{p.stem}": imports(p) for p in (ROOT / "diffstyle").glob("*.py") if p.stem != "__init__"}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join((*trail, name))}"
        assert name.split(".")[0] not in {"main", "scripts", "benchmarks"}, f"{trail[-1]} imports {name}"
        if name in done or name not in graph:
            return
        for below in graph[name]:
            visit(below, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())
    assert "diffstyle.run" not in set().union(*(v for k, v in graph.items() if k not in {"diffstyle.sweep", "diffstyle.report"}))
