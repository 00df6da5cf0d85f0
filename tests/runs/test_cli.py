"""The command line, in-process: official flags, outputs, resume, errors in one line with their exit codes."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_tools import error_line, pixels, run, words_of
from PIL import Image

import diffstyle
import main
from batch_tools import make_tiny
from diffstyle import commands
from diffstyle.commands import settings_of
from diffstyle.images import read_record, save_png
from golden_models import GOLDEN

ROOT = Path(__file__).resolve().parents[2]


def test_outputs(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*base, "--gamma", "0.3"]) == 0
    assert capsys.readouterr().out.strip().endswith("grid.png")
    out = tmp_path / "out"
    pairs = [(c, s) for c in ("content_a", "content_b") for s in ("style_a", "style_b")]
    stacks = [f"content_{c}_style_{s}.png" for c, s in pairs]
    assert {p.name for p in out.iterdir()} == {"grid.png", "run.json", *stacks, *(f"result_{n}" for n in stacks)}

    stack, result = pixels(out / stacks[1]), pixels(out / f"result_{stacks[1]}")
    assert stack.shape == (3 * 33 + 1, 34, 3) and result.shape == (32, 32, 3)
    assert (stack[67:99, 1:33] == result).all() and (stack[0] == 0).all()
    grid = pixels(out / "grid.png")
    assert grid.shape == (100, 100, 3) and (grid[1:33, 1:33] == 128).all()
    assert (grid[34:66, 67:99] == result).all()  # first content, second style
    golden = pixels(GOLDEN / "ddpm/grid_default50.png")
    for box in (np.s_[:33, :], np.s_[:, :33]):  # empty cell, styles and contents as the official code saves them
        assert (grid[box] == golden[box]).all()

    record = read_record(out / stacks[0])
    assert record and record["settings"]["gamma"] == 0.3 and record["content"]["name"] == "content_a.png"
    report = json.loads((out / "run.json").read_text())
    assert report["settings"]["n_inv"] == 6 and report["done"] == 4 and len(report["model"]["sha256"]) == 64


def test_official_command_lines_run_as_typed(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The original README's three commands, $gpu and $sh_file_name unset; the first through a shell."""
    common = (
        f"--content_dir {GOLDEN}/images/contents --style_dir {GOLDEN}/images/styles --save_dir {tmp_path}/sh "
        f"--n_gen_step 1000 --n_inv_step 50 --n_test_step 1000 --model_path {config.parent}/model.pt --config {config}"
    )
    dry = "--dry_run --device cpu"
    recipes = [
        "--hs_coeff 0.3 --dt_lambda 1.0 --t_noise 200 --omega 0 --user_defined_t_edit 400",
        "--hs_coeff 0.3 --dt_lambda 0.9985 --t_noise 200 --omega 0 --user_defined_t_edit 400 --use_mask",
        "--hs_coeff 0.4 --dt_lambda 1.0 --t_noise 0 --omega 0 --user_defined_t_edit 400",
    ]
    lines = [f"--diff_style {common} {recipe} {dry} --sh_file_name" for recipe in recipes]
    line = f"CUDA_VISIBLE_DEVICES=$gpu {sys.executable} main.py {lines[0]} $sh_file_name"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = [(done.stdout, done.stderr)]
    for line in lines[1:]:
        assert main.main(line.split()) == 0
        said.append(capsys.readouterr())
    for out, err in said:
        assert "without effect on style transfer: --n_test_step, --sh_file_name" in err
        assert "CUDA_VISIBLE_DEVICES is set but empty" in err
        assert "4 pairs" in out


@pytest.mark.parametrize("script", ["script_diffstyle", "recipe_afhq", "recipe_celeba_mask", "recipe_art"])
def test_scripts_run(script: str, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each recipe's command line, its folders and checkpoint replaced from outside, really makes its pictures."""
    monkeypatch.chdir(ROOT)
    images = GOLDEN / "images"
    one = ["--content_dir", str(images / "contents/content_a.png"), "--style_dir", str(images / "styles/style_a.png")]
    assert main.main(words_of(ROOT / f"scripts/{script}.sh", tmp_path, *base, *one)) == 0
    record = read_record(tmp_path / "out/result_content_content_a_style_style_a.png")
    assert record and record["settings"]["mask"] == ("box" if "mask" in script else "")


def test_the_version_is_printed_and_recorded(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results that another version made with the same settings are kept."""
    with pytest.raises(SystemExit) as stop:
        main.main(["--version"])
    assert not stop.value.code and capsys.readouterr().out == f"diffstyle {diffstyle.__version__}\n"

    one = [*base, "--content_dir", str(GOLDEN / "images/contents/content_a.png")]
    assert main.main(one) == 0
    assert json.loads((tmp_path / "out/run.json").read_text())["versions"]["diffstyle"] == diffstyle.__version__
    for path in (tmp_path / "out").glob("*content_*.png"):
        record = read_record(path)
        assert record and record["version"] == diffstyle.__version__
        with Image.open(path) as image:
            save_png(path, image.copy(), {**record, "version": "0.1.0"})
    code, err = run(one, capsys)
    assert code == 0 and "0 pairs done, 2 kept" in err


def test_resume_settings_and_overwrite(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(base) == 0
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.png")}
    capsys.readouterr()
    code, err = run(base, capsys)
    assert code == 0 and "0 pairs done, 4 kept" in err
    (tmp_path / "out/result_content_content_a_style_style_b.png").unlink()
    code, err = run(base, capsys)
    assert code == 0 and "1 pairs done, 3 kept" in err
    _, err = run([*base, "--overwrite"], capsys)
    assert "4 pairs done, 0 kept" in err
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.png")} == first
    _, err = run([*base, "--gamma", "0.1"], capsys)
    assert "4 pairs done" in err
    assert not list(tmp_path.rglob("*.tmp"))


def test_broken_cache_is_computed_anew(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base += ["--batch_size", "1"]  # the random network would amplify the rounding of other batches
    assert main.main(base) == 0
    before = pixels(tmp_path / "out/grid.png")
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 4  # two contents' h, two styles' x_T
    files[0].write_bytes(b"garbage")
    files[1].write_bytes(files[1].read_bytes()[:1000])
    torch.save({"something": torch.zeros(2)}, files[2])
    capsys.readouterr()
    code, err = run([*base, "--overwrite"], capsys)
    assert code == 0 and err.count("broken cache file") >= 3
    assert (pixels(tmp_path / "out/grid.png") == before).all()


def test_dry_run_writes_nothing(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*base, "--dry_run", "--omega", "0.3", "--t_edit", "500"]) == 0
    out = capsys.readouterr().out
    assert "4 pairs, 54 network evaluations" in out  # 2 styles of 5, 2 contents of 4, 4 transfers of 6 + 3 calibrated
    assert '"omega": 0.3' in out and not (tmp_path / "out").exists()


def test_variant_paper_sets_omega_unless_given() -> None:
    assert settings_of(main.parse(["--variant", "paper"])).omega == 0.3
    assert settings_of(main.parse(["--variant", "paper", "--omega", "0.1"])).omega == 0.1
    s = settings_of(main.parse([]))
    assert s.omega == 0.0
    assert (s.gamma, s.n_inv, s.n_gen, s.t_edit, s.t_boost, s.dt_end, s.seed) == (0.9, 40, 1000, 400, 0, 950, 1234)


def test_masks_and_paper_variant_change_the_picture(base: list[str], tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.new("L", (64, 64), 255).save(mask)
    seen = []
    for extra in ([], ["--use_mask"], ["--mask", "0,0,1,0.5"], ["--mask", str(mask)], ["--variant", "paper", "--omega", "0"]):
        assert main.main([*base, "--no_cache", "--gamma", "0.5", *extra]) == 0
        seen.append(pixels(tmp_path / "out/grid.png").tobytes())
    assert len(set(seen[:3])) == 3


def test_a_mask_drawn_anew_redoes_its_pairs(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = tmp_path / "mask.png"
    argv = [*base, "--mask", str(mask)]
    for value, done in ((255, 4), (255, 0), (0, 4)):
        Image.new("L", (64, 64), value).save(mask)
        code, err = run(argv, capsys)
        assert code == 0 and f"{done} pairs done" in err


@pytest.mark.parametrize("extra", [["--gama", "0.3"], ["--gamma", "much"], ["--verbose", "loud"], ["--config"]])
def test_wrong_flags_are_one_line(extra: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main(extra)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("error: ") and extra[0] in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--gamma", "nan"], 2, "--gamma nan is out of range"),
        (["--n_inv_step", "1"], 2, "--n_inv_step 1"),
        (["--n_gen_step", "1001"], 2, "--n_gen_step 1001 is out of range: use 2 to 1000"),
        (["--variant", "papr"], 2, "--variant papr is not known"),
        (["--noise", "pink"], 2, "--noise pink is not known"),
        (["--device", "cuda"], 2, "no CUDA GPU"),
        (["--device", "tpu"], 2, "--device tpu is not known"),
        (["--precision", "int8"], 2, "--precision int8"),
        (["--batch_size", "-1"], 2, "--batch_size -1"),
        (["--use_mask", "--mask", "0,0,1,1"], 2, "argument --mask: not allowed with argument --use_mask"),
        (["--mask", "0.5,0,0.2,1"], 2, "a rectangle is x0,y0,x1,y1"),
        (["--mask", "nowhere.png"], 2, "neither a picture nor a rectangle"),
        (["--content_dir", "nowhere"], 2, "--content_dir nowhere: no such folder"),
        (["--style_dir", "{empty}"], 2, "no picture in it"),
        (["--config", "celebra.yml"], 2, "did you mean celeba.yml?"),
        (["--config", "{typo}"], 2, "line 4: unknown key in model 'ch_mul' (did you mean ch_mult?)"),
        (["--config", "{notyaml}"], 2, "not a readable YAML file"),
        (["--model_path", "nowhere.pt"], 2, "--model_path nowhere.pt: no such file"),
        (["--model_path", "{adm}"], 1, "checkpoint of another architecture"),
        (["--model_path", "{pickle}"], 1, "{pickle}"),
        (["--save_dir", "{file}/x"], 1, "cannot be written to"),
    ],
)  # fmt: skip
def test_errors(
    extra: list[str], code: int, words: str, base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in extra and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("code in a pickle was run",))

    places = {name: tmp_path / name for name in ("empty", "typo", "notyaml", "pickle", "file")}
    places["adm"] = GOLDEN / "adm/model.pt"
    places["empty"].mkdir()
    (places["empty"] / "notes.txt").write_text("no picture")
    places["typo"].write_text("data:\n  image_size: 32\nmodel:\n  ch_mul: [1, 2]\n")
    places["notyaml"].write_text("data: [1, 2")
    places["pickle"].write_bytes(pickle.dumps({"a": Evil()}))
    places["file"].write_text("a file, not a folder")
    got, err = run([*base, *(a.format(**places) for a in extra)], capsys)
    assert words.format(**places) in error_line(err)
    assert got == code
    assert "code in a pickle was run" not in err


def test_missing_checkpoint_says_where_to_get_it(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    argv = [a for a in base if a != "--model_path" and not a.endswith("model.pt")]
    argv[argv.index("--config") + 1] = "celeba.yml"
    code, err = run([*argv, "--no_download"], capsys)
    assert code == 1 and "celeba" in error_line(err)


def test_broken_pictures_fail_their_own_pairs(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "contents"
    shutil.copytree(GOLDEN / "images/contents", folder)
    (folder / "notes.txt").write_text("skipped with a notice")
    (folder / "broken.png").write_bytes((folder / "content_a.png").read_bytes()[:700])
    (folder / "empty.jpg").write_bytes(b"")
    code, err = run([*base, "--content_dir", str(folder)], capsys)
    assert code == 1 and "Traceback" not in err
    assert "notes.txt" in err and "broken.png: not a readable picture" in err and "empty.jpg" in err
    assert "4 pairs done" in err
    assert len(list((tmp_path / "out").glob("result_*.png"))) == 4
    assert pixels(tmp_path / "out/grid.png").shape == (5 * 33 + 1, 3 * 33 + 1, 3)


def test_same_stem_never_overwrites(base: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "contents"
    folder.mkdir()
    with Image.open(GOLDEN / "images/contents/content_a.png") as image:
        image.save(folder / "a.png")
        image.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(folder / "a.jpg")
    assert main.main([*base, "--content_dir", str(folder)]) == 0
    assert len(list((tmp_path / "out").glob("result_*.png"))) == 4


def test_half_precision_is_close(base: list[str], tmp_path: Path) -> None:
    """bf16 runs end to end on the CPU and stays near fp32 over a short walk."""
    argv = [*base, "--no_cache", "--t_0", "300", "--gamma", "0"]
    pictures = []
    for precision in ("fp32", "bf16"):
        assert main.main([*argv, "--precision", precision]) == 0
        pictures.append(pixels(tmp_path / "out/result_content_content_a_style_style_a.png"))
    assert np.abs(pictures[0] - pictures[1]).mean() < 40


def test_help_names_the_symbols(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run(["--help"], capsys)
    assert code == 0


def test_unused_flags_are_said_in_one_line(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = "--do_test 1 --do_train 1 --n_iter 5 --edit_attr X --src_txts a --src_txts b --sample_type ddim --get_SNR"
    code, err = run([*base, "--dry_run", *words.split()], capsys)
    assert code == 0
    said = "without effect on style transfer: --do_test, --do_train, --n_iter, --edit_attr, --src_txts, --sample_type, --get_SNR"
    assert said in err.splitlines()


@pytest.mark.parametrize("words", ["--verbose error", "--verbose ERROR", "--verbose critical", "--verbose fatal"])
def test_the_edges_through_the_command(words: str, base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Levels of the official code; at info the doubts are said, once."""
    odd = ["--hs_coeff", "1.2", "--content_replace_step", "1"]
    code, err = run([*base, *odd, "--sweep", "t_boost=0,1000", *words.split()], capsys)
    assert code == 0 and err == ""
    code, err = run([*base, *odd, "--sweep", "t_boost=0,1000", "--dry_run"], capsys)
    assert code == 0 and err.count("--gamma 1.2 is computed") == 1 and err.count("no content is injected") == 1


RUN_EACH = """
import runpy, sys
for line in sys.stdin.buffer.read().decode().splitlines():
    code, *words = line.split("|")
    sys.argv = ["main.py", *words]
    try:
        runpy.run_path("main.py", run_name="__main__")
    except SystemExit as stop:
        assert stop.code == int(code), stop.code
sys.exit(7)
"""


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>&-", ">/dev/full 2>/dev/full"])
def test_a_run_without_streams(streams: str, tmp_path: Path) -> None:
    """As cron starts it: pictures are made, and a wrong folder still ends with 2. One interpreter: torch loads slowly."""
    tiny = make_tiny(tmp_path, contents=1, styles=1)
    runs = (("0", tiny.argv("--save_dir", str(tmp_path / "gr\u00fcn"))), ("2", tiny.argv("--style_dir", "nowhere")))
    lines = "\n".join("|".join([code, *argv, "--verbose", "info"]) for code, argv in runs)
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
    line = f"{sys.executable} -c '{RUN_EACH}' {streams}"
    assert subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, input=lines.encode()).returncode == 7
    assert (tmp_path / "gr\u00fcn/grid.png").is_file()


FLAGS_OF_PATHS = ["config", "model_path", "content_dir", "style_dir", "pairs", "mask", "save_dir", "cache_dir"]


@pytest.mark.parametrize("flag", FLAGS_OF_PATHS)
def test_a_name_that_no_file_can_have(flag: str, base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("x" * 300, "y/" * 3000, "a\0b"):
        for more in ([], ["--dry_run"]):
            code, err = run([*base, f"--{flag}", path, *more], capsys)
            assert code == 2 and f"--{flag} {path[:60]!r}...: no file can have such a name" in error_line(err)


@pytest.mark.parametrize("mask", ["nowhere.png", "{broken}", "0.5,0,0.2,1"])
def test_a_mask_is_looked_at_first(
    mask: str, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by --dry_run, and before the network is loaded."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    monkeypatch.setattr(commands, "load_model", None)
    for more in ([], ["--dry_run"]):
        code, err = run([*base, "--mask", mask.format(broken=broken), *more], capsys)
        assert code == (1 if "broken" in mask else 2) and "--mask" in error_line(err)


def test_dry_run_draws_nothing(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main.main([*base, "--content_dir", "sample:2", "--dry_run"]) == 0
    assert "4 pairs" in capsys.readouterr().out and sorted(tmp_path.rglob("*")) == before
