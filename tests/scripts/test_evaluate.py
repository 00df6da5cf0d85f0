"""scripts/evaluate.py: its numbers are those of figures.metrics on the same files; what is absent is n/a with a reason."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import evaluate
import pytest
import torch
import yaml
from PIL import Image

import main
from diffstyle.figures import feature_networks, measures, metrics
from diffstyle.files import file_hash
from diffstyle.images import load_image
from golden_models import ARCHITECTURES, GOLDEN


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, and out/: a sweep over gamma 0 and 1 of one content and two styles, by the golden DDPM."""
    folder = tmp_path_factory.mktemp("sweep")
    config = folder / "tiny.yml"
    model = {"type": "ddpm", **ARCHITECTURES["ddpm"]}
    config.write_text(yaml.safe_dump({"data": {"dataset": "CelebA_HQ", "image_size": 32}, "model": model}))
    images = GOLDEN / "images"
    argv = [
        "--config", str(config), "--model_path", str(GOLDEN / "ddpm/model.pt"), "--device", "cpu", "--no_cache",
        "--content_dir", str(images / "contents/content_a.png"), "--style_dir", str(images / "styles"),
        "--save_dir", str(folder / "out"), "--n_inv", "3", "--n_gen", "3", "--content_replace_step", "3", "--verbose", "warning",
        "--sweep", "gamma=0,1",
    ]  # fmt: skip
    assert main.main(argv) == 0
    return folder


@pytest.fixture
def sweep(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sweep; hub's cache is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "out"


plot = evaluate.plot


@pytest.fixture(autouse=True)
def drawn_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure costs more than all else here; one test draws it."""
    if request.node.name != "test_numbers_are_those_of_the_metrics":
        monkeypatch.setattr(evaluate, "plot", lambda *_: None)


def command(out: Path) -> list[str]:
    return [str(out), "--config", str(out.parent / "tiny.yml"), "--device", "cpu"]


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "metrics.csv").open()))


def test_numbers_are_those_of_the_metrics(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(command(sweep)) == 0
    rows, images = rows_of(sweep), GOLDEN / "images"
    styles = sorted((images / "styles").glob("*.png"))
    assert [(r["variant"], r["style"]) for r in rows] == [(f"gamma={g}", s.stem) for g in (0, 1) for s in styles]
    assert (sweep / "metrics.png").stat().st_size > 1000
    for row in rows:
        result, content, style = (
            (load_image(path, 32)[None] + 1) / 2
            for path in (
                sweep / row["variant"] / f"result_content_{row['content']}_style_{row['style']}.png",
                images / f"contents/{row['content']}.png", images / f"styles/{row['style']}.png",
            )
        )  # fmt: skip
        assert float(row["ssim_to_content"]) == pytest.approx(metrics.ssim(result, content).item(), rel=1e-6)
        assert float(row["ssim_to_style"]) == pytest.approx(metrics.ssim(result, style).item(), rel=1e-6)
        assert float(row["edges_to_style"]) == pytest.approx(metrics.edge_similarity(result, style).item(), rel=1e-6)
        assert float(row["histogram_to_style"]) == pytest.approx(metrics.histogram_distance(result, style).item(), rel=1e-6)
        gram = metrics.gram_loss(metrics.filter_bank(result), metrics.filter_bank(style)).item()
        assert float(row["gram_to_style_filter_bank"]) == pytest.approx(gram, rel=1e-6)
        if row["variant"] == "gamma=0":
            assert float(row["reconstruction_psnr"]) == pytest.approx(metrics.psnr(result, style).item(), rel=1e-6)
        else:
            assert row["reconstruction_psnr"] == "n/a"
        assert -1 <= float(row["own_bottleneck_to_content"]) <= 1
    at_zero = [float(r["ssim_to_content"]) for r in rows if r["variant"] == "gamma=0"]
    printed = capsys.readouterr().out
    assert f"| ssim_to_content | more | {sum(at_zero) / len(at_zero):.4g} [" in printed


def test_what_is_absent_is_named(sweep: Path) -> None:
    assert evaluate.main([*command(sweep), "--protocol", "all"]) == 0
    table = (sweep / "metrics.md").read_text()
    reasons = {
        "gram_to_style_vgg19": "vgg19", "identity_to_content": "--identity", "lpips_to_style": "LPIPS needs",
        "fid": "--inception", "fid_art": "--art_inception", "artfid": "--art_inception",
    }  # fmt: skip
    for name, reason in reasons.items():
        assert all(row.get(name, "n/a") == "n/a" for row in rows_of(sweep))
        assert any(line.startswith(f"- {name}: n/a, ") and reason in line for line in table.splitlines())


@pytest.mark.parametrize("flag", ["--identity", "--lpips_heads", "--inception", "--art_inception"])
def test_a_named_file_that_is_missing_is_an_error(sweep: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([*command(sweep), flag, str(sweep / "none.pt")]) == 2
    assert capsys.readouterr().err == f"error: {flag} {sweep / 'none.pt'}: no such file\n"


def test_every_picture_is_listed_with_its_digest(sweep: Path) -> None:
    assert evaluate.main(command(sweep)) == 0
    listed = list(csv.DictReader((sweep / "metrics_images.csv").open()))
    assert [row["side"] for row in listed].count("result") == len(rows_of(sweep))
    assert len({row["file"] for row in listed}) == len(listed)
    assert all(row["sha256"] == file_hash(Path(row["file"])) for row in listed)


class Means(torch.nn.Module):
    """Embeds a picture (N, 3, H, W) as the means of its quarters, (N, 12)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def test_the_paper_and_artfid_protocols_on_stand_ins(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means in place of Inception: FID is the Frechet distance of the results to the styles, ArtFID its product with LPIPS."""
    torch.jit.script(Means()).save(str(sweep / "means.pt"))

    def maps(heads: object) -> tuple[metrics.Features, None]:
        return metrics.filter_bank, None

    monkeypatch.setattr(feature_networks, "alex_lpips", maps)
    flags = [f"--{name}={sweep / 'means.pt'}" for name in ("identity", "inception", "art_inception")]
    assert evaluate.main([*command(sweep), "--protocol", "all", *flags]) == 0
    table = {line.split(" | ")[0][2:]: line.split(" | ")[2:4] for line in (sweep / "metrics.md").read_text().splitlines()}
    styles = sorted((GOLDEN / "images/styles").glob("*.png"))
    for i, gamma in enumerate(("0", "1")):
        results = sorted((sweep / f"gamma={gamma}").glob("result_*.png"))
        a, b = (torch.cat([Means()((load_image(p, 32)[None] + 1) / 2) for p in side]) for side in (results, styles))
        art = metrics.frechet(a.double().numpy(), b.double().numpy())
        assert float(table["fid_art"][i].split()[0]) == pytest.approx(art, rel=1e-3)
        lpips = float(table["lpips_to_content"][i].split()[0])
        assert float(table["artfid"][i].split()[0]) == pytest.approx((1 + lpips) * (1 + art), rel=2e-3)
    assert {"fid", "identity_to_content"} <= table.keys()


def test_without_the_model_the_rest_is_measured(sweep: Path) -> None:
    assert evaluate.main([*command(sweep), "--model_path", str(sweep / "nothing.pt")]) == 0
    rows = rows_of(sweep)
    assert {row["gram_to_style_own_encoder"] for row in rows} == {"n/a"}
    assert all(float(row["edges_to_content"]) <= 1 for row in rows)
    assert "nothing.pt" in (sweep / "metrics.md").read_text()


def test_a_missing_result_is_left_out_and_a_broken_one_is_told(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = sorted((sweep / "gamma=1").glob("result_*.png"))
    results[0].unlink()
    results[1].write_bytes(b"no picture")
    assert evaluate.main(command(sweep)) == 1
    assert {row["variant"] for row in rows_of(sweep)} == {"gamma=0"}
    assert capsys.readouterr().err.count("failed: ") == 1


def test_links_in_a_results_folder(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture elsewhere is measured as if it lay there; what else a link leads to is told, and nothing waits for it."""
    assert evaluate.main(command(sweep)) == 0
    results, before = sorted(sweep.glob("*/result_*.png")), rows_of(sweep)
    results[0].rename(tmp_path / "elsewhere.png")
    os.mkfifo(tmp_path / "pipe")
    for result, target in zip(results, ("elsewhere.png", "pipe", "/dev/zero", "nowhere"), strict=True):
        result.unlink(missing_ok=True)
        result.symlink_to(tmp_path / target)
    capsys.readouterr()
    assert evaluate.main(command(sweep)) == 1
    assert rows_of(sweep) == before[:1]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(said) == 2 and all("pipe or device" in line for line in said)


def test_the_report_replaces_nothing_that_is_measured(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A content that lies under the name of a report, reached by a link."""
    path, link = sweep / "gamma=0/run.json", sweep.parent / "link.png"
    record = json.loads(path.read_text())
    before = Path(record["contents"][0]["path"]).read_bytes()
    record["contents"][0]["path"] = str(link)
    path.write_text(json.dumps(record))
    for name in evaluate.WRITTEN:
        (sweep / name).write_bytes(before)
        link.symlink_to(sweep / name)
        assert evaluate.main(command(sweep)) == 2
        assert "link.png: it is read, and would be written over; move it elsewhere" in capsys.readouterr().err
        assert (sweep / name).read_bytes() == before
        link.unlink()


def test_a_result_of_another_size_is_not_what_the_record_says(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep / "gamma=0/run.json"
    path.write_text(path.read_text().replace('"image_size": 32', '"image_size": 4096'))
    assert evaluate.main(command(sweep)) == 1
    assert capsys.readouterr().err.count("has 32 x 32 pixels, the run says 4096 x 4096") == 2
    assert {row["variant"] for row in rows_of(sweep)} == {"gamma=1"}


def test_a_record_does_not_have_a_model_fetched(sweep: Path) -> None:
    for path in sweep.glob("*/run.json"):
        record = json.loads(path.read_text())
        record["model"] |= {"name": "hf:somebody/something", "path": None}
        path.write_text(json.dumps(record))
    assert evaluate.main([str(sweep), "--device", "cpu"]) == 0
    assert "n/a, hf:somebody/something is not here" in (sweep / "metrics.md").read_text()


PARTS: dict[str, object] = {"model": {"image_size": 32, "name": "x"}, "contents": [], "styles": [], "results": [], "settings": {}}
BROKEN = [
    *("", "{}", "[]", '{"model": {}}'),
    json.dumps({"model": 3, "results": []}),
    json.dumps(PARTS | {"model": {"image_size": 32}}),
    json.dumps(PARTS | {"results": [{}]}),
    json.dumps(PARTS | {"results": [3]}),
    json.dumps(PARTS | {"contents": [{"name": "a"}]}),
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_record_is_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(text)
    assert evaluate.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


RECORD_CHANGES: dict[str, Any] = {
    "parent": {"results": [{"content": "a", "style": "a", "result": "../secret.png"}]},
    "absolute": {"results": [{"content": "a", "style": "a", "result": "/secret.png"}]},
    "number": {"results": [{"content": "a", "style": "a", "result": 3}]},
    "changes": {"results": [{"content": "a", "style": "a", "result": "a.png", "changes": {"gamma": "0"}}]},
    "size_text": {"model": {"image_size": "32", "name": "x"}},
    "size_huge": {"model": {"image_size": 10**9, "name": "x"}},
    "size_small": {"model": {"image_size": 8, "name": "x"}},
    "size_negative": {"model": {"image_size": -32, "name": "x"}},
    "name": {"model": {"image_size": 32, "name": ["x"]}},
    "path": {"model": {"image_size": 32, "name": "x", "path": 3}},
    "path_null": {"model": {"image_size": 32, "name": "x", "path": "a\0b"}},
    "run": {"run": []},
    "exif": {"run": {"exif": "no"}},
    "input": {"contents": [{"name": "a", "path": 3}]},
    "input_name": {"contents": [{"name": 3, "path": "a.png"}], "results": [{"content": 3, "style": "a", "result": "a.png"}]},
}


@pytest.mark.parametrize("kind", [*RECORD_CHANGES, "deep", "digits", "bytes", "sparse"])
def test_a_tampered_record_is_refused_in_one_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The result and its inputs are there and fine: refused is what the record says."""
    folder, path = tmp_path / "run", tmp_path / "run/run.json"
    folder.mkdir()
    for place in (tmp_path / "secret.png", folder / "a.png"):
        Image.new("RGB", (32, 32), "red").save(place)
    a = {"name": "a", "path": str(folder / "a.png")}
    good = PARTS | {"contents": [a], "styles": [a], "settings": {"gamma": 1, "blend": "slerp", "t_boost": 0},
                    "results": [{"content": "a", "style": "a", "result": "a.png"}]}  # fmt: skip
    path.write_text(json.dumps(good | RECORD_CHANGES.get(kind, {})))
    if kind == "deep":
        path.write_text("[" * 200_000 + "]" * 200_000)
    if kind == "digits":
        path.write_text(json.dumps(good).replace('"image_size": 32', '"image_size": ' + "9" * 5000))
    if kind == "bytes":
        path.write_bytes(b"\xff\xfe\x00\xd8" * 9)
    if kind == "sparse":
        os.truncate(path, 5 << 30)
    assert evaluate.main([str(folder), "--device", "cpu"]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: {path}: not the record of a run (") and text.count("\n") == 1 and len(text) < 500
    assert {p.name for p in folder.iterdir()} == {"a.png", "run.json"}


def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(tmp_path / ("x" * 300))]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_run_at_all(tmp_path: Path) -> None:
    assert evaluate.main([str(tmp_path)]) == 2


def test_reconstruction_is_of_plain_regenerations_only(sweep: Path) -> None:
    """At gamma 0 a result is the style picture again, unless h is replaced or noise is added."""
    path = sweep / "gamma=0/run.json"
    record = json.loads(path.read_text())
    for change in ({"blend": "replace"}, {"t_boost": 200}, {"gamma": 0.5}):
        path.write_text(json.dumps(record | {"settings": record["settings"] | change}))
        assert evaluate.main(command(sweep)) == 0
        assert {row["reconstruction_psnr"] for row in rows_of(sweep)} == {"n/a"}
    assert "- reconstruction_psnr: n/a, no result was made without content and noise" in (sweep / "metrics.md").read_text()


def test_an_identity_network_that_does_not_fit(sweep: Path, tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(5, 5), torch.zeros(1, 5)).save(str(tmp_path / "id.pt"))
    assert evaluate.main([*command(sweep), "--protocol", "paper", "--identity", str(tmp_path / "id.pt")]) == 0
    assert "- identity_to_content: n/a, the network does not take pictures (" in (sweep / "metrics.md").read_text()


class Sum(torch.nn.Module):
    """A network that gives one number for all pictures."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class NotFinite(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :4] / 0


@pytest.mark.parametrize("flag", ["identity", "inception", "art_inception"])
@pytest.mark.parametrize("network", [Sum, NotFinite])
def test_a_network_that_gives_no_numbers_of_a_picture(network: type[torch.nn.Module], flag: str, tmp_path: Path) -> None:
    torch.jit.script(network()).save(str(tmp_path / "sum.pt"))
    files = measures.Files(**{flag: tmp_path / "sum.pt"})
    reasons = [row.reason for row in (*measures.paper(files), *measures.artfid(files))]
    assert any("the network " in reason for reason in reasons), reasons


def test_names_of_folders_are_no_formulas(tmp_path: Path) -> None:
    names = ("$\\frac$", "a_b^c", "\x1b[2J")
    plot(
        {("edges", name): (0.5, 0.4, 0.6) for name in names},
        [measures.Measure("edges", "more", "offline", "")],
        tmp_path / "p.png",
    )
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_without_matplotlib(sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert evaluate.main(command(sweep)) == 0
    assert "metrics.png: n/a, it needs matplotlib" in capsys.readouterr().out
    assert rows_of(sweep) and not (sweep / "metrics.png").exists()
