"""scripts/measure_budgets.py and --nfe auto: what is measured is what is taken."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure_budgets
import measuring
import pytest
import torch
from gaussian import Gaussian
from numpy import quantile

import diffstyle
import main
from diffstyle.errors import UsageError
from diffstyle.files import file_hash
from diffstyle.model import Model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.grids import fewest, grid_file, read_grid
from golden_models import golden_config, golden_model

MODEL: Model = replace(golden_model("ddpm"), unet=Gaussian(), config=replace(golden_config("ddpm"), image_size=8))
PICTURES = Path("test_images/avatars/contents")


def test_the_numbers_are_those_of_the_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the public functions, pair by pair: each picture in the style of the one before it."""
    monkeypatch.setattr(measure_budgets, "BUDGETS", (6, 30))
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = []
    for nfe in (6, 30):
        psnrs = []
        for content, style in ((1, 0), (2, 1), (0, 2)):
            walks: list[dict[str, Any]] = [{}, {"solver": "abm3", "nfe": nfe}]
            pair = x[content : content + 1], x[style : style + 1]
            a, b = (diffstyle.stylize(MODEL, *pair, gamma=0.4, n_inv=1000, n_gen=1000, **more) for more in walks)
            rms = (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean().sqrt()
            psnrs.append(float(20 * torch.log10(2 / rms)))
        expected.append(quantile(psnrs, 0.1))
    nfes, found = measure_budgets.measured(MODEL, x, 0.4, batch_size=2)
    assert nfes == [6, 30] and found == pytest.approx(expected, abs=0.051) and found[1] > found[0] + 5


def test_what_is_written_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole script, then the command that reads what it wrote; another grid forgets it."""
    config = tmp_path / "mine.yml"
    config.write_bytes(Path("configs/custom.yml").read_bytes())
    argv = ["--config", str(config), "--images", str(PICTURES), "--n_images", "3"]
    monkeypatch.setattr(measuring, "load", lambda *_: MODEL)
    monkeypatch.setattr(measure_budgets, "measured", lambda *_: ([10, 20, 30, 40], [38.0, 45.5, 44.0, 50.5]))
    assert measure_budgets.main(argv) == 0
    assert "20 evaluations: 45.5 dB" in capsys.readouterr().out
    record = json.loads(grid_file(config).read_text())
    assert record["pairs"] == 3 and record["sha256"] == MODEL.digest
    assert load_config(config).grid == MODEL.config.grid  # the usual one: no other was searched
    for tolerance, nfe in (([], 40), (["--tolerance", "46"], 40), (["--tolerance", "38"], 10), (["--tolerance", "44"], 20)):
        command = ["--config", str(config), "--content_dir", str(PICTURES), "--style_dir", str(PICTURES), "--solver", "abm3"]
        assert main.main([*command, "--save_dir", f"{tmp_path}/out", "--dry_run", "--nfe", "auto", *tolerance]) == 0
        said = capsys.readouterr()
        assert f'"nfe": {nfe}\n' in said.out and f"--nfe auto: {nfe} evaluations\n" in said.err
    assert main.main([*command, "--save_dir", f"{tmp_path}/out", "--nfe", "auto", "--tolerance", "51"]) == 2
    assert capsys.readouterr().err == (
        "error: --tolerance 51.0: 40 evaluations, the most that were measured, reach 50.5 dB; "
        "use that or less, or --solver ddim\n"
    )
    grid_file(config).write_text(json.dumps({**record, "sha256": "0" * 64}))
    assert measure_budgets.main(argv) == 2
    assert "is of other weights than" in capsys.readouterr().err
    shutil.rmtree(grid_file(config).parent)
    assert main.main([*command, "--save_dir", f"{tmp_path}/out", "--nfe", "auto"]) == 2
    assert capsys.readouterr().err.startswith("error: --nfe auto: how many evaluations mine needs is not known; give a number")


def test_a_budget_serves_only_if_all_larger_ones_do() -> None:
    config = replace(MODEL.config, budgets=((10, 38.0), (20, 45.5), (30, 44.0), (40, 50.5)))
    assert [fewest(config, t) for t in (-5, 38, 38.1, 44, 44.1, 50.5)] == [10, 10, 20, 20, 40, 40]
    for tolerance in (50.6, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"reach 50\.5 dB"):
            fewest(config, tolerance)


@pytest.mark.parametrize(("nfe", "psnr", "said"), [
    ([20, 10], [40, 45], "nfe must be"),
    ([10, 20.5], [40, 45], "nfe must be"),
    ([0, 20], [40, 45], "nfe must be"),
    ([10, 2000], [40, 45], "nfe must be"),
    ("ab", [40, 45], "nfe must be"),
    ([], [40, 45], "nfe must be"),
    ([10, 20], [40], "psnr must be"),
    ([10, 20], [40, None], "psnr must be"),
    ([10, 20], [40, float("nan")], "psnr must be"),
])  # fmt: skip
def test_bad_budgets_are_refused_in_one_line(nfe: object, psnr: object, said: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.yml"
    (tmp_path / "grids").mkdir()
    grid_file(config).write_text(json.dumps({"t": [0, 999], "share": [0, 1], "nfe": nfe, "psnr": psnr}))
    with pytest.raises(UsageError, match=said) as caught:
        read_grid(config, 1000)
    assert "\n" not in str(caught.value)


def test_the_embedded_model_has_budgets() -> None:
    path = grid_file(Path("configs/avatars.yml"))
    assert json.loads(path.read_text())["sha256"] == file_hash(Path("pretrained/avatars64.pt"))
    assert [fewest(load_config("avatars.yml"), near) for near in (40, 45, 50)] == [24, 36, 100]  # as docs/speed.md says


@pytest.mark.parametrize("arguments", [
    "--images nowhere", f"--images {PICTURES} --n_images 1", f"--images {PICTURES}/007.png", f"--images {PICTURES} --config no",
])  # fmt: skip
def test_wrong_usage_is_one_line(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_budgets.main(arguments.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_more_evaluations_are_never_said_to_be_worse() -> None:
    assert measure_budgets.rising([28, 37.5, 39.5, 37.5, 40.5]) == [28, 37.5, 38.5, 38.5, 40.5]
    assert measure_budgets.rising([3, 2, 1, 5, 4]) == [2, 2, 2, 4.5, 4.5] and measure_budgets.rising([]) == []
