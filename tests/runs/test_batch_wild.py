"""Inputs from the wild: odd pictures, lists, configs, caches and checkpoints, each with what is to come of it.

All of them go through main.main: no traceback, the right exit code, one line that names the culprit, no result lost.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF

import main
from batch_tools import CONFIG, FEW_STEPS, Tiny, make_tiny, paint, results
from diffstyle.errors import WorkError
from diffstyle.images import fit, load_image, open_fitted, orientation, preprocess, read_record, read_result
from diffstyle.masks import build_mask

RNG = np.random.default_rng(5)
PHOTO = Image.fromarray(RNG.integers(0, 256, (10, 12, 3), dtype=np.uint8))
Make = Callable[[Path], object]


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    tiny = make_tiny(tmp_path, contents=1, styles=1)
    tiny.extra = [*FEW_STEPS]
    return tiny


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        code = main.main(argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return code, err


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_text(png: bytes, text: bytes) -> bytes:
    """A PNG with a compressed comment after its header."""
    return png[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text)) + png[33:]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and has hardly any data."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def with_exif(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    PHOTO.save(path, exif=exif, quality=95)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def frames(count: int) -> list[Image.Image]:
    return [Image.fromarray(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(count)]


def deep(dtype: str, high: float) -> Image.Image:
    return Image.fromarray((RNG.random((9, 11)) * high).astype(dtype))


# ---- pictures that are taken -------------------------------------------------------------------------------------

ACCEPTED: dict[str, tuple[str, Make]] = {
    "RGBA": ("a.png", lambda p: PHOTO.convert("RGBA").save(p)),
    "LA": ("a.png", lambda p: PHOTO.convert("LA").save(p)),
    "palette": ("a.png", lambda p: PHOTO.convert("P").save(p)),
    "palette with transparency": ("a.png", lambda p: PHOTO.convert("P").save(p, transparency=0)),
    "palette with transparent table": ("a.png", lambda p: PHOTO.convert("P").save(p, transparency=bytes(range(256)))),
    "greyscale": ("a.png", lambda p: PHOTO.convert("L").save(p)),
    "one bit": ("a.png", lambda p: PHOTO.convert("1").save(p)),
    "16-bit PNG": ("a.png", lambda p: deep("uint16", 65535).save(p)),
    "16-bit TIFF": ("a.tiff", lambda p: deep("uint16", 65535).save(p)),
    "32-bit TIFF": ("a.tif", lambda p: deep("int32", 65535).save(p)),
    "float TIFF": ("a.tif", lambda p: deep("float32", 1.0).save(p)),
    "float TIFF with NaN": ("a.tif", lambda p: Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(p)),
    "CMYK JPEG": ("a.jpg", lambda p: PHOTO.convert("CMYK").save(p)),
    "YCbCr JPEG": ("a.jpeg", lambda p: PHOTO.save(p, quality=90)),
    "progressive JPEG": ("a.JPG", lambda p: PHOTO.save(p, "JPEG", progressive=True)),
    "LAB TIFF": ("a.tif", lambda p: Image.new("LAB", (9, 9)).save(p)),
    "animated GIF": ("a.gif", lambda p: frames(3)[0].save(p, save_all=True, append_images=frames(2))),
    "animated PNG": ("a.png", lambda p: frames(1)[0].save(p, save_all=True, append_images=frames(2))),
    "animated WebP": ("a.webp", lambda p: frames(1)[0].save(p, save_all=True, append_images=frames(2))),
    "BMP": ("a.bmp", lambda p: PHOTO.save(p)),
    "PPM": ("a.ppm", lambda p: PHOTO.save(p)),
    "TGA": ("a.tga", lambda p: PHOTO.save(p)),
    "icon": ("a.ico", lambda p: PHOTO.resize((16, 16)).save(p)),
    "1 x 1": ("a.png", lambda p: PHOTO.crop((0, 0, 1, 1)).save(p)),
    "1 x N": ("a.png", lambda p: PHOTO.resize((1, 300)).save(p)),
    "N x 1": ("a.png", lambda p: PHOTO.resize((300, 1)).save(p)),
    "very long": ("a.png", lambda p: PHOTO.resize((5000, 2)).save(p)),
    "EXIF": ("a.jpg", lambda p: with_exif(p, 6)),
    "EXIF of nonsense": ("a.jpg", lambda p: PHOTO.save(p, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff rubbish")),
    "EXIF out of range": ("a.jpg", lambda p: with_exif(p, 77)),
    "wrong ending": ("a.png", lambda p: p.write_bytes(encoded(PHOTO, "JPEG"))),
    "rubbish after the end": ("a.png", lambda p: p.write_bytes(encoded(PHOTO, "PNG") + b"rubbish" * 99)),
    "text of 9 MB": ("a.png", lambda p: PHOTO.save(p, comment="x" * 9_000_000)),
    "broken colour profile": ("a.png", lambda p: PHOTO.save(p, icc_profile=b"no profile")),
    "spaces": ("two  words .png", lambda p: PHOTO.save(p)),
    "leading dash": ("-rf.png", lambda p: PHOTO.save(p)),
    "many dots": ("a.b..c.png", lambda p: PHOTO.save(p)),
    "unicode": ("Ünïcödé 漢字 🦊.png", lambda p: PHOTO.save(p)),
    "decomposed": ("u\u0308.png", lambda p: PHOTO.save(p)),
    "right to left": ("\u202egnp.png", lambda p: PHOTO.save(p)),
    "markup": ("<img src=x onerror=alert(1)>.png", lambda p: PHOTO.save(p)),
    "percent and quotes": ("%s%d{}'\"`$(x).png", lambda p: PHOTO.save(p)),
    "line break": ("two\nlines.png", lambda p: PHOTO.save(p)),
    "backslash": ("a\\b.png", lambda p: PHOTO.save(p)),
    "like our own files": ("grid.png", lambda p: PHOTO.save(p)),
    "longest": ("x" * 251 + ".png", lambda p: PHOTO.save(p)),
    "longest unicode": ("漢" * 83 + ".png", lambda p: PHOTO.save(p)),
    "link": ("a.png", lambda p: p.symlink_to(paint(p.parent.parent / "elsewhere" / "x.png", 1))),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted_pictures(case: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    name, make = ACCEPTED[case]
    make(tiny.root / "c" / name)
    code, err = run(tiny.argv(), capsys)
    assert code == 0, err
    assert len(results(tiny.out)) == 2
    assert run(tiny.argv("--overwrite", "--exif"), capsys)[0] == 0


def test_name_that_is_not_utf8(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tiny.root / "x.png", 3).rename(os.fsdecode(os.fsencode(tiny.root) + b"/c/\xff\xfe.png"))
    assert run(tiny.argv("--dry_run"), capsys)[0] == 0
    assert run(tiny.argv(), capsys)[0] == 0 and len(results(tiny.out)) == 2
    assert run(tiny.argv("--report", "--verbose", "debug"), capsys)[0] == 0


# ---- pictures that are refused, alone ----------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Make]] = {
    "empty": ("bad.png", lambda p: p.write_bytes(b"")),
    "text": ("bad.png", lambda p: p.write_text("hello")),
    "a web page": ("bad.jpg", lambda p: p.write_text("<!doctype html><title>404</title>")),
    "header only": ("bad.png", lambda p: p.write_bytes(encoded(PHOTO, "PNG")[:30])),
    "cut PNG": ("bad.png", lambda p: p.write_bytes(encoded(PHOTO, "PNG")[:-60])),
    "cut JPEG": ("bad.jpg", lambda p: p.write_bytes(encoded(PHOTO.resize((300, 300)), "JPEG")[:2000])),
    "cut GIF": ("bad.gif", lambda p: p.write_bytes(encoded(PHOTO, "GIF")[:100])),
    "cut WebP": ("bad.webp", lambda p: p.write_bytes(encoded(PHOTO, "WEBP")[:40])),
    "cut TIFF": ("bad.tif", lambda p: p.write_bytes(encoded(PHOTO, "TIFF")[:60])),
    "cut BMP": ("bad.bmp", lambda p: p.write_bytes(encoded(PHOTO, "BMP")[:80])),
    "broken checksum": ("bad.png", lambda p: p.write_bytes(encoded(PHOTO, "PNG").replace(b"IDAT", b"IDAX"))),
    "zeros": ("bad.jpg", lambda p: p.write_bytes(b"\xff\xd8\xff" + bytes(5000))),
    "bomb": ("bad.png", lambda p: p.write_bytes(png_of_size(60000, 60000))),
    "hollow": ("bad.png", lambda p: p.write_bytes(png_of_size(2000, 2000))),
    "size zero": ("bad.png", lambda p: p.write_bytes(png_of_size(0, 5))),
    "text bomb": ("bad.png", lambda p: p.write_bytes(with_text(encoded(PHOTO, "PNG"), b"x" * 70_000_000))),
    "EPS": ("bad.png", lambda p: PHOTO.save(p, "EPS")),
    "EPS as JPEG": ("bad.jpg", lambda p: PHOTO.save(p, "EPS")),
    "PDF": ("bad.png", lambda p: PHOTO.save(p, "PDF")),
    "WMF": ("bad.png", lambda p: p.write_bytes(b"\xd7\xcd\xc6\x9a\0\0" + bytes(200))),
    "a video": ("bad.webp", lambda p: p.write_bytes(b"\x1aE\xdf\xa3" + bytes(1000))),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_pictures(case: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    name, make = REFUSED[case]
    make(tiny.root / "c" / name)
    code, err = run(tiny.argv(), capsys)
    lines = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert code == 1 and len(lines) == 1 and name in lines[0]
    assert len(results(tiny.out)) == 1, "the other pair is done"


def test_unreadable_file(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from diffstyle.files import read_bytes

    def locked(path: Path) -> bytes:
        if path.name == "locked.png":
            raise WorkError(f"{path}: cannot be read (Permission denied)")
        return read_bytes(path)

    paint(tiny.root / "c" / "locked.png", 5)
    monkeypatch.setattr("diffstyle.runs.inputs.read_bytes", locked)  # the tests run as root, who may read everything
    code, err = run(tiny.argv(), capsys)
    assert code == 1 and "locked.png: cannot be read (Permission denied)" in err and len(results(tiny.out)) == 1


def test_what_is_no_picture_is_skipped(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("notes.txt", "Thumbs.db", "a.pdf", "a.eps", ".hidden.png", "._a.png"):
        (tiny.root / "c" / name).write_bytes(b"x")
    (tiny.root / "c" / "folder.png").mkdir()
    os.mkfifo(tiny.root / "c" / "pipe.png")
    (tiny.root / "c" / "loop.png").symlink_to(tiny.root / "c" / "loop.png")
    code, err = run(tiny.argv("--verbose", "info"), capsys)
    assert code == 0 and "skipped 4 file(s) that are no pictures" in err and len(results(tiny.out)) == 1


# ---- what decoding does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", ["picture", "mask", "record", "result", "exif"])
def test_ghostscript_never_runs(opener: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS is refused by every function that opens a file, whatever it is called."""
    from PIL import EpsImagePlugin

    def run_it(*args: object, **more: object) -> None:
        raise AssertionError("Ghostscript was about to run")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run_it)
    path = tmp_path / "a.png"
    PHOTO.save(path, "EPS")
    if opener in ("picture", "mask"):
        with pytest.raises(WorkError, match="not a readable picture"):
            open_fitted(path, 8) if opener == "picture" else build_mask(str(path), (8, 8))
    elif opener == "exif":
        assert orientation(path.read_bytes()) == 1
    else:
        assert (read_record if opener == "record" else read_result)(path) is None


def slow(path: Path) -> Path:
    """A pipe that nobody writes to: whoever waits for it hangs."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


# What is no regular file, or claims no size, in every place where a file is read; the exit code, the culprit's name.
ENDLESS: dict[str, tuple[Callable[[Tiny], list[str]], int, str]] = {
    "content: a pipe": (lambda t: ["--content_dir", str(slow(t.root / "x.png"))], 2, "x.png: a pipe or device"),
    "content: a device": (lambda t: ["--content_dir", "/dev/zero"], 2, "/dev/zero: a pipe or device"),
    "content: /proc": (lambda t: ["--content_dir", "/proc/self/environ"], 1, "environ"),
    "content: /proc/kmsg": (lambda t: ["--content_dir", "/proc/kmsg"], 1, "kmsg"),
    "style: a link to a device": (lambda t: ["--style_dir", str(link(t.root / "x.png", "/dev/zero"))], 2, "x.png"),
    "list: a pipe": (lambda t: ["--pairs", str(slow(t.root / "x.csv"))], 2, "x.csv: no regular file"),
    "list: a device": (lambda t: ["--pairs", "/dev/zero"], 2, "/dev/zero: no regular file"),
    "list: /proc": (lambda t: ["--pairs", "/proc/self/environ"], 2, "no pairs in it"),
    "a row: a pipe": (lambda t: rows(t, f"{slow(t.root / 'x.png')},s00.png"), 2, "there is no file"),
    "a row: a device": (lambda t: rows(t, "/dev/zero,s00.png"), 2, "there is no file /dev/zero"),
    "a row: /proc": (lambda t: rows(t, "/proc/self/environ,s00.png"), 1, "environ"),
    "mask: a pipe": (lambda t: ["--mask", str(slow(t.root / "x.png"))], 2, "x.png: neither a picture"),
    "mask: a device": (lambda t: ["--mask", "/dev/zero"], 2, "/dev/zero: neither a picture"),
    "mask: /proc": (lambda t: ["--mask", "/proc/self/environ"], 1, "environ: not a readable picture"),
    "result: a pipe": (lambda t: nothing(slow(t.out / "result_content_c00_style_s00.png")), 1, "a pipe or device has"),
    "stack: a device": (lambda t: nothing(link(t.out / "content_c00_style_s00.png", "/dev/zero")), 1, "a pipe or device"),
    "run.json: a pipe": (lambda t: nothing(slow(t.out / "run.json")), 1, "run.json: cannot be written (a pipe or device"),
    "grid: a pipe": (lambda t: nothing(slow(t.out / "grid.png")), 1, "grid.png: cannot be written (a pipe or device"),
    "save_dir: a pipe": (lambda t: ["--save_dir", str(slow(t.root / "x"))], 1, "--save_dir"),
    "cache_dir: a device": (lambda t: ["--cache_dir", "/dev/null"], 1, "--cache_dir"),
    "content: a long name": (lambda t: ["--content_dir", "x" * 300], 2, "--content_dir"),
    "style: a long path": (lambda t: ["--style_dir", "x/" * 3000], 2, "--style_dir"),
    "list: a long name": (lambda t: ["--pairs", "x" * 300], 2, "--pairs"),
    "mask: a long name": (lambda t: ["--mask", "x" * 300], 2, "--mask"),
    "save_dir: a long name": (lambda t: ["--save_dir", str(t.root / ("x" * 300))], 2, "--save_dir"),
    "cache_dir: a long name": (lambda t: ["--cache_dir", str(t.root / ("x" * 300))], 2, "--cache_dir"),
}


def link(path: Path, to: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(to)
    return path


def nothing(_: Path) -> list[str]:
    """No flags: the tree alone is odd."""
    return []


def rows(tiny: Tiny, row: str) -> list[str]:
    (tiny.root / "list.csv").write_text(f"content,style\n{row}\n")
    return ["--pairs", str(tiny.root / "list.csv")]


@pytest.mark.parametrize("case", ENDLESS)
def test_what_never_ends_is_refused(case: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected, words = ENDLESS[case]
    extra = make(tiny)
    with within(20):
        code, err = run(tiny.argv(*extra), capsys)
    lines = [line for line in err.splitlines() if line.startswith(("error: ", "failed: "))]
    assert code == expected and len(lines) == 1 and words in lines[0], err


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail instead of waiting for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it hangs: {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_preprocessing_is_torchvisions() -> None:
    for size in [(12, 10), (10, 12), (37, 64), (101, 50), (50, 101), (8, 8), (1, 9), (300, 7), (255, 254)]:
        image = Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        for target in (8, 32, 256):
            cropped = TF.center_crop(image, [min(size)] * 2)
            theirs = TF.to_tensor(TF.resize(cropped, [target, target], antialias=True)) * 2 - 1
            assert torch.equal(preprocess(image, target), theirs)


@pytest.mark.parametrize(
    ("dtype", "high"), [("uint16", 65535), ("int32", 65535), ("float32", 1.0), ("float32", 255.0), ("int32", 255)]
)
def test_deep_greyscale_is_scaled(dtype: str, high: float) -> None:
    ramp = np.linspace(0, high, 64).reshape(8, 8)
    shown = np.asarray(fit(Image.fromarray(ramp.astype(dtype)), 8)).astype(int)
    assert np.abs(shown - (ramp / high * 255)[..., None]).max() <= 1


def test_exif_turns_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = make_tiny(tmp_path, 1, 1)
    path = tmp_path / "c" / "c00.jpg"
    (tmp_path / "c" / "c00.png").unlink()
    with_exif(path, 6)
    plain, turned = open_fitted(path, 8), open_fitted(path, 8, exif=True)
    rotated = np.asarray(plain.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(turned) - rotated).max() <= 1  # resizing rounds row by row
    assert run(tiny.argv(), capsys)[0] == 0
    before = results(tiny.out)
    # The cache must not answer for the other way up, and it is another picture to the resume.
    assert run(tiny.argv("--exif"), capsys)[0] == 0
    (name,) = before
    assert (results(tiny.out)[name] != before[name]).any()
    stack = np.asarray(Image.open(tiny.out / name.removeprefix("result_")))
    assert np.array_equal(stack[10:18, 1:9], np.asarray(turned))


def test_exif_of_an_upright_picture_changes_nothing(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny.argv("--t_boost", "500"), capsys)[0] == 0
    before = {p: p.stat().st_mtime_ns for p in tiny.out.glob("*content*")}
    assert run(tiny.argv("--t_boost", "500", "--exif"), capsys)[0] == 0
    assert {p: p.stat().st_mtime_ns for p in tiny.out.glob("*content*")} == before


@pytest.mark.slow
def test_hundred_megapixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG is decoded at a fraction, any other format whole; neither warns, and both show the same."""
    small = Image.fromarray(RNG.integers(0, 256, (10, 10, 3), dtype=np.uint8))
    big = small.resize((10000, 10000), Image.Resampling.NEAREST)
    big.save(tmp_path / "big.jpg", quality=80)
    big.save(tmp_path / "big.png", compress_level=1)
    del big
    sizes: list[tuple[int, int]] = []
    real = Image.Image.crop

    def spy(self: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        sizes.append(self.size)
        return real(self, box)

    monkeypatch.setattr(Image.Image, "crop", spy)
    drafted, whole = load_image(tmp_path / "big.jpg", 256), load_image(tmp_path / "big.png", 256)
    assert sizes == [(1250, 1250), (10000, 10000)]
    assert (drafted - whole).abs().mean() < 0.03


# ---- lists -------------------------------------------------------------------------------------------------------

LISTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "no pairs in it"),
    "header only": ("content,style\n", "no pairs in it"),
    "no header": ("c00.png,s00.png\n", "line 1: unknown column 'c00.png'"),
    "misspelt column": ("content,style,gama\nc00.png,s00.png,1\n", "did you mean gamma?"),
    "column twice": ("content,style,style\n", "line 1: the column style is there twice"),
    "missing column": ("content,gamma\nc00.png,1\n", "line 1: the header lacks the column style"),
    "no style": ("content,style\nc00.png,\n", "line 2: no style"),
    "short row": ("content,style\nc00.png\n", "line 2: no style"),
    "too many cells": ("content,style\nc00.png,s00.png\nc00.png,s00.png,0.3\n", "line 3: 3 cells, the header has 2 columns"),
    "missing file": ("content,style\n\n\nnowhere.png,s00.png\n", "line 4: there is no file nowhere.png"),
    "a folder": ("content,style\n..,s00.png\n", "line 2: there is no file .."),
    "path too long": (f"content,style\n{'x' * 5000},s00.png\n", "line 2: there is no file xxx"),
    "gamma of words": ("content,style,gamma\nc00.png,s00.png,much\n", "line 2: gamma is 'much', not a number"),
    "decimal comma": ("content;style;gamma\nc00.png;s00.png;0,3\n", "line 2: gamma is '0,3', not a number"),
    "gamma nan": ("content,style,gamma\nc00.png,s00.png,nan\n", "line 2: --gamma nan is out of range"),
    "omega infinite": ("content,style,omega\nc00.png,s00.png,1e999\n", "line 2: --omega inf is out of range"),
    "seed with fraction": ("content,style,seed\nc00.png,s00.png,1.5\n", "line 2: seed is '1.5', not an integer"),
    "negative seed": ("content,style,seed\nc00.png,s00.png,-1\n", "line 2: --seed -1 is out of range"),
    "seed of 5000 digits": (f"content,style,seed\nc00.png,s00.png,{'9' * 5000}\n", "line 2: seed is"),
    "name with a path": ("content,style,name\nc00.png,s00.png,../../etc\n", "line 2: '../../etc' cannot be the name"),
    "name of the grid": ("content,style,name\nc00.png,s00.png,grid\n", "line 2: 'grid' cannot be the name"),
    "hidden name": ("content,style,name\nc00.png,s00.png,.x\n", "line 2: '.x' cannot be the name"),
    "name twice": ("content,style,seed,name\nc00.png,s00.png,0,x\nc00.png,s00.png,1,X\n", "line 3: the name 'X' is taken by"),
    "result of another": ("content,style,seed,name\nc00.png,s00.png,0,x\nc00.png,s00.png,1,result_x\n", "other names"),
    "open quote": ('content,style\n"c00.png,s00.png\n', "unexpected end of data"),
    "quote in the middle": ('content,style\n"c00"x.png,s00.png\n', "line 2:"),
    "binary": (bytes(range(256)), "not a text file in UTF-8"),
    "UTF-16": ("content,style\nc00.png,s00.png\n".encode("utf-16"), "not a text file in UTF-8"),
    "zero byte": ("content,style\nc00\0.png,s00.png\n", "line 2:"),
    "one huge cell": (f"content,style\n{'x' * 200_000},s00.png\n", "line 2: field larger than field limit"),
}


@pytest.mark.parametrize("case", LISTS)
def test_refused_lists(case: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    text, expected = LISTS[case]
    path = tiny.root / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, err = run(tiny.argv("--pairs", str(path)), capsys)
    lines = err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and expected in lines[0] and not tiny.out.exists()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufeffcontent,style\r\nc00.png,s00.png\r\n", id="BOM and CRLF"),
        pytest.param("Style;CONTENT\n s00.png ; c00.png \n", id="semicolons"),
        pytest.param("content\tstyle\tname\nc00.png\ts00.png\t\n", id="tabs"),
        pytest.param('content,style\n"c00.png","s00.png",,\n', id="quotes and empty cells"),
        pytest.param("style,content,gamma\ns/s00.png,c/c00.png,\n", id="beside the list"),
    ],
)
def test_accepted_lists(text: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    (tiny.root / "list.csv").write_text(text, encoding="utf-8", newline="")
    code, err = run(tiny.argv("--pairs", str(tiny.root / "list.csv")), capsys)
    assert code == 0, err
    assert list(results(tiny.out)) == ["result_content_c00_style_s00.png"]


def test_list_and_noise_stream(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    (tiny.root / "list.csv").write_text("content,style,seed\nc00.png,s00.png,3\n")
    code, err = run(tiny.argv("--pairs", str(tiny.root / "list.csv"), "--noise", "official"), capsys)
    assert code == 2 and "line 2: --noise official is one stream" in err


def test_poisoned_input_of_a_list(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    (tiny.root / "c" / "bad.png").write_bytes(b"x")
    (tiny.root / "list.csv").write_text("content,style\nbad.png,s00.png\nc00.png,s00.png\nbad.png,s00.png\n")
    code, err = run(tiny.argv("--pairs", str(tiny.root / "list.csv")), capsys)
    assert code == 1 and err.count("failed: ") == 1 and len(results(tiny.out)) == 1


# ---- configs, caches, checkpoints, folders -----------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/evil",)


def cache_of(tiny: Tiny, kind: str) -> Path:
    return next((tiny.root / "cache").glob(f"*.{kind}.safetensors"))


# What is done to a tree where everything is fine and one run has been done; exit code; part of the error line.
TREES: dict[str, tuple[Callable[[Tiny], object], int, str]] = {
    "config: empty": (lambda t: (t.root / "tiny.yml").write_text(""), 2, "has 0 bytes"),
    "config: binary": (lambda t: (t.root / "tiny.yml").write_bytes(b"\xff\x00\x01"), 2, "not readable"),
    "config: a list": (lambda t: (t.root / "tiny.yml").write_text("- 1\n"), 2, "needs the sections"),
    "config: open bracket": (lambda t: (t.root / "tiny.yml").write_text("data: {"), 2, "not a readable YAML"),
    "config: python tag": (lambda t: (t.root / "tiny.yml").write_text("!!python/object/apply:os.system [ls]"), 2, "YAML"),
    "config: misspelt": (lambda t: (t.root / "tiny.yml").write_text(CONFIG.replace("ch_mult", "ch_mul")), 2, "line 2"),
    "config: size 0": (lambda t: (t.root / "tiny.yml").write_text(CONFIG.replace("e: 8", "e: 0")), 2, "image_size"),
    "config: size of words": (lambda t: (t.root / "tiny.yml").write_text(CONFIG.replace("e: 8", "e: big")), 2, "image_size"),
    "config: odd width": (lambda t: (t.root / "tiny.yml").write_text(CONFIG.replace("ch: 32", "ch: 33")), 2, "can be built"),
    "config: other width": (lambda t: (t.root / "tiny.yml").write_text(CONFIG.replace("ch: 32", "ch: 64")), 1, "architecture"),
    "config: nested": (lambda t: (t.root / "tiny.yml").write_text("[" * 5000), 2, "not a readable YAML"),
    "config: size infinite": (lambda t: (t.root / "tiny.yml").write_text(CONFIG.replace("e: 8", "e: .inf")), 2, "image_size"),
    "config: type a list": (lambda t: (t.root / "tiny.yml").write_text(CONFIG.replace("ddpm", "[1]")), 2, "model.type"),
    "config: beta nan": (lambda t: (t.root / "tiny.yml").write_text(CONFIG + "diffusion: {beta_start: .nan}"), 2, "beta_start"),
    "config: beta 2": (lambda t: (t.root / "tiny.yml").write_text(CONFIG + "diffusion: {beta_end: 2}"), 2, "must be from"),
    "config: bare diffusion": (lambda t: (t.root / "tiny.yml").write_text(CONFIG + "diffusion: 5"), 2, "the section diffusion"),
    "config: few timesteps": (
        lambda t: (t.root / "tiny.yml").write_text(CONFIG + "diffusion: {num_diffusion_timesteps: 10}"),
        2,
        "--t_0 999",
    ),
    "config: checkpoint a list": (lambda t: (t.root / "tiny.yml").write_text(CONFIG + "checkpoint: [1]"), 2, "checkpoint"),
    "checkpoint: a list": (lambda t: torch.save([1, 2], t.root / "tiny.pt"), 1, "no weights found"),
    "checkpoint: nothing in it": (lambda t: torch.save({}, t.root / "tiny.pt"), 1, "no weights found"),
    "checkpoint: a folder": (lambda t: make_folder(t.root / "tiny.pt"), 1, "a folder without"),
    "checkpoint: key missing": (lambda t: edit_weights(t, lambda w, k: {n: w[n] for n in w if n != k}), 1, "architecture"),
    "checkpoint: key foreign": (lambda t: edit_weights(t, lambda w, k: {**w, "extra": w[k]}), 1, "architecture"),
    "checkpoint: other shape": (lambda t: edit_weights(t, lambda w, k: {**w, k: torch.zeros(7)}), 1, "architecture"),
    "checkpoint: not finite": (lambda t: edit_weights(t, lambda w, k: {**w, k: w[k] * torch.nan}), 1, "not finite"),
    "checkpoint: integers": (lambda t: edit_weights(t, lambda w, k: {n: x.int() for n, x in w.items()}), 1, "not floating point"),
    "checkpoint: DataParallel": (lambda t: edit_weights(t, lambda w, k: {f"module.{n}": x for n, x in w.items()}), 0, ""),
    "checkpoint: safetensors rubbish": (lambda t: (t.root / "tiny.pt").write_bytes(b"\xff" * 8 + b"{}"), 1, "tiny.pt"),
    "checkpoint: empty": (lambda t: (t.root / "tiny.pt").write_bytes(b""), 1, "not a checkpoint"),
    "checkpoint: cut": (lambda t: (t.root / "tiny.pt").write_bytes((t.root / "tiny.pt").read_bytes()[:5000]), 1, "truncated"),
    "checkpoint: web page": (lambda t: (t.root / "tiny.pt").write_text("<html>"), 1, "web page"),
    "checkpoint: code": (lambda t: (t.root / "tiny.pt").write_bytes(pickle.dumps(Evil())), 1, "tiny.pt"),
    "checkpoint: missing": (lambda t: (t.root / "tiny.pt").unlink(), 2, "no such file"),
    "cache: cut x_T": (lambda t: cache_of(t, "xT").write_bytes(cache_of(t, "xT").read_bytes()[:500]), 0, ""),
    "cache: empty h": (lambda t: cache_of(t, "h").write_bytes(b""), 0, ""),
    "cache: foreign": (lambda t: torch.save({"x_T": torch.zeros(2)}, cache_of(t, "xT")), 0, ""),
    "cache: other shape": (lambda t: torch.save({"x_T": torch.zeros(3, 5, 5)}, cache_of(t, "xT")), 0, ""),
    "cache: not finite": (lambda t: torch.save({"x_T": torch.full((3, 8, 8), torch.nan)}, cache_of(t, "xT")), 0, ""),
    "cache: code": (lambda t: cache_of(t, "h").write_bytes(pickle.dumps(Evil())), 0, ""),
    "cache: a list": (lambda t: torch.save([1, 2], cache_of(t, "h")), 0, ""),
    "cache: lengths differ": (
        lambda t: torch.save({"t": torch.arange(999), "h": torch.ones(2, 3, 8, 8)}, cache_of(t, "h")),
        0,
        "",
    ),
    "cache: gone": (lambda t: shutil.rmtree(t.root / "cache"), 0, ""),
    "cache_dir: a file": (lambda t: t.extra.extend(["--cache_dir", str(t.root / "tiny.yml")]), 1, "--cache_dir"),
    "save_dir: a file": (lambda t: t.extra.extend(["--save_dir", str(t.root / "tiny.yml")]), 1, "--save_dir"),
    "save_dir: below a file": (lambda t: t.extra.extend(["--save_dir", str(t.root / "tiny.yml/x")]), 1, "--save_dir"),
    "save_dir: the inputs": (lambda t: t.extra.extend(["--save_dir", str(t.root / "c")]), 2, "would become inputs"),
    "content_dir: missing": (lambda t: t.extra.extend(["--content_dir", str(t.root / "x")]), 2, "no such folder"),
    "content_dir: empty": (lambda t: (t.root / "c" / "c00.png").unlink(), 2, "no picture in it"),
    "content_dir: deeper": (lambda t: t.extra.extend(["--content_dir", str(t.root), "--save_dir", "/tmp/x"]), 2, "--recursive"),
    "layout: unknown": (lambda t: t.extra.extend(["--layout", "round"]), 2, "--layout round is not known"),
    "pairs: missing": (lambda t: t.extra.extend(["--pairs", "x.csv"]), 2, "not readable"),
    "pairs: a folder": (lambda t: t.extra.extend(["--pairs", str(t.root)]), 2, "but a folder"),
    "batch_size: none": (lambda t: t.extra.extend(["--batch_size", "0"]), 2, "--batch_size 0"),
}


def edit_weights(tiny: Tiny, change: Callable[[dict[str, torch.Tensor], str], dict[str, torch.Tensor]]) -> None:
    """Replace the checkpoint by what ``change`` makes of its weights and the first of their names."""
    weights = torch.load(tiny.root / "tiny.pt")
    torch.save(change(weights, next(iter(weights))), tiny.root / "tiny.pt")


def make_folder(path: Path) -> None:
    """A folder where a file of ours was."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("case", TREES)
def test_odd_trees(case: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    change, expected, words = TREES[case]
    assert run(tiny.argv(), capsys)[0] == 0
    before = results(tiny.out)
    change(tiny)
    code, err = run(tiny.argv("--overwrite"), capsys)
    assert code == expected, err
    if words:
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and words in lines[0]
    else:
        after = results(tiny.out)
        assert all((after[k] == before[k]).all() for k in before)
    assert not Path("/tmp/evil").exists()


def test_corpus_is_large() -> None:
    assert len(ACCEPTED) + len(REFUSED) + len(LISTS) + len(TREES) >= 60
