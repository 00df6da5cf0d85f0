"""Checkpoints: where they are found, every format, strict comparison, and files that must be refused."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffstyle.errors import UsageError, WorkError
from diffstyle.model import ModelConfig
from diffstyle.models import build_unet
from diffstyle.models.convert import diffusers_config, to_diffusers
from diffstyle.zoo import checkpoints
from diffstyle.zoo.checkpoints import find_checkpoint, load_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.entries import Entry
from diffstyle.zoo.integrity import record
from diffstyle.zoo.strict import build_strictly
from diffstyle.zoo.weights import read_state

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DDPM = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [16]}
CONFIG = ModelConfig("tiny", "CelebA_HQ", "CelebA_HQ", 32, "ddpm", DDPM)
ADM = {"num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 1, 2], "attention_resolutions": [16, 8],
       "num_heads": 4, "num_head_channels": 32}  # fmt: skip
ADM_CONFIG = ModelConfig("tiny_adm", "FFHQ", "FFHQ", 32, "adm", ADM)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build_unet("ddpm", 32, DDPM).state_dict())


def message(error: pytest.ExceptionInfo[Any]) -> str:
    """The error's text, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


# ---- formats -----------------------------------------------------------------------------------------------------

FORMATS: dict[str, Callable[[Mapping[str, Tensor]], Any]] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"step": torch.ones(1)}},
    "model": lambda s: {"model": s, "args": {"lr": 0.1}},
    "ema before model": lambda s: {"model": {k: torch.zeros_like(v) for k, v in s.items()}, "ema": s},
    "list of DDIM": lambda s: [{k: v + 1 for k, v in s.items()}, {"state": {}}, 5, 99, s],
    "list without ema": lambda s: [s, {"state": {}}, 5, 99],
    "DataParallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "wrapped twice": lambda s: {"state_dict": {f"model.module.{k}": v for k, v in s.items()}},
    "fp16": lambda s: {k: v.half() for k, v in s.items()},
    "diffusers file": to_diffusers,
    "diffusers file, old attention": lambda s: to_diffusers(s, old_attention=True),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", FORMATS)
def test_torch_formats(name: str, zipped: bool, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.anything"
    torch.save(FORMATS[name](state), path, _use_new_zipfile_serialization=zipped)
    model = load_model(CONFIG, path)
    tolerance = 1e-3 if name == "fp16" else 0
    for key, value in model.unet.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, state[key], rtol=tolerance, atol=tolerance)


def save_safetensors(state: Mapping[str, Tensor], path: Path) -> None:
    pytest.importorskip("safetensors.torch").save_file({k: v.contiguous() for k, v in state.items()}, path)


@pytest.mark.parametrize("kind", ["file", "folder", "pipeline"])
def test_safetensors_and_diffusers_folders(kind: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    if kind == "file":
        save_safetensors(state, path)
    else:
        path = tmp_path / "m"
        inner = path if kind == "folder" else path / "unet"
        inner.mkdir(parents=True)
        (inner / "config.json").write_text(json.dumps(diffusers_config(32, DDPM)))
        save_safetensors(to_diffusers(state), inner / "diffusion_pytorch_model.safetensors")
    model = load_model(CONFIG, path)
    assert all(torch.equal(value, state[key]) for key, value in model.unet.state_dict().items())


@pytest.mark.parametrize(("config", "family"), [(CONFIG, "ddpm"), (ADM_CONFIG, "adm")])
def test_published_names(config: ModelConfig, family: str) -> None:
    if family == "ddpm":
        config = dataclasses.replace(config, architecture=DDPM | {"ch_mult": [1, 1, 2]})
    path = GOLDEN / family / "model.pt"
    model = load_model(config, path, precision="bf16")
    assert model.path == path
    assert len(model.digest) == 64
    assert len(model.schedule) == 1000
    assert not model.unet.training
    assert not any(p.requires_grad for p in model.unet.parameters())
    weights = [m.weight for m in model.unet.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(w.is_contiguous() and w.dtype == torch.bfloat16 for w in weights)
    published = torch.load(path, weights_only=True)
    fp32 = load_model(config, path).unet.state_dict()
    assert all(torch.equal(fp32[key], published[key]) for key in published)


def test_label_embedding_is_dropped_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    published = torch.load(GOLDEN / "adm" / "model.pt", weights_only=True)
    torch.save({**published, "label_emb.weight": torch.zeros(1000, 128)}, tmp_path / "m.pt")
    with caplog.at_level(logging.INFO):
        load_model(ADM_CONFIG, tmp_path / "m.pt")
    assert "label_emb.weight dropped" in caplog.text


def test_loaded_weights_do_not_hang_on_the_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(state, path)
    unet = load_model(CONFIG, path).unet
    path.write_bytes(b"")  # a mapped file would now kill the process
    assert all(torch.equal(value, state[key]) for key, value in unet.state_dict().items())


# ---- another architecture ----------------------------------------------------------------------------------------


def test_mismatch_names_key_shapes_and_what_it_looks_like(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "m.pt")
    wider = dataclasses.replace(CONFIG, architecture=DDPM | {"ch": 64})
    with pytest.raises(WorkError) as error:
        load_model(wider, tmp_path / "m.pt")
    text = message(error)
    assert "temb.dense.0.weight is (128, 32) in the file, (256, 64) in the network" in text
    assert "the weights look like ch 32, tiny.yml says ch 64" in text


@pytest.mark.parametrize(
    ("config", "file", "said"),
    [
        (CONFIG, "adm", "the weights look like family adm, tiny.yml says family ddpm"),
        (ADM_CONFIG, "ddpm", "the weights look like family ddpm, tiny_adm.yml says family adm"),
        (load_config("celeba"), "ddpm", "ch_mult [1, 1, 2]"),
        (dataclasses.replace(ADM_CONFIG, architecture=ADM | {"attention_resolutions": [8]}), "adm",
         "look like attention_resolutions [16, 8], tiny_adm.yml says attention_resolutions [8]"),
        (dataclasses.replace(ADM_CONFIG, architecture=ADM | {"learn_sigma": False}), "adm", "learn_sigma True"),
    ],
)  # fmt: skip
def test_other_families_and_sizes(config: ModelConfig, file: str, said: str) -> None:
    with pytest.raises(WorkError, match="another architecture") as error:
        load_model(config, GOLDEN / file / "model.pt")
    assert said in message(error)


def test_missing_foreign_and_strange_keys(state: dict[str, Tensor]) -> None:
    for change, said in (
        ({"extra.weight": torch.zeros(3)}, "extra.weight is (3,) in the file, absent in the network"),
        ({"conv_out.bias": None}, "conv_out.bias is absent in the file, (3,) in the network"),
        ({"conv_out.bias": torch.zeros(3, dtype=torch.int8)}, "conv_out.bias is int8 in the file, not floating point"),
        ({"conv_out.bias": torch.full((3,), float("nan"))}, "conv_out.bias holds values that are not finite"),
    ):
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        with pytest.raises(WorkError) as error:
            build_strictly(CONFIG, changed, Path("m.pt"))
        assert said in message(error)
    with pytest.raises(WorkError, match="no known family"):
        build_strictly(CONFIG, {"w": torch.zeros(1)}, Path("m.pt"))


def test_a_config_that_describes_no_network(state: dict[str, Tensor]) -> None:
    broken = dataclasses.replace(CONFIG, architecture=DDPM | {"ch": 33})  # not a multiple of 32 groups
    with pytest.raises(UsageError, match=r"tiny\.yml: no ddpm network"):
        build_strictly(broken, state, Path("m.pt"))


def test_config_json_beside_the_weights_is_compared(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(to_diffusers(state), tmp_path / "diffusion_pytorch_model.bin")
    for change, said in (
        ({"flip_sin_to_cos": True}, "cos_first is True, tiny.yml says False; --config "),
        ({"attention_head_dim": 8}, "head_dim is 8, tiny.yml says None"),
        ({"sample_size": 64}, "image_size is 64, tiny.yml says 32"),
        ({"add_attention": False}, "add_attention is False"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(diffusers_config(32, DDPM) | change))
        with pytest.raises(WorkError) as error:
            load_model(CONFIG, tmp_path)
        assert said in message(error)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WorkError, match="not readable as JSON"):
        load_model(CONFIG, tmp_path)
    (tmp_path / "config.json").write_text("{}")  # not diffusers'
    load_model(CONFIG, tmp_path)


# ---- files that must be refused ----------------------------------------------------------------------------------


class Evil:
    """Unpickling this would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_by_name(zipped: bool, state: dict[str, Tensor], tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    torch.save({**state, "x": Evil(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WorkError) as error:
        load_model(CONFIG, path)
    assert "refused" in message(error)
    assert "posix.mkdir" in message(error)
    assert not target.exists()


def test_a_bare_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    with pytest.raises(WorkError) as error:
        read_state(tmp_path / "evil.pt")
    message(error)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_files(kind: str, share: float, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "m"
    if kind == "safetensors":
        save_safetensors(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(WorkError) as error:
        load_model(CONFIG, path)
    assert "get it again" in message(error) or "truncated" in message(error)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello, world, this is a text", "not a checkpoint"),
        (b"\n<!DOCTYPE html><html><title>Quota exceeded</title>", "a web page"),
        (b"\x80\x02" + bytes(range(256)) * 4, "truncated or damaged"),
        (struct.pack("<Q", 1 << 60) + b'{"a":1}', "truncated or damaged"),
        (b"PK\x03\x04" + b"\x00" * 100, "truncated or damaged"),
        (pickle.dumps({"epoch": 3}, protocol=2), "it is a pickle, but not as torch writes it"),
    ],
)
def test_garbage(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(WorkError) as error:
        read_state(tmp_path / "m.pt")
    assert said in message(error)


def test_a_checkpoint_without_weights(tmp_path: Path) -> None:
    for content, said in (({"epoch": 3, "lr": 0.1}, "epoch, lr"), ([1, 2], "list"), ({}, "nothing"), (7, "int")):
        torch.save(content, tmp_path / "m.pt")
        with pytest.raises(WorkError, match="no weights found") as error:
            read_state(tmp_path / "m.pt")
        assert said in message(error)


def test_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02}.")
        archive.writestr("bomb/data/0", b"\0" * 50_000_000)
    with pytest.raises(WorkError, match=r"refused: its .* bytes would unpack to"):
        read_state(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_absurd_sizes_are_refused_before_allocation(zipped: bool, tmp_path: Path) -> None:
    """A storage that claims 10^12 elements, its number patched into a small file."""
    path = tmp_path / "absurd.pt"
    torch.save({"w": torch.zeros(70_001)}, path, _use_new_zipfile_serialization=zipped)
    old, new = b"J" + struct.pack("<i", 70_001), b"\x8a\x08" + struct.pack("<q", 10**12)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, body in entries.items():
                archive.writestr(name, body.replace(old, new) if name.endswith("data.pkl") else body)
    else:
        path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(WorkError, match="a tensor of 1000000000000 elements in a file of"):
        read_state(path)


def test_safetensors_is_optional(state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_safetensors(state, tmp_path / "m.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(WorkError, match="pip install safetensors"):
        load_model(CONFIG, tmp_path / "m.safetensors")


def test_foreign_diffusers_network(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**to_diffusers(state), "class_embedding.weight": torch.zeros(2)}, tmp_path / "m.bin")
    with pytest.raises(WorkError, match=r"not a DDPM UNet2DModel: key class_embedding\.weight"):
        read_state(tmp_path / "m.bin")


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--model_path .* no such file"):
        load_model(CONFIG, tmp_path / "no.pt")
    with pytest.raises(WorkError, match=r"a folder without diffusion_pytorch_model\.safetensors"):
        load_model(CONFIG, tmp_path)
    with pytest.raises(WorkError, match="not readable"):
        read_state(tmp_path / "no.pt")


# ---- where it is found -------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty machine: pretrained/, hub cache and MODEL_PATHS in a folder of the test, and no network."""

    def fetch(entry: Entry) -> Path:
        return Path("downloaded") / entry.mirrors[0].file

    monkeypatch.setattr(checkpoints, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr(checkpoints, "root", lambda: tmp_path)
    monkeypatch.setattr(checkpoints, "downloads", lambda: tmp_path / "pretrained")
    monkeypatch.setattr(checkpoints, "MODEL_PATHS", {"celeba_hq": "mine/faces.pt", "church_outdoor": "mine/church.pt"})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(checkpoints, "fetch", fetch)
    return tmp_path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_order_of_the_places(places: Path) -> None:
    celeba = load_config("celeba")
    assert find_checkpoint(celeba) == Path("downloaded/celeba_hq.ckpt")
    with pytest.raises(WorkError) as error:
        find_checkpoint(celeba, download=False)
    assert "celeba_hq.ckpt is missing: get it with scripts/download.py celeba or from https" in message(error)
    for found in (
        places / "hub" / "checkpoints" / "celeba_hq.ckpt",  # where the official code puts it
        places / "pretrained" / "celeba_hq.ema.diffusers.bin",
        places / "pretrained" / "celeba_hq.ckpt",
        places / "mine" / "faces.pt",
    ):
        touch(found)
        assert find_checkpoint(celeba) == found
    explicit = touch(places / "explicit.pt")
    assert find_checkpoint(celeba, explicit) == explicit
    own = dataclasses.replace(celeba, checkpoint="own.pt")
    with pytest.raises(WorkError, match=r"looked for .*own\.pt"):  # never replaced by another model
        find_checkpoint(own)
    assert find_checkpoint(own, explicit) == explicit
    touch(places / "pretrained" / "own.pt")
    assert find_checkpoint(own) == places / "pretrained" / "own.pt"


def test_lsun_is_told_apart_by_category(places: Path) -> None:
    assert find_checkpoint(load_config("church")) == Path("downloaded/church_outdoor.ckpt")
    assert find_checkpoint(load_config("bedroom")) == Path("downloaded/bedroom.ckpt")
    touch(places / "mine" / "church.pt")
    assert find_checkpoint(load_config("church")) == places / "mine" / "church.pt"
    assert find_checkpoint(load_config("bedroom")) == Path("downloaded/bedroom.ckpt")


@pytest.mark.parametrize("name", ["celeba", "church", "bedroom", "ffhq", "afhq", "metface", "imagenet"])
def test_every_config_knows_its_checkpoint(name: str, places: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert find_checkpoint(load_config(name)).parent == Path("downloaded")
    assert "downloading" in caplog.text


def test_a_model_that_nobody_publishes(places: Path) -> None:
    with pytest.raises(WorkError, match="name one with --model_path"):
        find_checkpoint(dataclasses.replace(CONFIG, name="x", dataset="CUSTOM", category="CUSTOM"))


def test_a_file_that_changed_since_its_download(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(state, path)
    record(path)
    load_model(CONFIG, path)
    torch.save({key: value + 1 for key, value in state.items()}, path)
    with pytest.raises(WorkError, match=r"changed since its download .* delete m\.pt\.sha256") as error:
        load_model(CONFIG, path)
    message(error)
