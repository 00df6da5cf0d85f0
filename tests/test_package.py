"""What `pip install` brings: the files of the wheel and of the sdist, the command, and a checkout without links."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import diffstyle

ROOT = Path(__file__).resolve().parents[1]
LINKS = ("__main__.py", "configs", "models", "pretrained")  # in diffstyle/
AVATARS = ROOT / "test_images/avatars"


def call(*words: str | Path, cwd: Path, ok: bool = True) -> str:
    """Standard output of a command, which must succeed (or, with ``ok`` False, must not)."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout


def pip(*words: str | Path, cwd: Path) -> None:
    """pip with what is installed here, without network."""
    call(sys.executable, "-m", "pip", *words, "--quiet", "--no-deps", "--no-index", "--no-build-isolation", cwd=cwd)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads, so that it leaves nothing in the checkout and finds no earlier build there."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "requirements.txt", "main.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("diffstyle", "models", "configs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pretrained").mkdir()
    for name in ("avatars64.pt", "avatars64.intervals.json", "zoo.yml", "README.md"):
        shutil.copy(ROOT / "pretrained" / name, folder / "pretrained")
    shutil.copytree(ROOT / "pretrained/metrics", folder / "pretrained/metrics")
    return folder


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", sources, "-w", folder, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def contents(wheel: Path) -> set[str]:
    """The files of a wheel but for its metadata."""
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if ".dist-info/" not in name}


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    """The links in diffstyle/ are followed: what a checkout sees there is what is installed, but for other weights."""
    walk = os.walk(ROOT / "diffstyle", followlinks=True)
    seen = {Path(folder, name).relative_to(ROOT).as_posix() for folder, _, names in walk for name in names}
    expected = {name for name in seen if "/pretrained/" not in name and "__pycache__" not in name}
    expected |= {f"diffstyle/pretrained/{name}" for name in ("avatars64.pt", "avatars64.intervals.json", "zoo.yml")}
    expected |= {f"diffstyle/pretrained/metrics/{path.name}" for path in (ROOT / "pretrained/metrics").iterdir()}
    assert contents(wheel) == expected
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("diffstyle/__main__.py") == (ROOT / "main.py").read_bytes()
        assert archive.read("diffstyle/pretrained/avatars64.pt") == (ROOT / "pretrained/avatars64.pt").read_bytes()


def test_the_sdist_makes_the_same_wheel(sources: Path, wheel: Path, tmp_path: Path) -> None:
    build = "import sys; from setuptools import build_meta; build_meta.{}(sys.argv[1])"
    call(sys.executable, "-c", build.format("build_sdist"), tmp_path, cwd=sources)
    (sdist,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path)
    call(sys.executable, "-c", build.format("build_wheel"), tmp_path, cwd=tmp_path / sdist.name.removesuffix(".tar.gz"))
    (again,) = tmp_path.glob("*.whl")
    assert contents(again) == contents(wheel)


def test_metadata_and_requirement_files_agree(wheel: Path) -> None:
    """The extra dev and requirements-dev.txt are one list; constraints.txt names a version of all that is required."""
    assert metadata(wheel)["Version"] == diffstyle.__version__
    required = metadata(wheel).get_all("Requires-Dist", [])
    extras = {word.split("extra == ")[1].strip('"') for word in required if ";" in word}
    names = {extra: {w.split(";")[0].strip() for w in required if w.endswith(f'extra == "{extra}"')} for extra in extras}
    assert {w for w in required if ";" not in w} == lines("requirements.txt")
    assert lines("requirements-dev.txt") == names["dev"] | {"-r requirements.txt"}
    pinned = {line.split("==")[0] for line in lines("constraints.txt")}
    wanted = lines("requirements.txt").union(*names.values())
    assert {re.split("[>=]", line)[0] for line in wanted} == pinned


def lines(file: str) -> set[str]:
    """The lines of a requirement file, comments and markers left out."""
    found = {re.split("[;#]", line)[0].strip() for line in (ROOT / file).read_text().splitlines()}
    return found - {""}


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_the_installed_command_runs_from_any_folder(editable: bool, sources: Path, wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    python = venv / "bin/python"
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "here.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))  # torch and all
    pip("--python", python, "install", *(["-e", sources] if editable else [wheel]), cwd=tmp_path)

    pictures: list[str | Path] = ["--content_dir", AVATARS / "contents/035.png", "--style_dir", AVATARS / "styles"]
    command = [python, "-m", "diffstyle"] if editable else [venv / "bin/diffstyle"]
    assert "6 pairs" in call(*command, "--config", "avatars.yml", *pictures, "--dry_run", cwd=tmp_path)
    code = """
import importlib.util, diffstyle
print(diffstyle.__version__, diffstyle.__file__, diffstyle.load("avatars", device="cpu").path)
from diffstyle.figures.faces import read_weights
assert read_weights("face_expression"), "the networks of evaluate.py --protocol faces"
print(*(name for name in ("models", "configs", "main") if importlib.util.find_spec(name)))
"""
    found, strangers = call(python, "-c", code, cwd=tmp_path).split("\n")[:2]
    version, package, weights = found.split()
    assert version == diffstyle.__version__
    assert Path(package).is_relative_to(sources if editable else site)
    assert Path(weights) == (sources if editable else site / "diffstyle") / "pretrained/avatars64.pt"
    assert not strangers


def test_a_checkout_without_links_works(sources: Path, tmp_path: Path) -> None:
    """Where git makes no links, each is a text file with the path that it would lead to."""
    shutil.copytree(sources, tmp_path / "checkout", symlinks=True)
    for name in LINKS:
        link = tmp_path / "checkout/diffstyle" / name
        if link.is_symlink():
            target = link.readlink()
            link.unlink()
            link.write_text(str(target))
        assert link.is_file()
    pictures: list[str | Path] = ["--content_dir", AVATARS / "contents/035.png", "--style_dir", AVATARS / "styles/017.png"]
    few = ["--n_inv_step", "2", "--n_gen_step", "2", "--device", "cpu", "--no_cache", "--report"]
    call(sys.executable, "main.py", *pictures, *few, "--save_dir", tmp_path, cwd=tmp_path / "checkout")
    assert (tmp_path / "grid.png").is_file() and (tmp_path / "index.html").is_file()
