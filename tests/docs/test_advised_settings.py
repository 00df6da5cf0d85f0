"""A config's section settings: what it may hold, who reads it, and that the quickstart says the same."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import common
import main
from diffstyle.commands import settings_of
from diffstyle.errors import UsageError
from diffstyle.runs.intervals import read_intervals
from diffstyle.settings import Settings
from diffstyle.zoo.bounds import SETTINGS
from diffstyle.zoo.config import load_config

ROOT = Path(__file__).resolve().parents[2]
ADVISED = load_config("avatars").settings


def test_what_may_be_advised_is_a_setting_of_its_type() -> None:
    defaults = asdict(Settings())
    assert {name: type(defaults[name]) for name in SETTINGS} == {name: kind for name, (kind, _, _) in SETTINGS.items()}
    Settings.of(**ADVISED).check()
    assert {type(ADVISED[name]) for name in ("gamma", "omega")} == {float}  # the YAML says 1 and 0


def test_the_quickstart_says_what_the_config_advises() -> None:
    line = (ROOT / "scripts/quickstart.sh").read_text().split("main.py", 1)[1].replace("\\\n", " ").replace('"$@"', "")
    assert settings_of(main.parse(shlex.split(line))) == Settings.of(**ADVISED)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"gama": 0.3}, "unknown key in settings 'gama' (did you mean gamma?)"),
        ({"gamma": 3}, "gamma is 3, it must be from 0 to 1"),
        ({"t_edit": 1.5}, "t_edit is 1.5, it must be an integer"),
        ([1], "the section settings is [1], it must hold keys and values"),
    ],
)
def test_what_cannot_be_meant_is_one_line(section: Any, said: str, tmp_path: Path) -> None:
    raw = yaml.safe_load((ROOT / "configs/avatars.yml").read_text()) | {"settings": section}
    (tmp_path / "my.yml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UsageError, match=re.escape(said)):
        load_config(tmp_path / "my.yml")


def test_a_figure_takes_what_is_said_else_what_is_advised_else_the_papers() -> None:
    args = common.parser("").parse_args(["--gamma", "0.2", "--mask", "box"])
    advised, paper = (asdict(common.settings_of(args, load_config(name))) for name in ("avatars", "celeba"))
    assert advised == asdict(Settings()) | dict(ADVISED) | {"gamma": 0.2, "mask": "box"}
    assert paper == asdict(Settings()) | dict(common.PAPER) | {"gamma": 0.2, "mask": "box"}


def test_the_embedded_models_intervals_are_of_its_weights() -> None:
    t_edit, t_boost = read_intervals(ROOT / "pretrained/avatars64.pt")
    assert 0 < t_boost < t_edit < 1000


def test_the_steps_of_a_t_edit_sweep_lie_in_the_walk() -> None:
    assert common.spread(Settings.of(**ADVISED)) == [300, 200, 100, 0]
    assert common.spread(Settings(n_gen=50)) == [999, 754, 489, 244, 0]


def test_the_page_begins_with_what_is_advised() -> None:
    page = pytest.importorskip("diffstyle.explore.page", reason="Gradio is not installed (the extra demo)")
    for name, start, steps in (("avatars", Settings.of(**ADVISED), [50, 100, 200]), ("celeba", page.PAPER, list(page.STEPS))):
        answers = page.Answers(SimpleNamespace(model=SimpleNamespace(config=load_config(name))))
        assert answers.start == start and page.steps_of(start) == steps
        assert [answers.steps(solver) for solver in ("ddim", "abm3")] == [steps[0], steps[-1]]
        with page.gr.Blocks(analytics_enabled=False):
            shown = {name: control.value for name, control in page.make_controls(start).items()}
        shown["steps"] = int(shown["steps"])
        assert page.settings_of(start, "", *shown.values()) == start
        assert {field.name for field in fields(Settings)} > set(shown) - {"steps"}
