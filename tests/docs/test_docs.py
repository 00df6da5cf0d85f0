"""What the documents say runs as it stands: their code blocks are executed, their links lead somewhere."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import diffstyle
import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "pretrained/README.md"])


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def execute(page: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a page's Python blocks one after the other, from the repository's folder as a reader would.

    In 5 steps where they say 50, or leave it to the model's own settings.
    """

    def load(*args: Any, **more: Any) -> diffstyle.Model:
        model = real_load(*args, **more)
        settings = {**model.config.settings, "n_inv": 5, "n_gen": 5}
        return replace(model, config=replace(model.config, settings=settings))

    real_load = diffstyle.load
    monkeypatch.setattr(diffstyle, "load", load)
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for block in blocks(page):
        exec(compile(re.sub(r"\b50\b", "5", block), page, "exec"), names)
    return names


def test_the_method_in_sixty_lines_is_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    names = execute("docs/method.md", monkeypatch)
    settings = {"gamma": names["GAMMA"], "t_edit": names["T_EDIT"], "n_inv": names["N"], "n_gen": names["N"]}
    ours = diffstyle.stylize(names["model"], names["CONTENT"], names["STYLE"], **settings)[0]
    torch.testing.assert_close(names["result"], ours, rtol=0, atol=1e-3)
    (block,) = blocks("docs/method.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 60


def test_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    results = execute("README.md", monkeypatch)["results"]
    assert [tuple(x.shape) for x in results] == 3 * [(1, 1, 3, 64, 64)]
    assert (results[0] - results[-1]).abs().max() > 0.05  # gamma does something


def test_the_api_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    names = execute("docs/api.md", monkeypatch)
    assert names["x"].shape == (1, 1, 3, 64, 64) and names["x"].isfinite().all()
    named = {name.split("(")[0] for name in re.findall(r"^\| `(\w+)", (ROOT / "docs/api.md").read_text(), flags=re.MULTILINE)}
    assert named == {*diffstyle.__all__, "__version__"}


def test_the_method_of_a_benchmark_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"n_inv": 3, "n_gen": 3, "content_replace_step": 3}
    method = execute("docs/coming_from.md", monkeypatch)["Method"](**few)
    x = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    assert method(*x).shape == (2, 3, 64, 64) and method(*x).abs().max() <= 1


@pytest.mark.parametrize("page", [p for p in PAGES if p.exists()], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
    for target in re.findall(r"`((?:docs|configs|scripts|diffstyle|models|tests|benchmarks|pretrained)/[\w./-]+\.\w+)`", text):
        assert (ROOT / target).exists(), f"{page.name}: {target}"


def flag_table() -> str:
    """The parser's own flags as Markdown, group by group."""
    lines = []
    for group in main.build_parser()._action_groups:
        shown = [a for a in group._group_actions if a.help != argparse.SUPPRESS and a.option_strings]
        if not shown or group.title == "options":
            continue
        lines += [f"### {group.title}", "", "| flag | default | what |", "|---|---|---|"]
        for action in shown:
            flags = ", ".join(f"`{name}`" for name in action.option_strings) + (f" {action.metavar}" if action.metavar else "")
            plain = isinstance(action.default, bool) or action.default in (None, "", [], (), argparse.SUPPRESS)
            cells = (flags, "" if plain else f"`{action.default}`", str(action.help).replace("%%", "%"))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def test_the_flag_table_is_the_parsers() -> None:
    page = ROOT / "docs/command-line.md"
    head, marker, _ = page.read_text(encoding="utf-8").partition("writes it anew).\n\n")
    wanted = head + marker + flag_table()
    if os.environ.get("FLAGS") == "write":
        page.write_text(wanted, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == wanted
