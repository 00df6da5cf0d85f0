"""Networks as diffusers itself writes them: they load by their own files, agree with its forward, and go back to it."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import convert_checkpoint
import pytest
import torch
from cli_tools import QUICK, error_line, run

from diffstyle.errors import UsageError, WorkError
from diffstyle.model import EpsOf, Model
from diffstyle.zoo import hub, transports
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.integrity import sidecar
from diffstyle.zoo.places import BUNDLED

diffusers = pytest.importorskip("diffusers")

DOWN, UP, DOWN_ATTENTION, UP_ATTENTION = "DownBlock2D", "UpBlock2D", "AttnDownBlock2D", "AttnUpBlock2D"
# What diffusers' training example builds (its six levels and its defaults, here with thin layers), and what people change.
EXAMPLE: dict[str, Any] = {
    "sample_size": 64,
    "layers_per_block": 2,
    "block_out_channels": (32, 32, 64, 64, 96, 96),
    "down_block_types": (DOWN, DOWN, DOWN, DOWN, DOWN_ATTENTION, DOWN),
    "up_block_types": (UP, UP_ATTENTION, UP, UP, UP, UP),
}
SMALL: dict[str, Any] = {
    "sample_size": 28,
    "layers_per_block": 1,
    "block_out_channels": (32, 48, 64),
    "down_block_types": (DOWN, DOWN_ATTENTION, DOWN),
    "up_block_types": (UP, UP_ATTENTION, UP),
    "norm_num_groups": 16,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "training example": EXAMPLE,
    "28 pixels, a width that is no multiple": SMALL,
    "attention everywhere": SMALL | {"down_block_types": (DOWN_ATTENTION,) * 3, "up_block_types": (UP_ATTENTION,) * 3,
                                     "attention_head_dim": 16},
    "scale-shift": SMALL | {"resnet_time_scale_shift": "scale_shift"},
    "learned variance": SMALL | {"out_channels": 6},
    "one head": SMALL | {"attention_head_dim": None},
    "the published dialect": SMALL | {"attention_head_dim": None, "norm_eps": 1e-6, "flip_sin_to_cos": False, "freq_shift": 1,
                                      "downsample_padding": 0},
}  # fmt: skip
SCHEDULERS: dict[str, dict[str, Any]] = {
    "training example": {},
    "learned variance": {"variance_type": "learned_range"},
    "scale-shift": {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"},
    "one head": {"prediction_type": "sample", "beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012,
                 "num_train_timesteps": 400},
}  # fmt: skip


def saved(name: str, folder: Path, pipeline: bool = False) -> Any:
    """A network of random weights, saved by diffusers itself; the network."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**NETWORKS[name]).eval()
    scheduler = diffusers.DDPMScheduler(**SCHEDULERS.get(name, {}))
    if pipeline:
        diffusers.DDPMPipeline(network, scheduler).save_pretrained(folder)
    else:
        network.save_pretrained(folder)
        scheduler.save_pretrained(folder)
    return network


@torch.inference_mode()
def assert_same(model: Model, theirs: Any) -> None:
    """Our inner network's output is diffusers' forward; the outer one is its noise."""
    size, steps = model.config.image_size, len(model.schedule)
    x, t = torch.randn(2, 3, size, size), torch.tensor([3.0, steps - 23.0])
    expected = theirs(x, t).sample[:, :3]
    inner = model.unet.unet if isinstance(model.unet, EpsOf) else model.unet
    assert (inner(x, t) - expected).abs().max() <= 1e-5 * expected.abs().max()
    for i in range(2):
        abar = model.schedule(int(t[i]))
        eps = {"eps": expected[i], "x0": (x[i] - abar**0.5 * expected[i]) / (1 - abar) ** 0.5,
               "v": abar**0.5 * expected[i] + (1 - abar) ** 0.5 * x[i]}[model.config.prediction]  # fmt: skip
        assert (model.unet(x, t)[i] - eps).abs().max() <= 1e-4 * eps.abs().max()


@pytest.mark.parametrize("pipeline", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_that_diffusers_wrote(name: str, pipeline: bool, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path / "net", pipeline)
    model = load_model(load_config(tmp_path / "net"))
    assert model.config.name == "net"
    assert model.config.image_size == NETWORKS[name]["sample_size"]
    assert_same(model, theirs)
    said = SCHEDULERS.get(name, {})
    types = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
    assert model.config.prediction == types[said.get("prediction_type", "epsilon")]
    theirs_abar = diffusers.DDPMScheduler(**said).alphas_cumprod
    torch.testing.assert_close(torch.tensor(model.schedule.values), theirs_abar, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_converted_folder_goes_back_into_diffusers(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = saved(name, tmp_path / "net")
    assert convert_checkpoint.main([str(tmp_path / "net"), str(tmp_path / "plain.pt")]) == 0
    config = tmp_path / "net.yml"
    config.write_text(capsys.readouterr().out)  # what it prints is a config
    assert convert_checkpoint.main([str(tmp_path / "plain.pt"), str(tmp_path / "back"), "--config", str(config)]) == 0
    again = diffusers.UNet2DModel.from_pretrained(tmp_path / "back").eval()
    x, t = torch.randn(1, 3, theirs.config.sample_size, theirs.config.sample_size), torch.tensor([7.0])
    with torch.inference_mode():
        # The same weights: other CPUs take other kernels for tensors of another alignment, and differ by rounding.
        torch.testing.assert_close(again(x, t).sample, theirs(x, t).sample, rtol=1e-4, atol=1e-5)
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "back")
    wanted = diffusers.DDPMScheduler(**SCHEDULERS.get(name, {}))
    assert scheduler.config.prediction_type == wanted.config.prediction_type
    assert torch.equal(scheduler.alphas_cumprod, wanted.alphas_cumprod)
    assert_same(load_model(load_config(config), tmp_path / "plain.pt"), theirs)


def test_a_config_of_ones_own_must_agree_with_what_lies_beside_the_weights(tmp_path: Path) -> None:
    saved("scale-shift", tmp_path / "net")
    config = load_config(tmp_path / "net")
    for change, said in (({"prediction": "eps"}, "prediction is v, net.yml says eps; --config "),
                         ({"beta_schedule": "linear"}, "beta_schedule is squaredcos_cap_v2"),
                         ({"timesteps": 500}, "timesteps is 1000"),
                         ({"architecture": {**config.architecture, "head_dim": None}}, "head_dim is 8, net.yml says None"),
                         ):  # fmt: skip
        with pytest.raises(WorkError, match=said) as error:
            load_model(config.__class__(**{**vars(config), **change}))
        assert "\n" not in str(error.value)
    load_model(config.__class__(**{**vars(config), "beta_schedule": "cosine"}))  # the same under its other name


def test_weights_that_lie_beside_their_description_need_no_config(tmp_path: Path) -> None:
    saved("one head", tmp_path / "net")
    for place in (tmp_path / "net", tmp_path / "net" / "diffusion_pytorch_model.safetensors"):
        config = load_config("avatars.yml", place)
        assert (config.prediction, config.timesteps) == ("x0", 400)
        load_model(config, place)
    avatars = load_config("avatars")
    for other in (BUNDLED / "avatars64.pt", tmp_path / "no.pt", None, ""):
        assert load_config("avatars.yml", other) == avatars
    assert load_config("celeba.yml", tmp_path / "net") == load_config("celeba")  # what is asked for is compared instead
    with pytest.raises(UsageError, match=r"without the config\.json of a diffusers network"):
        (tmp_path / "net" / "config.json").unlink()
        load_config("avatars.yml", tmp_path / "net")


def test_the_command_takes_a_folder_or_a_name_as_model_path(
    site: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved("scale-shift", tmp_path / "site")
    pictures = Path(__file__).resolve().parents[1] / "golden" / "images"
    folders = ["--content_dir", str(pictures / "contents"), "--style_dir", str(pictures / "styles")]
    for i, place in enumerate(("hf:owner/net", str(tmp_path / "site"))):
        out = str(tmp_path / f"out{i}")
        code, err = run(["--model_path", place, *folders, "--save_dir", out, "--no_cache", *QUICK], capsys)
        assert code == 0, err
    code, err = run(["--model_path", "hf:owner/other", "--no_download"], capsys)
    assert code == 1
    assert "hf:owner/other is not here" in error_line(err)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ("scheduler_config.json", {"trained_betas": [0.1]}, "no schedule of betas"),
        ("scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "no schedule of betas"),
        ("scheduler_config.json", {"prediction_type": "flow"}, "prediction_type is flow, only epsilon, sample"),
        ("scheduler_config.json", {"num_train_timesteps": 10**9}, "num_diffusion_timesteps is 1000000000"),
        ("scheduler_config.json", {"beta_end": "x"}, "beta_end is 'x', not a number"),
        ("config.json", {"layers_per_block": 10**6}, "num_res_blocks is 1000000, it must be from 1 to 16"),
        ("config.json", {"sample_size": 30}, "image_size is 30, it must be a multiple of 4"),
        ("config.json", {"attention_head_dim": 7}, "head_dim 7 does not divide"),
        ("config.json", {"norm_eps": None}, "norm_eps is None, not a number"),
        ("config.json", {"flip_sin_to_cos": "yes"}, "cos_first is 'yes', it must be true or false"),
        ("config.json", {"block_out_channels": [32, 48, 96]}, "conv1.weight is (64, 48, 3, 3) in the file, (96, 48, 3, 3)"),
        ("config.json", {"block_out_channels": [[1]] * 3}, "it must be a list of positive integers"),
    ],
)
def test_lying_descriptions(
    file: str, change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved("28 pixels, a width that is no multiple", tmp_path / "net")
    path = tmp_path / "net" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises((UsageError, WorkError)) as error:
        load_model(load_config(tmp_path / "net"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert convert_checkpoint.main([str(tmp_path / "net"), str(tmp_path / "out")]) in (1, 2)
    output = capsys.readouterr().err
    assert said in output
    assert output.count("\n") == 1
    assert not (tmp_path / "out").exists()


# ---- the hub -----------------------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """Serves a folder under OWNER/NAME/resolve/main/; ``seen`` lists what was asked for."""

    daemon_threads = True
    seen: list[str]


class Handler(SimpleHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None: ...

    def translate_path(self, path: str) -> str:
        self.server.seen.append(path)
        return super().translate_path(path.replace("/owner/net/resolve/main", "").replace("/owner/net/resolve/v2", ""))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "site").mkdir()
    server = Hub(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "site")))
    server.seen = []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(hub, "root", lambda: tmp_path / "cache")
    monkeypatch.setattr(transports, "PAUSE", 0.01)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("pipeline", [False, True])
@pytest.mark.parametrize("name", ["hf:owner/net", "hf:owner/net@v2"])
def test_a_network_on_the_hub(name: str, pipeline: bool, site: Hub, tmp_path: Path) -> None:
    theirs = saved("scale-shift", tmp_path / "site", pipeline)
    config = load_config(name)
    model = load_model(config)
    assert_same(model, theirs)
    assert model.config.prediction == "v"
    assert model.path.is_relative_to(tmp_path / "cache" / "hub")
    assert sidecar(model.path).read_text().startswith(model.digest)
    assert all("/resolve/v2/" in path for path in site.seen) == name.endswith("v2")
    site.seen.clear()
    assert_same(load_model(config, Path(name)), theirs)  # as --model_path gives it
    load_config(name, download=False)
    assert site.seen == []
    model.path.write_bytes(model.path.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(WorkError, match="changed since its download"):
        load_model(config)


def test_a_network_on_the_hub_without_a_scheduler_in_the_old_format(site: Hub, tmp_path: Path) -> None:
    theirs = saved("the published dialect", tmp_path / "site")
    (tmp_path / "site" / "scheduler_config.json").unlink()
    torch.save(theirs.state_dict(), tmp_path / "site" / "diffusion_pytorch_model.bin")
    (tmp_path / "site" / "diffusion_pytorch_model.safetensors").unlink()
    assert_same(load_model(load_config("hf:owner/net")), theirs)


def test_the_hub_fails(site: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hf:owner", "hf:../net", "hf:owner/net/sub", "hf:owner/..", "hf:owner/net@a/b", "hf:"):
        with pytest.raises(UsageError, match="write hf:OWNER/NAME"):
            load_config(name)
    with pytest.raises(WorkError, match=r"hf:owner/net: config.json: answers 404 .*/owner/net shows what there is"):
        load_config("hf:owner/net")
    with pytest.raises(WorkError, match="forbids"):
        load_config("hf:owner/net", download=False)
    saved("scale-shift", tmp_path / "site")
    weights = tmp_path / "site" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, tmp_path / "kept")
    weights.write_bytes(b"<html>no</html>")
    with pytest.raises(WorkError, match="a web page"):
        load_config("hf:owner/net")
    shutil.copy(tmp_path / "kept", weights)
    load_config("hf:owner/net")  # what had come is kept, the rest comes now
    monkeypatch.setenv("HF_ENDPOINT", "http://example.com")
    with pytest.raises(WorkError, match="is not https"):
        load_config("hf:owner/other")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_as_description_is_not_waited_for(tmp_path: Path) -> None:
    saved("scale-shift", tmp_path / "net")
    for name in ("scheduler_config.json", "config.json"):
        (tmp_path / "net" / name).unlink()
        os.mkfifo(tmp_path / "net" / name)
        with pytest.raises(WorkError, match="pipe or device"):
            load_config(tmp_path / "net")
