"""scripts/intervals.py: P_t from the walk is the network's, thresholds are met, and the table beside the checkpoint is read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import intervals
import pytest
import torch
import yaml

import main
from diffstyle.diffusion import predict_x0
from diffstyle.errors import UsageError, WorkError
from diffstyle.figures import feature_networks, metrics
from diffstyle.files import file_hash
from diffstyle.runs.intervals import intervals_file, read_intervals
from diffstyle.sampling import timestep
from golden_models import ARCHITECTURES, GOLDEN, golden_model


def rms(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).square().mean((1, 2, 3)).sqrt()


RULE = intervals.Rule("rms", rms, 0.33, 0.1)


@pytest.mark.parametrize("n_inv", [5, 50])
def test_P_t_is_that_of_the_network(n_inv: int) -> None:
    """Against one more evaluation at each step of a walk made here."""
    model = golden_model("ddpm")
    x0 = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    points = intervals.distances(model, x0, RULE, n_inv, 1)
    x = x0.contiguous(memory_format=torch.channels_last)
    for point, t_next in zip(points, [*(p.t for p in points[1:]), 999], strict=True):
        with torch.inference_mode():
            eps = model.unet(x, timestep(point.t, x))
        P, abar = predict_x0(x, eps, model.schedule(point.t)), model.schedule(t_next)
        assert point.P_t == pytest.approx(rms(P, x0).mean().item(), rel=2e-2, abs=1e-4)  # the random network is chaotic
        assert point.x_t == pytest.approx(rms(x, x0).mean().item(), rel=2e-2, abs=1e-4)
        x = abar**0.5 * P + (1 - abar) ** 0.5 * eps


def test_predicted_solves_one_step_exactly() -> None:
    P, eps = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    x, x_next = (abar**0.5 * P + (1 - abar) ** 0.5 * eps for abar in (0.9, 0.7))
    torch.testing.assert_close(intervals.predicted(x, x_next, 0.9, 0.7), P)


def test_the_first_t_at_or_above_a_threshold() -> None:
    points = [intervals.Point(t, t / 100, 0) for t in range(0, 100, 20)]
    assert intervals.first(points, 0.4) == 40 and intervals.first(points, 0.41) == 60
    with pytest.raises(WorkError, match="never"):
        intervals.first(points, 2)


@pytest.fixture
def argv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tiny model with a checkpoint of its own, and pixels in place of EfficientNet-Lite0."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(feature_networks, "lite0", Pixels)
    shutil.copy(GOLDEN / "ddpm/model.pt", tmp_path / "model.pt")
    model = {"type": "ddpm", **ARCHITECTURES["ddpm"]}
    data = {"dataset": "CelebA_HQ", "image_size": 32}
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump({"data": data, "model": model}))
    return ["--config", str(tmp_path / "tiny.yml"), "--model_path", str(tmp_path / "model.pt"), "--n_inv", "5", "--device", "cpu",
            "--images", str(GOLDEN / "images"), "--out", str(tmp_path / "out")]  # fmt: skip


class Pixels:
    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        return metrics.filter_bank(x)


def test_the_table_is_written_and_read(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert intervals.main(argv) == 0
    record = json.loads((tmp_path / "model.intervals.json").read_text())
    found = read_intervals(tmp_path / "model.pt")
    assert found == (record["t_edit"], record["t_boost"])
    reached = [t for t, distance, _ in record["table"] if distance >= record["thresholds"]["t_edit"]]
    assert found[0] == min(reached) and found[1] <= found[0]
    assert record["thresholds"]["t_edit"] == pytest.approx(3 * record["thresholds"]["t_boost"])
    printed = capsys.readouterr().out
    assert "LPIPS: n/a, " in printed and f"t_edit {found[0]} " in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"intervals.csv", "intervals.png", "intervals.pdf"}


def test_what_is_missing_or_of_other_weights_is_told(argv: list[str], tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pt"
    with pytest.raises(UsageError, match=r"model\.intervals\.json is missing; make it with python scripts/intervals\.py"):
        read_intervals(checkpoint)
    intervals_file(checkpoint).write_text('{"t_edit": 400}')
    with pytest.raises(UsageError, match="cannot be read"):
        read_intervals(checkpoint)
    intervals_file(checkpoint).write_text('{"t_edit": 400, "t_boost": 200, "sha256": "0"}')
    with pytest.raises(UsageError, match="other weights"):
        read_intervals(checkpoint)


TABLE: dict[str, object] = {"t_edit": 400, "t_boost": 200, "sha256": file_hash(GOLDEN / "ddpm/model.pt")}
HOSTILE: dict[str, str] = {
    "deep": "[" * 100_000,
    "sparse": "",
    "a list": "[1, 2]",
    **{f"t_edit {t}": json.dumps(TABLE).replace("400", t) for t in ("true", "400.7", '"400"', "-1", "1e30", "Infinity", "10000")},
}


@pytest.mark.parametrize("kind", [*HOSTILE, "pipe", "device", "folder"])
def test_a_table_that_the_script_has_not_written(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, place = tmp_path / "model.pt", tmp_path / "model.intervals.json"
    shutil.copy(GOLDEN / "ddpm/model.pt", checkpoint)
    place.write_text(json.dumps(TABLE))
    assert read_intervals(checkpoint) == (400, 200)
    place.unlink()
    makers = {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}
    makers.get(kind, lambda path: path.write_text(HOSTILE[kind]))(place)
    if kind == "sparse":
        os.truncate(place, 5 << 20)
    if kind in ("pipe", "device", "sparse"):
        monkeypatch.setattr(Path, "read_text", lambda *_: pytest.fail("this is read as a whole"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_intervals(checkpoint)


def test_the_table_replaces_no_picture(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(GOLDEN / "images/contents", out)
    picture = (out / "content_a.png").rename(out / "intervals.png")
    before = picture.read_bytes()
    assert intervals.main([*argv, "--images", str(out)]) == 2
    assert "intervals.png: it is read, and would be written over" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_wrong_use_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert intervals.main([*argv, "--n_inv", "1"]) == 2
    assert intervals.main([*argv, "--n_images", "1"]) == 2
    assert intervals.main([*argv, "--images", "/nowhere"]) == 2
    assert intervals.main([*argv, "--n_inv", "1001"]) == 2
    assert intervals.main([*argv, "--lpips_heads", "/nowhere"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_auto_reads_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--t_edit auto and --t_boost auto: the checkpoint's own, or one line where there are none or other weights."""
    (tmp_path / "m.pt").write_bytes((GOLDEN / "trained/adm/model.pt").read_bytes())
    pictures = [str(GOLDEN / "trained/images" / side) for side in ("contents", "styles")]
    argv = ["--config", str(GOLDEN / "trained/adm.yml"), "--model_path", str(tmp_path / "m.pt"), "--dry_run", "--device", "cpu"]
    argv += ["--content_dir", pictures[0], "--style_dir", pictures[1], "--t_edit", "auto"]
    assert main.main(argv) == 2 and "m.intervals.json is missing" in capsys.readouterr().err
    record = {"t_edit": 321, "t_boost": 45, "sha256": file_hash(tmp_path / "m.pt")}
    (tmp_path / "m.intervals.json").write_text(json.dumps(record))
    assert main.main([*argv, "--t_boost", "auto"]) == 0
    said = json.loads(capsys.readouterr().out.split("}")[0] + "}")
    assert (said["t_edit"], said["t_boost"]) == (321, 45)
    (tmp_path / "m.intervals.json").write_text(json.dumps({**record, "sha256": "0"}))
    assert main.main(argv) == 2 and "other weights" in capsys.readouterr().err
