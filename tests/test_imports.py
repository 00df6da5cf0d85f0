"""Who may import whom: the table of the house, held by every module. So imports point one way and no cycle can form."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "diffstyle"

# module -> what it may import of ours; the first pattern that fits a module counts.
TABLE = {
    "errors": "",
    "version": "",
    "diffusion": "",
    "noise": "",
    "steps": "",
    "files": "errors",
    "console": "errors",
    "flags": "",
    "models.*": "models.*",
    "configs.*": "",
    "hspace": "models.*",
    "masks": "errors files images",
    "images": "errors files",
    "solvers": "diffusion steps models.*",
    "sampling": "diffusion hspace solvers steps models.*",
    "settings": "errors hspace solvers steps",
    "model": "diffusion steps models.*",
    "pipeline": "model models.* settings sampling hspace masks noise solvers steps",
    "zoo.*": "zoo.* model diffusion steps errors files models.* configs.*",
    "runs.*": "runs.* pipeline model settings steps noise masks images files errors version configs.*",
    "figures.*": "figures.* runs.* pipeline model settings sampling steps noise images files errors models.*",
    "api": "zoo.* pipeline model settings images files errors",
    "explore.*": "explore.* runs.* zoo.* pipeline model settings solvers images files errors",
    "commands": "*",
    "__main__": "commands settings console errors flags version",
    "__init__": "api pipeline model settings errors version",
}
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for folder in (PACKAGE, *(PACKAGE / name for name in ("models", "configs", "zoo", "runs", "figures", "explore")))
    for path in folder.glob("*.py")
)


def imports(module: str) -> set[str]:
    """What a module of ours imports of ours, without the leading "diffstyle."."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            # "from diffstyle.zoo import entries" names a module, "from diffstyle.model import Model" does not.
            each = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name.removeprefix("diffstyle.") in MODULES else node.module for name in each}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    ours = {name for name in found if name.split(".")[0] in {"diffstyle", "models", "configs", "main", "scripts", "benchmarks"}}
    return {name.removeprefix("diffstyle.") for name in ours}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_the_table_allows(module: str) -> None:
    rule = next((allowed for pattern, allowed in TABLE.items() if fnmatch(module, pattern)), None)
    assert rule is not None, f"{module} stands in no row of the table"
    for name in imports(module):
        package = f"{name}.__init__"
        fits = any(fnmatch(name, pattern) or fnmatch(package, pattern) for pattern in rule.split())
        assert fits, f"{module} imports {name}"


def test_there_is_no_cycle() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join((*trail, name))}"
        if name not in done and name in MODULES:
            for below in imports(name):
                visit(below, (*trail, name))
            done.add(name)

    for module in MODULES:
        visit(module, ())
