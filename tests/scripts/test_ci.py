"""The workflow, which cannot run here: its steps exist, and the versions that it asks for are those that we promise."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def job() -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["suite"]


def test_it_runs_what_ci_runs_here_on_the_oldest_python(job: dict[str, Any]) -> None:
    commands = [step["run"] for step in job["steps"] if step.get("run", "").startswith("bash")]
    assert [command.split()[1:] for command in commands] == [
        ["scripts/test.sh"], ["scripts/test.sh", "-m", "others"], ["scripts/quickstart.sh"],
    ]  # fmt: skip
    here = (ROOT / ".ci/run").read_text().splitlines()
    assert commands == [line for line in here if line.startswith("bash")]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest and job["strategy"]["matrix"]["python"][0] == oldest[1]


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_its_versions_are_the_lower_bounds_or_free(which: str, job: dict[str, Any], tmp_path: Path) -> None:
    script = next(step["run"] for step in job["steps"] if "versions.txt" in step.get("run", ""))
    (tmp_path / "requirements.txt").write_bytes((ROOT / "requirements.txt").read_bytes())
    environment = {"GITHUB_ENV": "variables", "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-ec", script.replace("${{ matrix.torch }}", which)], cwd=tmp_path, env=environment, check=True)
    bounds = re.findall(r"^(torch\w*)>=(.*)$", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    wanted = [f"{name}=={version}.*" for name, version in bounds] if which == "oldest" else []
    assert (tmp_path / "versions.txt").read_text().split() == wanted and len(bounds) == 2
    assert (tmp_path / "variables").read_text() == "DIFFSTYLE_CONSTRAINTS=versions.txt\n"


def test_the_hooks_are_those_of_the_test_script() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    script = (ROOT / "scripts/test.sh").read_text()
    for hook in local["hooks"]:
        assert hook["entry"].replace("python", '"$PYTHON"', 1) in script
