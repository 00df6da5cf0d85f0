"""Laws of planning, on whatever hypothesis comes up with: lists, names, configs, timesteps."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffstyle.errors import UsageError
from diffstyle.runs.config import RunConfig
from diffstyle.runs.inputs import Picture
from diffstyle.runs.names import distinct, fold, picture_names, shorten
from diffstyle.runs.pairs import COLUMNS, read_rows
from diffstyle.runs.plan import Pair, Plan, name_pairs
from diffstyle.settings import Settings
from diffstyle.steps import timestep_grid
from diffstyle.zoo.config import load_config

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=90).filter(
    lambda name: name not in (".", "..") and len(os.fsencode(name)) <= 255
)
# Cells are stripped, so only what survives that is a faithful path.
CELLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: text == text.strip() and text
)
NUMBERS = st.floats(0, 10, allow_nan=False)


def written(text: str | bytes) -> Path:
    handle, name = tempfile.mkstemp(suffix=".csv")
    with os.fdopen(handle, "wb") as f:
        f.write(text if isinstance(text, bytes) else text.encode())
    return Path(name)


@given(st.lists(st.tuples(CELLS, CELLS, st.none() | NUMBERS, st.none() | st.integers(0, 2**63 - 1)), min_size=1), st.randoms())
def test_lists_are_read_as_written(rows: list[tuple[str, str, float | None, int | None]], rng: object) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["seed", "content", "gamma", "style"])
    writer.writerows([["" if seed is None else seed, c, "" if g is None else repr(g), s] for c, s, g, seed in rows])
    path = written(buffer.getvalue())
    try:
        found = read_rows(path)
    finally:
        path.unlink()
    assert [(r.content, r.style, r.changes.get("gamma"), r.changes.get("seed")) for r in found] == rows


@given(st.binary(max_size=300) | st.text(st.sampled_from("content,style\n\"';\t0.1xgam \r\0é"), max_size=200))
def test_any_file_is_read_or_refused_in_one_line(data: bytes | str) -> None:
    path = written(data)
    try:
        rows = read_rows(path)
        assert rows and all(row.content and row.style and row.line > 1 for row in rows)
    except UsageError as error:
        assert str(error).startswith("--pairs") and "\n" not in str(error)
    finally:
        path.unlink()


@given(st.lists(st.tuples(st.sampled_from(["", "a/", "a/b/", "B/"]), NAMES), min_size=1, max_size=12, unique=True))
def test_names_of_pictures_are_distinct_and_short(parts: list[tuple[str, str]]) -> None:
    paths = [Path("root") / folder / name for folder, name in parts]
    assume(len({str(p) for p in paths}) == len(paths))
    names = picture_names(paths, Path("root"))
    assert len({fold(name) for name in names}) == len(names)
    assert all(len(os.fsencode(name)) <= 209 and "/" not in name for name in names)


@given(NAMES)
def test_short_names_stay(name: str) -> None:
    assert shorten(name, 255) == name and len(os.fsencode(shorten(name, 40))) <= 40
    assert distinct([name, name], ["x", "y"])[0] != name


@given(st.lists(NAMES, min_size=1, max_size=5, unique_by=fold), st.lists(NAMES, min_size=1, max_size=5, unique_by=fold),
       st.sampled_from(["flat", "by-style", "by-content"]))  # fmt: skip
def test_files_of_pairs_never_collide(contents: list[str], styles: list[str], layout: str) -> None:
    sides = [[Picture(Path(f"/{side}/{n}"), n, "") for n in names] for side, names in (("c", contents), ("s", styles))]
    cells = [(c, s) for c in sides[0] for s in sides[1]]
    cfg = RunConfig(Path(), Path(), Path(), Settings(), layout=layout)
    pairs = name_pairs(cfg, cells, [()] * len(cells), [f"content_{c.name}_style_{s.name}" for c, s in cells])
    files = [name for pair in pairs for name in (pair.name, pair.result_name)]
    assert len({fold(name) for name in files}) == 2 * len(cells)
    assert not {fold(name) for name in files} & {"grid.png", "run.json", "index.html"}
    assert all(len(os.fsencode(part)) <= 255 for name in files for part in name.split("/"))


SCALARS = st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=True) | st.text(max_size=8)
VALUES = SCALARS | st.lists(st.integers(-1, 9), max_size=4) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
KEYS = st.sampled_from(["dataset", "category", "image_size", "type", "ch", "ch_mult", "num_res_blocks", "attn_resolutions",
                        "beta_start", "num_diffusion_timesteps", "beta_schedule", "class_cond", "Ch", "x"])  # fmt: skip
SECTIONS = st.sampled_from(["data", "model", "diffusion", "sampling", "checkpoint", "modle"])


@settings(max_examples=300)
@given(st.dictionaries(SECTIONS, VALUES | st.dictionaries(KEYS, VALUES, max_size=5), max_size=4) | VALUES)
def test_any_config_is_read_or_refused_in_one_line(content: object) -> None:
    path = written(yaml.safe_dump(content)).rename(Path(tempfile.mkdtemp()) / "x.yml")
    try:
        config = load_config(path)
        assert config.image_size > 0 and config.timesteps > 0
    except UsageError as error:
        assert "\n" not in str(error) and "x.yml" in str(error)
    finally:
        path.unlink()
        path.parent.rmdir()


GOOD: dict[str, dict[str, object]] = {
    "data": {"dataset": "CelebA_HQ", "image_size": 8},
    "model": {"type": "ddpm", "ch": 32, "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": []},
    "diffusion": {"beta_start": 1e-4, "beta_end": 0.02, "num_diffusion_timesteps": 1000},
}
ODD = VALUES | st.sampled_from([float("inf"), float("nan"), 1e300, 2**70, "1e-4", 5, 0.5])


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([(part, key) for part, keys in GOOD.items() for key in keys]), ODD, max_size=3),
       st.dictionaries(st.sampled_from(["diffusion", "sampling", "checkpoint"]), ODD, max_size=1))  # fmt: skip
def test_any_change_to_a_good_config_is_read_or_refused(
    changes: dict[tuple[str, str], object], sections: dict[str, object]
) -> None:
    content = {part: dict(keys) for part, keys in GOOD.items()}
    for (part, key), value in changes.items():
        content[part][key] = value
    path = written(yaml.safe_dump({**content, **sections})).rename(Path(tempfile.mkdtemp()) / "x.yml")
    try:
        config = load_config(path)
        assert 0 < config.beta_start < 1 and 0 < config.beta_end < 1 and config.timesteps > 0
    except UsageError as error:
        assert "\n" not in str(error) and "x.yml" in str(error)
    finally:
        path.unlink()
        path.parent.rmdir()


@given(st.integers(2, 1000), st.integers(1, 999))
def test_timesteps(n: int, t_0: int) -> None:
    if n > t_0 + 1:
        with pytest.raises(ValueError, match="do not fit"):
            timestep_grid(n, t_0)
        return
    grid = timestep_grid(n, t_0)
    assert len(set(grid)) == n and grid == sorted(grid) and (grid[0], grid[-1]) == (0, t_0)


@given(n_gen=st.integers(2, 1000), n_inv=st.integers(2, 1000), t_edit=st.integers(0, 1000), t_boost=st.integers(0, 999),
       replace=st.sampled_from([-1, 0, 2, 10, 50, 333]), omega=st.sampled_from([0.0, 0.3]),
       dt_lambda=st.sampled_from([1.0, 0.9985]), variant=st.sampled_from(["official", "paper"]))  # fmt: skip
def test_any_accepted_settings_make_a_plan(
    n_gen: int, n_inv: int, t_edit: int, t_boost: int, replace: int, omega: float, dt_lambda: float, variant: str
) -> None:
    s = Settings(n_gen=n_gen, n_inv=n_inv, t_edit=t_edit, t_boost=t_boost, content_replace_step=replace, omega=omega,
                 dt_lambda=dt_lambda, variant=variant)  # fmt: skip
    s.check()
    steps = s.transfer_plan()
    assert len(steps) == n_gen and steps[0].t == 999 and steps[-1].t_next == -1
    assert all(a.t_next == b.t for a, b in zip(steps, steps[1:], strict=False))
    assert sum(step.h_from is not None for step in steps) <= (n_gen if replace in (-1, 0) else replace)
    assert all(step.h_from is not None for step in steps if step.omega) and all(step.eta in (0, 1) for step in steps)
    assert all(step.dt_lambda == 1 or step.eta == 0 for step in steps)
    assert set(s.kept()) <= {step.t for step in s.inversion_plan()}
    assert 0 <= s.inversion_evaluations(False) <= s.inversion_evaluations() == n_inv - 1


def test_planning_is_linear() -> None:
    """Time a pair of a plan of 40,000 pairs is not much more than of one of 4,000."""

    def seconds(side: int) -> float:
        pictures = [Picture(Path(f"/x/{i}"), f"{i}", f"{i}") for i in range(side)]
        cells = [(c, s) for c in pictures for s in pictures]
        cfg = RunConfig(Path(), Path(), Path(), Settings())
        begin = time.process_time()
        pairs = name_pairs(cfg, cells, [()] * len(cells), [f"content_{c.name}_style_{s.name}" for c, s in cells])
        assert Plan(pictures, pictures, pairs).is_product()
        return (time.process_time() - begin) / len(cells)

    seconds(20)
    assert seconds(200) < 3 * min(seconds(63), seconds(63)) + 1e-5


def test_columns_are_what_the_readme_says() -> None:
    assert COLUMNS == ("content", "style", "gamma", "omega", "seed", "name")
    assert Pair(0, Picture(Path("c"), "c", ""), Picture(Path("s"), "s", ""), "x", "f").result_name == "f/result_x.png"
