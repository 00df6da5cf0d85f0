"""The command line as such: our flags are frozen, and the official code's mean here what they mean there."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import walks
from cli_tools import error_line, run

import main
from batch_tools import ARCHITECTURE
from diffstyle import flags
from diffstyle.commands import settings_of
from diffstyle.console import lossy_streams
from diffstyle.errors import UsageError
from diffstyle.hspace import Blend
from diffstyle.models import build_unet
from diffstyle.pipeline import one_stream
from diffstyle.settings import Settings
from golden_models import Official, golden_model, relative

ROOT = Path(__file__).resolve().parents[1]

# Our flags with their aliases and defaults. A line may be added; one that goes or changes breaks somebody's script.
FROZEN = """
--animate = None
--batch_size = None
--blend = slerp
--cache_dir = ./precomputed
--compile = False
--config = avatars.yml
--content_dir = ./source_images/content
--content_replace_step = 50
--device = auto
--diff_style = True
--dry_run = False
--dt_end = 950
--dt_lambda = 1.0
--exif = False
--explore = None
--gamma --hs_coeff = 0.9
--grid_only = False
--just_precompute = False
--layout = flat
--mask =
--model_path = None
--n_gen_step --n_gen = 1000
--n_inv_step --n_inv = 40
--nfe = 40
--no_cache = False
--no_download = False
--noise = pair
--omega = None
--overwrite = False
--pairs = None
--precision = auto
--recursive = False
--report = False
--save_dir = ./results
--seed = 1234
--shard = None
--solver = ddim
--style_dir = ./source_images/style
--sweep = []
--t_0 = 999
--t_boost --t_noise = 0
--t_edit --user_defined_t_edit = 400
--tolerance = 45
--use_mask =
--variant = official
--verbose = info
"""


def lines_of(parser: argparse.ArgumentParser) -> list[str]:
    visible = [a for a in parser._actions if a.help != argparse.SUPPRESS and a.dest not in ("help", "version")]
    return sorted(f"{' '.join(a.option_strings)} = {a.default}".strip() for a in visible)


def test_no_flag_alias_or_default_vanishes() -> None:
    assert lines_of(main.build_parser()) == FROZEN.split("\n")[1:-1]


def test_flags_of_the_method_are_the_fields_of_settings() -> None:
    given = vars(main.parse([]))
    assert {f.name for f in dataclasses.fields(Settings)} <= given.keys()
    assert settings_of(main.parse([])) == Settings()


def test_a_wrong_flag_does_not_wait_for_torch() -> None:
    code = "import sys, main; main.parse(['--gamma', '0.3']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# ---- the official code's flags -----------------------------------------------------------------------------------


def read_official() -> dict[str, tuple[str, str]]:
    """Flag -> kind and default, as its main.py defines them."""
    lines = (ROOT / "tests/official_flags.txt").read_text().splitlines()
    return {flag: (kind, default) for flag, kind, default in (line.split("\t") for line in lines if line.startswith("--"))}


THEIRS = read_official()


def test_the_table_is_the_official_list() -> None:
    assert flags.OFFICIAL.keys() == THEIRS.keys() and len(THEIRS) == 159
    kinds = {"store_true": "switch", **{kind: kind for kind in ("int", "float", "str", "append")}}
    for flag, ours in flags.OFFICIAL.items():
        assert ours in ("ours", "other mode", kinds[THEIRS[flag][0]]), flag


def test_the_defaults_of_shared_flags_are_the_official_ones() -> None:
    by_flag = {word: a for a in main.build_parser()._actions for word in a.option_strings}
    for flag, (_, default) in THEIRS.items():
        if flags.OFFICIAL[flag] == "ours" and default and flag != "--omega":
            assert default in (repr(by_flag[flag].default), str(by_flag[flag].default)), flag
    assert settings_of(main.parse([])).omega == 0 and settings_of(main.parse([])).t_edit == 400


@pytest.mark.parametrize("kind", ["ours", "other mode", "without effect"])
def test_every_official_flag_is_taken_as_there(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = vars(main.parse([]))
    for flag, (takes, _) in THEIRS.items():
        ours = flags.OFFICIAL[flag]
        if kind != (ours if ours in ("ours", "other mode") else "without effect"):
            continue
        value = {"store_true": [], "int": ["7"], "float": ["0.7"], "str": ["debug"], "append": ["x"]}[takes]
        if kind == "other mode":
            with pytest.raises(SystemExit) as stop:
                main.parse([flag, *value])
            assert stop.value.code == 2
            assert f"error: {flag} belongs to the training, tests and editing of Asyrp" in capsys.readouterr().err
            continue
        args = vars(main.parse([flag, *value, *(value and [flag, *value])]))
        if kind == "without effect":
            assert args == plain | {"unused": (flag,)}
        else:
            assert args["unused"] == () and (args != plain or flag == "--diff_style"), flag


def test_an_official_value_is_read_as_there(capsys: pytest.CaptureFixture[str]) -> None:
    args = main.parse(["--ni", "1", "--align_face", "1", "--ni", "--sample_type", "ddim"])
    assert args.unused == ("--ni", "--align_face", "--sample_type")
    for words in (["--bs_train", "many"], ["--do_test"], ["--lr_training", "x"]):
        code, err = run(words, capsys)
        assert code == 2 and words[0] in error_line(err)


# ---- abbreviations -----------------------------------------------------------------------------------------------


class AmbiguousError(Exception):
    pass


class Oracle(argparse.ArgumentParser):
    """The official parser, which says only what flag it understood."""

    def __init__(self) -> None:
        super().__init__()
        for flag in THEIRS:
            self.add_argument(flag, dest="hit", action="store_const", const=flag)

    def error(self, message: str) -> Any:
        raise AmbiguousError(message)


def test_an_abbreviation_means_what_it_means_there() -> None:
    """Every beginning of every official flag, also where one of our own flags begins so; our exact names stay ours."""
    oracle = Oracle()
    known = main.build_parser()._option_string_actions
    for word in sorted({flag[:n] for flag in THEIRS for n in range(3, len(flag) + 1)} - known.keys()):
        try:
            meant = oracle.parse_args([word]).hit
        except AmbiguousError:
            with pytest.raises(ValueError, match="could mean"):
                flags.expand([word], known)
        else:
            assert flags.expand([word + "=3"], known) == [meant + "=3"]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--hs_coef 0.3", "gamma", 0.4),  # several there
        ("--user_defined_t_e 500", "t_edit", 500),
        ("--content_d=x --style_d y", "style_dir", "y"),
        ("--n_inv 7", "n_inv", 7),
        ("--n_g 8", "n_gen", 8),
        ("--t_n 200", "t_boost", 200),
        ("--verb error", "verbose", "ERROR"),
        ("--gam 0.3", "gamma", 0.3),  # ours alone
        ("--dry", "dry_run", True),
        ("--anim t", "animate", "t"),
        ("--ex somewhere", "unused", ("--exp",)),  # not --exif
        ("--an", "unused", ("--analysis",)),  # not --animate
        ("--var 5", "unused", ("--var",)),  # not --variant
        ("--vari paper", "variant", "paper"),
        ("--mask 0,0,1,1", "mask", "0,0,1,1"),  # not --masked_h
    ],
)
def test_abbreviations(words: str, name: str, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    if words.startswith("--hs_coef "):
        code, err = run(words.split(), capsys)
        assert code == 2 and "--hs_coef could mean --hs_coeff or --hs_coeff_delta_h" in error_line(err)
    else:
        assert getattr(main.parse(words.split()), name) == value


# ---- values at the edge ------------------------------------------------------------------------------------------

QUICK = "--n_inv_step 12 --n_gen_step 50 --content_replace_step 50 --hs_coeff 0.3 --t_noise 200 --noise golden"


@pytest.mark.parametrize(
    ("words", "doubt"),
    [
        ("", ""),
        ("--t_noise -1", "--t_boost -1 is computed, but lies outside"),
        ("--t_noise 1000", "--t_boost 1000 is computed, but lies outside of the method's range of 0 to 999"),
        ("--hs_coeff 1.2", "--gamma 1.2 is computed, but lies outside of the method's range of 0 to 1"),
        ("--hs_coeff -0.1", "--gamma -0.1 is computed"),
        ("--dt_lambda 0.9985 --dt_end 2000", "--dt_end 2000 is computed"),
        ("--dt_lambda -0.5 --dt_end -7", "--dt_lambda -0.5 is computed"),
        ("--omega -0.5", "--omega -0.5 is computed"),
        ("--user_defined_t_edit -3", "--t_edit -3 is computed"),
        ("--user_defined_t_edit 2000", "no content is injected at t >= 2000: the results are the styles"),
        ("--content_replace_step 1", "no content is injected at t >= 400"),
        ("--content_replace_step 1 --user_defined_t_edit 0", ""),
        ("--content_replace_step 3000", ""),
    ],
)
def test_what_the_official_code_computes_ours_computes(words: str, doubt: str) -> None:
    """In fp64, beside the literal re-statement of the official walk; with a warning outside of the paper's range."""
    s = settings_of(main.parse([*QUICK.split(), *words.split()]))
    s.check()
    assert doubt in " / ".join(s.doubts()) and bool(doubt) == bool(s.doubts())
    torch.manual_seed(0)
    unet = build_unet("ddpm", 8, ARCHITECTURE).double().eval()
    golden = golden_model("ddpm")
    model = dataclasses.replace(golden, unet=unet, config=dataclasses.replace(golden.config, image_size=8))
    official = Official(model, s, torch.float64)
    content, style = torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    with torch.inference_mode():
        x_T, _ = official.invert(style)
        _, kept = official.invert(content)
        theirs = official.generate(x_T, kept, torch.Generator().manual_seed(s.seed))
    ours_T = walks.invert(unet, style, s.inversion_plan(), model.schedule).x_T
    h = walks.invert(unet, content, s.inversion_plan(), model.schedule, s.kept()).h
    noise = one_stream(model, s).batch([0])
    ours = walks.transfer(unet, ours_T, h, s.transfer_plan(), model.schedule, Blend(s.gamma), lambda: noise().double())
    assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--n_inv_step 1", "--n_inv_step 1 is out of range: use 2 to 1000"),
        ("--n_gen_step 1", "--n_gen_step 1 is out of range: use 2 to 1000"),
        ("--n_gen_step 1001", "--n_gen_step 1001 is out of range"),
        ("--content_replace_step -2", "--content_replace_step -2 is out of range: use 1 or more, or 0 for all"),
        ("--t_0 1000", "--t_0 1000 is out of range: use 1 to 999"),
        ("--hs_coeff nan", "--gamma nan is out of range: use a finite number"),
        ("--omega inf", "--omega inf is out of range"),
        ("--seed -1", "--seed -1 is out of range"),
    ],
)
def test_what_it_cannot_compute_is_refused(words: str, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        settings_of(main.parse(words.split())).check()
    assert sentence in str(error.value)


# ---- streams -----------------------------------------------------------------------------------------------------

TALKS = r"""
import logging, sys
from diffstyle.console import exit_code, lossy_streams
def work():
    for _ in range(3000):
        print("gr\u00fcn \udcff")
        logging.getLogger("diffstyle").critical("gr\u00fcn \udcff")
        print("gr\u00fcn", file=sys.stderr, flush=True)
    open(sys.argv[1], "w").write("done")
    return 7
with lossy_streams():
    logging.basicConfig(stream=sys.stderr)
    code = exit_code(work)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "streams",
    ["2>&-", ">&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full", ">/dev/full 2>&1", "| true", "2>&1 | head -1", ">/dev/null"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_work_does_not_hang_on_the_streams(streams: str, encoding: str, tmp_path: Path) -> None:
    """Closed, full, broken or ASCII: the work is done, and the exit code is the work's."""
    done = tmp_path / "done"
    line = f"{sys.executable} -c '{TALKS}' {done} {streams}; exit ${{PIPESTATUS[0]}}"
    environment = {"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True)
    assert ended.returncode == 7 and done.read_text() == "done", ended.stderr[-300:]


def test_streams_are_given_back() -> None:
    before = sys.stdout, sys.stderr
    with lossy_streams():
        assert sys.stdout is not before[0] and sys.stdout.encoding == before[0].encoding
    assert (sys.stdout, sys.stderr) == before
