"""The cache of latents: what is read is what was written, or nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import main
from batch_tools import Tiny, make_tiny, pictures
from diffstyle.files import write_whole
from diffstyle.runs import latents
from diffstyle.runs.latents import LatentCache
from diffstyle.runs.tensors import read_entries, read_tensors, write_tensors


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    tiny = make_tiny(tmp_path, 1, 1)
    tiny.extra = ["--batch_size", "1"]
    return tiny


def save(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    write_whole(path, lambda f: write_tensors(f, tensors))
    return path


def test_round_trip(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        str(i): torch.randn(3, i + 1, 2, generator=generator).to(dtype)
        for i, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16, torch.float64))
    }
    tensors["turned"] = torch.randn(4, 5, generator=generator).T
    path = save(tmp_path / "x", tensors)
    found = read_tensors(path)
    assert list(found) == list(tensors) and all(torch.equal(found[k], tensors[k]) for k in found)
    assert {k: (e.dtype, e.shape) for k, e in read_entries(path).items()} == {k: (x.dtype, x.shape) for k, x in tensors.items()}
    found["0"][0] = 1  # writable, and the file is not


def test_other_programs_read_it(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(safetensors.load_file(save(tmp_path / "x", {"a": x, "b": x + 1}))["b"], x + 1)


def test_every_bit_counts(tmp_path: Path) -> None:
    """Any single flipped bit, and any cut, of a small file is noticed."""
    path = save(tmp_path / "x", {"x_T": torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))})
    whole = path.read_bytes()
    cases = [bytes(b ^ (1 << bit if i == at else 0) for i, b in enumerate(whole)) for at in range(len(whole)) for bit in (0, 6)]
    cases += [whole[:n] for n in range(len(whole))] + [whole + b"\0"]
    for data in cases:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=""):  # some of them json's own
            read_tensors(path)


# What is done to the one x_T or h of a finished run.
def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x40
    path.write_bytes(data)


def of(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    """A file with a right checksum whose tensors are changed."""
    return lambda path: save(path, {name: change(x) for name, x in read_tensors(path).items()})


BROKEN: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flipped,
    "zeros at its end": lambda p: p.write_bytes(p.read_bytes()[:-16] + bytes(16)),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-4]),
    "empty": lambda p: p.write_bytes(b""),
    "of another size": of(lambda x: x.repeat(1, 2, 2)),
    "of other channels": of(lambda x: torch.cat([x, x])),
    "without a dimension": of(lambda x: x[0]),
    "whole numbers": of(lambda x: x.double().round().long()),
    "double precision": of(lambda x: x.double()),
    "half precision": of(lambda x: x.half()),
    "not finite": of(lambda x: x * torch.nan),
    "other names": lambda p: save(p, {f"x{name}": x for name, x in read_tensors(p).items()}),
    "one name more": lambda p: save(p, {**read_tensors(p), "more": torch.zeros(1)}),
    "no tensor": lambda p: save(p, {}),
    "one of torch's": lambda p: torch.save({"x_T": torch.zeros(3, 8, 8)}, p),
    "a deep header": lambda p: p.write_bytes((80_000).to_bytes(8, "little") + b"[" * 80_000),
    "a header of 8 EB": lambda p: p.write_bytes(b"\xff" * 7 + b"\x7f" + bytes(100)),
}


@pytest.mark.parametrize("kind", ["xT", "h"])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_made_anew(case: str, kind: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(tiny.argv()) == 0
    before = pictures(tiny.out)
    (path,) = (tiny.root / "cache").glob(f"*.{kind}.safetensors")
    whole = path.read_bytes()
    BROKEN[case](path)
    for file in tiny.out.iterdir():
        file.unlink()
    capsys.readouterr()
    assert main.main(tiny.argv()) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "broken cache file, computed anew" in line]
    assert said and all(path.name in line for line in said)
    assert pictures(tiny.out) == before and path.read_bytes() == whole


def test_pipes_are_no_latents(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(tiny.argv()) == 0
    (path,) = (tiny.root / "cache").glob("*.h.*")
    path.unlink()
    os.mkfifo(path)
    assert main.main(tiny.argv("--overwrite")) == 1
    assert "a pipe or device has that name" in capsys.readouterr().err


def test_looking_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether latents are there is seen from the header: of 6 MB no more than 10 kB are read."""
    cache = LatentCache(tmp_path, {"size": 64})
    cache.put_h("a", {t: torch.zeros(512, 8, 8) for t in range(50)})
    cache.put_x_T("a", torch.zeros(3, 64, 64))
    taken = []

    class Counted:
        def __init__(self, file: Any) -> None:
            self.file = file

        def read(self, count: int) -> bytes:
            taken.append(count)
            return self.file.read(count)  # type: ignore[no-any-return]

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: Counted(real(self, mode)))
    assert cache.has_h("a", [0, 49]) and not cache.has_h("a", [50]) and cache.has_x_T("a") and not cache.has_x_T("b")
    assert 0 < sum(taken) < 4 * 10_000


def test_the_key_is_what_counts(tmp_path: Path) -> None:
    one, other = (LatentCache(tmp_path, {"size": 8, "checkpoint": c}) for c in "ab")
    one.put_x_T("p", torch.zeros(3, 8, 8))
    assert one.get_x_T("p") is not None and other.get_x_T("p") is None and one.get_x_T("q") is None


def test_there_is_no_pickle() -> None:
    source = Path(latents.__file__).read_text() + Path(latents.__file__).with_name("tensors.py").read_text()
    assert "torch.load" not in source and "torch.save" not in source


def test_header_is_plain_json(tmp_path: Path) -> None:
    data = save(tmp_path / "x", {"x_T": torch.zeros(3, 8, 8)}).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["x_T"] == {"dtype": "F32", "shape": [3, 8, 8], "data_offsets": [0, 768]} and header["__metadata__"]["crc32"]
