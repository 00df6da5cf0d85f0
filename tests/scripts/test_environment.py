"""scripts/environment.sh with a stand-in for the venv's Python: what is installed, and how often."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with requirements, and a venv whose pip writes down its arguments and refuses impossible constraints."""
    (tmp_path / "requirements.txt").write_text("torch\n")
    (tmp_path / "requirements-dev.txt").write_text("-r requirements.txt\npytest\n")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$*" >> calls\nfor last; do :; done\n! grep -qs impossible "$last"\n')
    python.chmod(0o755)
    return tmp_path


def installs(checkout: Path, **variables: str) -> list[str]:
    """Which installations `environment requirements.txt` tries, each by what follows -r."""
    (checkout / "calls").unlink(missing_ok=True)
    script = f"set -euo pipefail; . {ROOT}/scripts/environment.sh; environment requirements.txt; [ -x $PYTHON ]"
    done = subprocess.run(["bash", "-c", script], cwd=checkout, env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True)
    calls = (checkout / "calls").read_text().splitlines() if (checkout / "calls").exists() else []
    return [call.split("-r ")[1] for call in calls] + (["failed"] if done.returncode else [])


def test_without_constraints_the_newest_are_installed_once(checkout: Path) -> None:
    assert installs(checkout) == ["requirements.txt"]
    assert installs(checkout) == []
    (checkout / "requirements.txt").write_text("torch\nnumpy\n")
    assert installs(checkout) == ["requirements.txt"]


def test_constraints_are_used_while_they_are_there(checkout: Path) -> None:
    (checkout / "constraints.txt").write_text("torch==2.14.1\n")
    assert installs(checkout) == ["requirements.txt -c constraints.txt"]
    assert installs(checkout) == []
    (checkout / "constraints.txt").unlink()
    assert installs(checkout) == ["requirements.txt"]


def test_versions_that_cannot_be_had_are_replaced_by_the_newest(checkout: Path) -> None:
    (checkout / "constraints.txt").write_text("impossible==1\n")
    assert installs(checkout) == ["requirements.txt -c constraints.txt", "requirements.txt"]
    assert installs(checkout) == []


def test_constraints_of_ones_own_are_not_replaced(checkout: Path) -> None:
    (checkout / "constraints.txt").write_text("torch==2.14.1\n")
    (checkout / "other.txt").write_text("impossible==1\n")
    assert installs(checkout, DIFFSTYLE_CONSTRAINTS="other.txt") == ["requirements.txt -c other.txt", "failed"]
    assert installs(checkout, DIFFSTYLE_CONSTRAINTS="/dev/null") == ["requirements.txt -c /dev/null"]
