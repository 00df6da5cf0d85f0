"""The recipes: what their headers promise is what main.py plans, and the debiasing list makes its pictures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cli_tools import QUICK, words_of

import main
from diffstyle.images import read_record
from golden_models import ARCHITECTURES, GOLDEN

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted([*(ROOT / "scripts").glob("recipe_*.sh"), ROOT / "scripts/script_diffstyle.sh"])
ADVICE = {"celeba.yml": "celeba_hq.ckpt", "afhq.yml": "afhq_dog_4m.pt", "ffhq.yml": "ffhq_10m.pt"}
GFLOP = {"celeba.yml": 497, "afhq.yml": 388, "ffhq.yml": 388}


def number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_header_says_what_the_recipe_does(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = " ".join(line.lstrip("# ") for line in recipe.read_text().split("\n\n")[0].splitlines())
    words = words_of(recipe, tmp_path, "--save_dir", str(tmp_path / "out"))
    config = words[words.index("--config") + 1]
    saved = next(line for line in recipe.read_text().splitlines() if line.startswith("save_dir="))
    assert saved == f'save_dir="./results/{recipe.stem}"' and f"Out: results/{recipe.stem}/" in header.replace("  ", " ")
    assert ADVICE[config] in header

    evaluations = []
    for solver in ("ddim", "abm3"):
        assert main.main([*words, "--solver", solver, "--dry_run", "--device", "cpu"]) == 0
        evaluations.append(int(re.findall(r"(\d+) network evaluations", capsys.readouterr().out)[0]))
    said = re.search(r"([\d,]+) evaluations of (\d+) GFLOP, ([\d.]+) PFLOP.*?([\d,]+) evaluations", header)
    assert said
    assert number(said[1]) == pytest.approx(evaluations[0], rel=0.03)
    assert number(said[4]) == pytest.approx(evaluations[1], rel=0.03)
    assert int(said[2]) == GFLOP[config]
    assert number(said[3]) == pytest.approx(evaluations[0] * GFLOP[config] / 1e6, rel=0.03)


def small_model(tmp_path: Path) -> list[str]:
    config = tmp_path / "tiny.yml"
    model = {"type": "ddpm", **ARCHITECTURES["ddpm"]}
    config.write_text(yaml.safe_dump({"data": {"dataset": "CUSTOM", "image_size": 32}, "model": model}))
    weights = GOLDEN / "ddpm/model.pt"
    return ["--config", str(config), "--model_path", str(weights), "--cache_dir", str(tmp_path / "cache"), *QUICK]


def test_debiasing_makes_every_pair_at_five_strengths(tmp_path: Path) -> None:
    """With folders of one picture each, named by flags; the rows' gamma and t_edit 500 are in the pictures' records."""
    folders = {"content": tmp_path / 'contents, a "class"', "style": tmp_path / "styles"}
    for kind, folder in folders.items():
        folder.mkdir()
        (folder / "one.PNG").write_bytes((GOLDEN / f"images/{kind}s/{kind}_a.png").read_bytes())
        (folder / "notes.txt").write_text("not a picture")
    command = [
        "bash", str(ROOT / "scripts/recipe_debias.sh"), *small_model(tmp_path), f"--content_dir={folders['content']}",
        "--style_dir", str(folders["style"]), "--save_dir", str(tmp_path / "out"),
    ]  # fmt: skip
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    made = [read_record(path) for path in sorted((tmp_path / "out").glob("result_*.png"))]
    assert [record["settings"]["gamma"] for record in made if record] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert {record["settings"]["t_edit"] for record in made if record} == {500}


def test_debiasing_takes_a_list_of_pairs(tmp_path: Path) -> None:
    listing = tmp_path / "mine.csv"
    listing.write_text("content,style\r\na.png,b.png\r\n\r\nc.png,d.png")
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\n")
    stub.chmod(0o755)
    environment = {"PYTHON": str(stub), "PATH": "/usr/bin:/bin", "pairs": str(listing)}
    command = ["bash", str(ROOT / "scripts/recipe_debias.sh"), "--save_dir", str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    rows = (tmp_path / "out/pairs.csv").read_text().split()
    assert rows[:3] == ["content,style,gamma", "a.png,b.png,0.1", "a.png,b.png,0.3"] and rows[-1] == "c.png,d.png,0.9"
    assert len(rows) == 11
