"""Files that mean harm: refused in one line, in under a second of computing, without filling the machine or hanging it."""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import pickletools
import resource
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import convert_checkpoint
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffstyle.errors import DiffstyleError, UsageError, WorkError, one_line
from diffstyle.files import read_json
from diffstyle.model import ModelConfig
from diffstyle.models import build_unet
from diffstyle.zoo import weights
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.entries import load_zoo
from diffstyle.zoo.folders import schedule_beside
from diffstyle.zoo.integrity import sidecar
from diffstyle.zoo.strict import build_strictly
from diffstyle.zoo.weights import read_state

CONFIG = ModelConfig("tiny", "CelebA_HQ", "CelebA_HQ", 32, "ddpm", {"ch": 32, "ch_mult": [1], "num_res_blocks": 1})


def legacy_head() -> bytes:
    """What torch before 1.6 writes in front of the object."""
    file = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    for _ in range(3):
        for _ in pickletools.genops(file):
            pass
    return file.getvalue()[: file.tell()]


def write(path: Path, body: bytes, zipped: bool) -> Path:
    """A checkpoint with ``body`` as its object's pickle."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", body)
            archive.writestr("m/version", "3\n")
    else:
        path.write_bytes(legacy_head() + body + pickle.dumps([], protocol=2))
    return path


@contextmanager
def cheaply(seconds: float = 1.0, megabytes: int = 300) -> Iterator[None]:
    """What is inside takes less computing time, and less memory at its peak, than this. Measuring coverage slows it down."""
    seconds *= 10 if sys.gettrace() else 1
    gc.freeze()  # else its objects have those of all tests before looked through for garbage
    before, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    finally:
        gc.unfreeze()
    assert time.process_time() - before < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < megabytes << 10


def refused(read: Callable[[], Any], said: str) -> None:
    """One line, fit for a terminal, without advice to do something unsafe."""
    with cheaply(), pytest.raises(DiffstyleError) as error:
        read()
    text = str(error.value)
    assert said in text
    assert text.isprintable()
    assert "weights_only" not in text
    assert "safe_globals" not in text


# ---- pickles -----------------------------------------------------------------------------------------------------

BOMBS: dict[str, tuple[bytes, str]] = {
    "a key nested 3,000,000 deep": (b"\x80\x02}(" + b")" + b"\x85" * 3_000_000 + b"K\x01u.", "nested more than 50 deep"),
    "lists in lists": (b"\x80\x02" + b"]" * 2_000_000 + b"a" * 1_999_999 + b".", "more than 400000 operations"),
    "a list of lists": (b"\x80\x02](" + b"]" * 4_000_000 + b"e.", "more than 400000 operations"),
    "tuples that double": (b"\x80\x02)" + b"q\x00h\x00\x86" * 200_000 + b".", "nested more than 50 deep"),
    "code": (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "reading it would call os.system"),
    "code under a torch name": (b"\x80\x02ctorch.hub\nload\n).", "reading it would call torch.hub.load"),
    "a name with control characters": (b"\x80\x02c\x1b[2J\nx\n.", "\\x1b[2J"),
    "a call of what it made": (b"\x80\x02]q\x00)R.", "it calls what it has made itself"),
    "attributes of a list": (b"\x80\x02]}b.", "sets attributes"),
    "another protocol": (b"\x80\x04\x8c\x01a.", "is of protocol 4, torch writes 2"),
    "another protocol in secret": (b"\x80\x02\x8c\x01a.", "uses SHORT_BINUNICODE"),
    "a long string": (b"\x80\x02X\xff\xff\xff\xff", "truncated or damaged"),
    "a long number": (b"\x80\x02\x8b\xff\xff\xff\x7f", "truncated or damaged"),
    "an empty stack": (b"\x80\x02\x86.", "damaged"),
    "a mark that is missing": (b"\x80\x02t.", "damaged"),
    "nothing in the memo": (b"\x80\x02h\x05.", "damaged"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", BOMBS)
def test_pickles(name: str, zipped: bool, tmp_path: Path) -> None:
    body, said = BOMBS[name]
    path = write(tmp_path / "m.pt", body, zipped)
    refused(lambda: load_model(CONFIG, path), said)


def shared(*shape: int) -> Tensor:
    """One number shown as many."""
    return torch.zeros(1).expand(*shape)


KIND = "tensors of a kind that no network here has"
TENSORS: dict[str, tuple[Callable[[], Tensor], str]] = {
    "stride 0": (lambda: shared(1_000_000, 3000), "for which there are 1 numbers"),
    "strides that overlap": (lambda: torch.zeros(1000).as_strided((500, 500), (1, 1)), "for which there are 1000 numbers"),
    "sparse": (lambda: torch.zeros(1000, 1000).to_sparse(), KIND),
    "compressed sparse": (lambda: torch.eye(4).to_sparse_csr(), KIND),
    "quantized": (lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8), KIND),
    "meta": (lambda: torch.zeros(100_000, 100_000, device="meta"), KIND),
    "complex": (lambda: torch.zeros(3, dtype=torch.complex64), KIND),
}


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*quantize")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_none(name: str, zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, said = TENSORS[name]
    torch.save({"conv_in.weight": make()}, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    refused(lambda: load_model(CONFIG, tmp_path / "m.pt"), said)
    with cheaply():
        assert convert_checkpoint.main([str(tmp_path / "m.pt"), str(tmp_path / "out.pt")]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize(("value", "said"), [
    (torch.tensor(float("nan")), "values that are not finite"), (torch.tensor(float("inf")), "values that are not finite"),
    (torch.tensor(1), "is int64 in the file, not floating point"), (torch.tensor(True), "is bool in the file"),
])  # fmt: skip
def test_numbers_that_are_none(value: Tensor, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = build_unet("ddpm", 32, CONFIG.architecture).state_dict()
    state["conv_in.bias"] = value.expand(32).clone()
    torch.save(state, tmp_path / "m.pt")
    refused(lambda: load_model(CONFIG, tmp_path / "m.pt"), f"conv_in.bias {'holds ' if 'finite' in said else ''}{said}")
    for out in ("out.pt", "out"):
        assert convert_checkpoint.main([str(tmp_path / "m.pt"), str(tmp_path / out), "--image_size", "32"]) == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / out).exists()


def test_one_storage_shown_many_times_is_not_copied_out(tmp_path: Path) -> None:
    whole = torch.zeros(100_000)
    torch.save({f"w{i}": whole for i in range(1000)}, tmp_path / "m.pt")
    refused(lambda: read_state(tmp_path / "m.pt"), "would unpack to 100000000 numbers")


def test_complex_numbers_in_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"w": torch.zeros(3, dtype=torch.complex64)}, tmp_path / "m.safetensors")
    refused(lambda: read_state(tmp_path / "m.safetensors"), "no plain tensor of real numbers")


def test_keys_are_shown_without_control_characters(tmp_path: Path) -> None:
    torch.save({"\x1b[2J" + "x" * 5000: torch.zeros(1)}, tmp_path / "m.pt")
    refused(lambda: load_model(CONFIG, tmp_path / "m.pt"), "absent in the file")
    torch.save({"\x1b[2J": 1}, tmp_path / "m.pt")
    refused(lambda: load_model(CONFIG, tmp_path / "m.pt"), "it holds: \\x1b[2J")


# ---- containers --------------------------------------------------------------------------------------------------


def test_a_tar_whose_name_begins_like_a_pickle(tmp_path: Path) -> None:
    name = legacy_head()[:20].decode("latin-1").split("\0")[0]
    with tarfile.open(tmp_path / "m.pt", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert (tmp_path / "m.pt").read_bytes()[:2] == b"\x80\x02"
    refused(lambda: load_model(CONFIG, tmp_path / "m.pt"), "neither torch nor safetensors")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_that_are_none_of_torch(tmp_path: Path) -> None:
    good = b"\x80\x02}."
    for entries, said in (
        ([("m/data.pkl", good), ("m/data.pkl", BOMBS["code"][0])], "not as torch writes it"),
        ([("m/data.pkl", good), ("n/data.pkl", BOMBS["code"][0])], "not as torch writes it"),
        ([("m/other", b"")], "not as torch writes it"),
    ):
        with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
            for name, body in entries:
                archive.writestr(name, body)
        refused(lambda: read_state(tmp_path / "m.pt"), said)


def test_a_storage_that_is_not_as_long_as_its_tensors_say(tmp_path: Path) -> None:
    """Mapped from the file, the missing numbers would be its next bytes."""
    torch.save({"w": torch.arange(1000.0), "v": torch.ones(1000)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as old, zipfile.ZipFile(tmp_path / "m.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[: 400 if name.endswith("data/0") else None])
    refused(lambda: read_state(tmp_path / "m.pt"), "storage 0 has 400 bytes instead of 4000")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_devices_and_proc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    places = {tmp_path / "pipe": "pipe or device", Path("/dev/zero"): "pipe or device", Path("/proc/kmsg"): "empty",
              Path("/proc/self/environ"): "empty"}  # fmt: skip
    for place, said in places.items():
        if place.exists():
            refused(lambda place=place: load_model(CONFIG, place), said)  # type: ignore[misc]
            assert convert_checkpoint.main([str(place), str(tmp_path / "out.pt")]) in (1, 2)
            assert said in capsys.readouterr().err
    state = build_unet("ddpm", 32, CONFIG.architecture).state_dict()
    torch.save(state, tmp_path / "m.pt")
    os.mkfifo(sidecar(tmp_path / "m.pt"))
    load_model(CONFIG, tmp_path / "m.pt")  # no hash is known of it
    (tmp_path / "net").mkdir()
    os.mkfifo(tmp_path / "net" / "diffusion_pytorch_model.bin")
    refused(lambda: load_model(CONFIG, tmp_path / "net"), "pipe or device")


# ---- YAML and JSON -----------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
DDPM = "data: {dataset: CelebA_HQ, image_size: 32}\nmodel: {type: ddpm, ch: 32, ch_mult: [1, 2], attn_resolutions: [16]}\n"
CONFIGS: dict[str, tuple[str, str]] = {
    "laughs": (LAUGHS, "line 2: an alias"),
    "laughs as a value": (DDPM.replace("32,", "*i,").replace("data:", LAUGHS + "data:"), "line 2: an alias"),
    "itself": ("data: &a {image_size: *a}\nmodel: {}\n", "an alias"),
    "long": (DDPM + "#" * 300_000, "a text of 1 to 262144 was expected"),
    "empty": ("", "a text of 1 to"),
    "deep": ("[" * 50_000, "not a readable YAML file"),
    "many timesteps": (DDPM + "diffusion: {num_diffusion_timesteps: 1000000000}", "it must be from 1 to 10000"),
    "many in text": (DDPM + "diffusion: {num_diffusion_timesteps: 1e9}", "it must be from 1 to 10000"),
    "endless": (DDPM + "diffusion: {beta_end: .inf}", "beta_end is inf, it must be from"),
    "many blocks": (DDPM.replace("ch: 32", "ch: 32, num_res_blocks: 1000000"), "num_res_blocks is 1000000, it must be"),
    "wide": (DDPM.replace("ch: 32", "ch: 1000000000"), "ch is 1000000000, it must be from 1 to 4096"),
    "wider below": (DDPM.replace("[1, 2]", "[1, 1000000]"), "ch_mult is 1000000, it must be from 0.01 to 64"),
    "many levels": (DDPM.replace("[1, 2]", "[1" + ", 1" * 99 + "]"), "it must be a list of at most 10 numbers"),
    "65 pixels": (DDPM.replace("image_size: 32", "image_size: 65"), "image_size is 65, it must be a multiple of 2"),
    "large": (DDPM.replace("image_size: 32", "image_size: 1000000"), "image_size is 1000000, it must be from 8 to 4096"),
    "half a picture": (DDPM.replace("image_size: 32", "image_size: 32.5"), "must be an integer"),
    "a large hexadecimal number": (DDPM.replace("image_size: 32", "image_size: 0x" + "f" * 5000), "image_size is"),
    "control characters": (DDPM + 'checkpoint: ["\\e[2J"]', "checkpoint is ['\\x1b[2J']"),
    "control characters in a key": (DDPM + '"\\e[2J": 1', "unknown section '\\x1b[2J'"),
    "a long key": (DDPM + "x" * 1000 + ": 1", "..."),
    "a tag": (DDPM + "checkpoint: !!python/object/apply:os.system [true]", "not a readable YAML file"),
    "a picture in the network": (DDPM.replace("ch: 32", "ch: 32, in_channels: 1"), "in_channels is 1, it must be 3"),
    "a key twice": (DDPM + "settings: {gamma: 0.1, gamma: 0.2}", "line 3: 'gamma' is there twice"),
    "a section twice": (DDPM + "settings: {gamma: 0.1}\nsettings: {gamma: 0.2}", "line 4: 'settings' is there twice"),
    "yes for a number": (DDPM.replace("ch: 32", "ch: yes"), "ch is True, not a number"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name: str, tmp_path: Path) -> None:
    text, said = CONFIGS[name]
    (tmp_path / "m.yml").write_text(text)
    refused(lambda: load_config(tmp_path / "m.yml"), said)
    with pytest.raises(UsageError, match=r"m\.yml"):
        load_config(tmp_path / "m.yml")


def test_the_good_config_behind_the_bad_ones(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(DDPM)
    assert load_config(tmp_path / "m.yml").architecture["ch_mult"] == [1, 2]


def test_the_zoo_s_list_and_json(tmp_path: Path) -> None:
    (tmp_path / "zoo.yml").write_text(LAUGHS)
    refused(lambda: load_zoo(tmp_path / "zoo.yml"), "an alias")
    damaged, sized = "not readable as JSON", "a text of 1 to"
    for text, said in (("[" * 100_000, damaged), ("{", damaged), ("1" * 6000, damaged), (" " * 300_000, sized), ("", sized)):
        (tmp_path / "config.json").write_text(text)
        refused(lambda: read_json(tmp_path / "config.json"), said)
    (tmp_path / "config.json").write_bytes(b'"\xff"')
    refused(lambda: read_json(tmp_path / "config.json"), "not readable")


# ---- scripts/convert_checkpoint.py -------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    torch.save(build_unet("ddpm", 32, CONFIG.architecture).state_dict(), tmp_path / "m.pt")
    return tmp_path / "m.pt"


def test_convert_to_places_that_cannot_be(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "net").mkdir()
    os.link(plain, tmp_path / "link.pt")
    before = plain.read_bytes()
    for out, code, said in (
        (plain, 2, "is what is to be read"),
        (tmp_path / "link.pt", 2, "is what is to be read"),
        (tmp_path, 2, "is what is to be read"),
        (tmp_path / "file", 2, "is there and no folder"),
        (tmp_path / "folder.pt", 2, "is there and no file"),
        (Path("/dev/full"), 2, "is there and no folder"),
        (tmp_path / "file" / "out.pt", 1, "cannot be written"),
        (tmp_path / "file" / "out", 1, "cannot be made"),
        (tmp_path / "no" / "out.safetensors", 1, "cannot be written"),
        (tmp_path / ("x" * 300 + ".pt"), 2, "File name too long"),
        (tmp_path / "a\0b.pt", 1, "cannot be written"),
    ):
        assert convert_checkpoint.main([str(plain), str(out), "--image_size", "32"]) == code, out
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert plain.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"m.pt", "link.pt", "file", "folder.pt", "net"}
    assert convert_checkpoint.main([str(plain), str(tmp_path / "out.pt"), "--image_size", "0"]) == 2


def test_convert_beside_a_config_json_that_is_none(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("{", "[]", "7", json.dumps({"_class_name": "Other"}), json.dumps({"_class_name": "UNet2DModel"})):
        (tmp_path / "config.json").write_text(content)
        assert convert_checkpoint.main([str(plain), str(tmp_path / "out.pt")]) in (0, 1, 2)
        assert capsys.readouterr().err.count("\n") <= 1


def test_convert_when_the_disk_is_full(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        for out in ("out.pt", "out.safetensors", "out"):
            assert convert_checkpoint.main([str(plain), str(tmp_path / out), "--image_size", "32"]) == 1
            assert "cannot be written" in capsys.readouterr().err
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [plain]


# ---- any bytes ---------------------------------------------------------------------------------------------------


def small_checkpoints() -> list[bytes]:
    result = []
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save({"a.weight": torch.ones(2, 3), "n": {"x": (1, 2.0, None)}}, file, _use_new_zipfile_serialization=zipped)
        result.append(file.getvalue())
    return result


@settings(max_examples=300, deadline=None)
@example(small_checkpoints()[0], [(1086, b"@")])  # a version of zip that Python does not know
@given(st.sampled_from(small_checkpoints()),
       st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=4)), max_size=4))  # fmt: skip
def test_damaged_checkpoints_are_read_or_refused_in_one_line(whole: bytes, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(whole)
    for at, new in changes:
        content[at : at + len(new)] = new
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"diffstyle-{os.getpid()}.pt"
    path.write_bytes(bytes(content))
    try:
        read_state(path)
    except WorkError as error:
        assert str(error).isprintable()
    finally:
        path.unlink()


@given(st.text())
def test_one_line_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()


def test_a_message_is_no_longer_than_a_screen() -> None:
    """Names in a file can have any length; what is wrong and what to do stay."""
    text = str(WorkError(f"config.json: act_fn is {'x' * 200_000}, the DDPM network needs silu"))
    assert len(text) < 1100 and text.startswith("config.json: act_fn is x") and text.endswith("x, the DDPM network needs silu")


def test_a_scalar_where_a_convolution_belongs() -> None:
    state = build_unet("ddpm", 32, CONFIG.architecture).state_dict() | {"conv_in.weight": torch.tensor(0.0)}
    refused(lambda: build_strictly(CONFIG, state, Path("m.pt")), "conv_in.weight is () in the file")


def test_betas_that_leave_nothing_of_the_picture(tmp_path: Path) -> None:
    torch.save(build_unet("ddpm", 32, CONFIG.architecture).state_dict(), tmp_path / "m.pt")
    refused(lambda: load_model(replace(CONFIG, beta_start=0.9, beta_end=0.9), tmp_path / "m.pt"), "pure noise has no inversion")


@pytest.mark.parametrize("target", ["nowhere", "scheduler_config.json"])
def test_a_description_that_is_a_link_to_nowhere_is_not_absent(target: str, tmp_path: Path) -> None:
    (tmp_path / "scheduler_config.json").symlink_to(target)
    refused(lambda: schedule_beside(tmp_path / "diffusion_pytorch_model.bin"), "scheduler_config.json: not readable")


def test_torch_s_advice_is_not_passed_on() -> None:
    text = weights.reason(pickle.UnpicklingError("Weights only load failed. ... set `weights_only` to `False` ..."))
    assert text == "UnpicklingError"
    assert weights.reason(ValueError("a\nb\x1b")) == "ValueError: a b\\x1b"
