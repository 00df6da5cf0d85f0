"""diffusers and back, and what weights tell of their network."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import convert_checkpoint
import pytest
import torch
from torch import Tensor

from diffstyle.models import FAMILIES, build_unet
from diffstyle.models.convert import FIXED, SHARED, diffusers_architecture, diffusers_config, from_diffusers, to_diffusers
from diffstyle.models.ddpm import DDPM
from diffstyle.models.recognise import recognise

# Two small DDPMs: attention at one level and at two, one and two blocks, levels with and without a shortcut.
SMALL: list[dict[str, Any]] = [
    {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [16]},
    {"ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 2, "attn_resolutions": [32, 8]},
]
FULL_DDPM = {"ch": 128, "ch_mult": [1, 1, 2, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [16]}
LIGHT_ADM = {
    "num_channels": 128, "num_res_blocks": 1, "channel_mult": [1, 1, 2, 2, 4, 4], "attention_resolutions": [16],
}  # fmt: skip
IMAGENET = {
    "num_channels": 256, "num_res_blocks": 2, "channel_mult": [1, 1, 2, 2, 4, 4], "attention_resolutions": [32, 16, 8],
}  # fmt: skip


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def small_pair(architecture: Mapping[str, Any]) -> tuple[Any, Any]:
    """Our network and diffusers' own of the same architecture, each with random weights of its own."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    config = {k: v for k, v in diffusers_config(32, architecture).items() if not k.startswith("_")}
    return build_unet("ddpm", 32, architecture).eval(), diffusers.UNet2DModel(**config).eval()


@torch.inference_mode()
def assert_same_output(ours: Any, theirs: Any) -> None:
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([3.0, 777.0])
    expected = theirs(x, t).sample
    assert (ours(x, t) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("architecture", SMALL)
def test_ours_runs_in_diffusers(architecture: dict[str, Any]) -> None:
    ours, theirs = small_pair(architecture)
    theirs.load_state_dict(to_diffusers(ours.state_dict()), strict=True)
    assert_same_output(ours, theirs)


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.parametrize("old_attention", [False, True])
def test_diffusers_runs_here(architecture: dict[str, Any], old_attention: bool) -> None:
    ours, theirs = small_pair(architecture)
    state = theirs.state_dict()
    if old_attention:  # as in files that diffusers wrote before 0.15
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            state = {key.replace(f".{new}.", f".{old}."): value for key, value in state.items()}
        assert shapes(state) == shapes(to_diffusers(ours.state_dict(), old_attention=True))
    ours.load_state_dict(from_diffusers(state), strict=True)
    assert_same_output(ours, theirs)


@pytest.mark.parametrize("old_attention", [False, True])
def test_round_trip_at_full_size(old_attention: bool) -> None:
    with torch.device("meta"):
        ours = build_unet("ddpm", 256, FULL_DDPM).state_dict()
    there = to_diffusers(ours, old_attention)
    assert len(there) == len(ours) == 450
    back = from_diffusers(there)
    assert shapes(back) == shapes(ours)
    assert list(back) == list(ours)


def test_full_size_names_are_diffusers_own() -> None:
    diffusers = pytest.importorskip("diffusers")
    config = {k: v for k, v in diffusers_config(256, FULL_DDPM).items() if not k.startswith("_")}
    with torch.device("meta"):
        theirs = diffusers.UNet2DModel(**config).state_dict()
        ours = build_unet("ddpm", 256, FULL_DDPM).state_dict()
    assert shapes(theirs) == shapes(to_diffusers(ours))


def test_a_key_without_place_is_named() -> None:
    with torch.device("meta"):
        ours = build_unet("ddpm", 32, SMALL[0]).state_dict()
    theirs = to_diffusers(ours)
    with pytest.raises(ValueError, match=r"class_embedding\.weight has no counterpart"):
        from_diffusers({**theirs, "class_embedding.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"conv_in\.scale has no counterpart"):
        to_diffusers({**ours, "conv_in.scale": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"resnets\.0\.norm3"):
        from_diffusers({**theirs, "down_blocks.0.resnets.0.norm3.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"mid\.attn_1\.q\.weight"):  # both namings at once
        from_diffusers({**theirs, "mid_block.attentions.0.query.weight": torch.zeros(64, 64)})


# ---- config.json -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [*SMALL, FULL_DDPM])
def test_config_json_round_trip(architecture: dict[str, Any]) -> None:
    config = json.loads(json.dumps(diffusers_config(32, architecture)))
    found = diffusers_architecture(config)
    assert found.pop("image_size") == 32
    defaults = {key: p.default for key, p in inspect.signature(DDPM).parameters.items()}
    del defaults["image_size"], defaults["resamp_with_conv"]
    assert found == defaults | architecture


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"add_attention": False}, "add_attention is False"),
        ({"attn_norm_num_groups": 8}, "attn_norm_num_groups is 8"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type is fourier"),
        ({"downsample_type": "resnet"}, "downsample_type is resnet"),
        ({"downsample_padding": 2}, "downsample_padding is 2"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift is spatial"),
        ({"num_class_embeds": 10}, "num_class_embeds is 10"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "up_block_types"),
        ({"down_block_types": 7}, "down_block_types 7"),
        ({"block_out_channels": [32, 0]}, "positive integers"),
        ({"block_out_channels": "32"}, "positive integers"),
        ({"block_out_channels": [32]}, "a DDPM of 1 levels"),
        ({"sample_size": None}, "sample_size"),
        ({"sample_size": [32, 64]}, "sample_size"),
    ],
)
def test_config_json_of_another_network(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        diffusers_architecture(diffusers_config(32, SMALL[0]) | change)


def test_a_silent_config_json_means_diffusers_defaults() -> None:
    diffusers = pytest.importorskip("diffusers")
    defaults = {key: p.default for key, p in inspect.signature(diffusers.UNet2DModel.__init__).parameters.items()}
    for key, (needed, default) in FIXED.items():
        assert needed == default == defaults[key]
    for _, theirs, default in SHARED.values():
        assert defaults[theirs] == default
    said = ("sample_size", "block_out_channels", "down_block_types", "up_block_types")
    found = diffusers_architecture({key: diffusers_config(32, SMALL[0])[key] for key in said})
    assert (found["cos_first"], found["freq_shift"], found["head_dim"], found["pad_all_sides"]) == (True, 0, 8, True)


# ---- recognition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "size", "architecture", "parameters"),
    [
        ("ddpm", 256, FULL_DDPM, 113_673_219),
        ("adm", 256, LIGHT_ADM, 93_563_910),
        ("adm", 256, IMAGENET, 552_814_086),
        ("ddpm", 32, SMALL[0] | {"resamp_with_conv": False}, None),
        ("ddpm", 32, SMALL[1], None),
        ("ddpm", 32, {"ch": 32, "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": []}, None),
        ("adm", 64, {"num_channels": 32, "channel_mult": [1, 2, 3], "num_res_blocks": 3, "attention_resolutions": [64],
                     "resblock_updown": False, "use_scale_shift_norm": False, "learn_sigma": False}, None),
        ("adm", 64, {"num_channels": 64, "channel_mult": [0.5, 1], "num_res_blocks": 1, "attention_resolutions": [32],
                     "resblock_updown": False}, None),
        ("adm", 32, {"num_channels": 64, "channel_mult": [2],
                     "num_res_blocks": 2, "attention_resolutions": [32]}, None),
    ],
)  # fmt: skip
def test_weights_tell_their_network(family: str, size: int, architecture: dict[str, Any], parameters: int | None) -> None:
    with torch.device("meta"):
        state = build_unet(family, size, architecture).state_dict()
    found = recognise(state, size)
    assert found.items() >= {"family": family, **architecture}.items()
    with torch.device("meta"):
        again = build_unet(found.pop("family"), size, found).state_dict()
    assert shapes(again) == shapes(state)
    if parameters:
        assert sum(value.numel() for value in state.values()) == parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_published_names_load_strictly(family: str) -> None:
    folder = Path(__file__).resolve().parents[1] / "golden" / family
    state = torch.load(folder / "model.pt", weights_only=True)
    found = recognise(state, 32)
    assert found.pop("family") == family
    with torch.device("meta"):
        unet = build_unet(family, 32, found | ({"num_head_channels": 32} if family == "adm" else {}))
    unet.load_state_dict(state, strict=True, assign=True)


def test_strange_weights_are_not_recognised() -> None:
    assert recognise({"layer.weight": torch.zeros(1)}) == {}
    assert recognise({"temb.dense.0.weight": torch.zeros(4, 1)}) == {}
    assert recognise({"time_embed.0.weight": torch.zeros(4, 1)}) == {}


# ---- scripts/convert_checkpoint.py -------------------------------------------------------------------------------


def test_convert_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors")
    torch.manual_seed(0)
    state = build_unet("ddpm", 32, SMALL[1]).state_dict()
    torch.save([{}, {}, 3, 17, {f"module.{key}": value for key, value in state.items()}], tmp_path / "ckpt_3.pth")
    # ours -> diffusers folder -> safetensors -> torch
    for source, out in (("ckpt_3.pth", "folder"), ("folder", "a.safetensors"), ("a.safetensors", "b.pt")):
        assert convert_checkpoint.main([str(tmp_path / source), str(tmp_path / out), "--image_size", "32"]) == 0
        assert "ch_mult: [1, 1, 2]" in capsys.readouterr().out
    result = torch.load(tmp_path / "b.pt", weights_only=True)
    assert all(torch.equal(result[key], state[key]) for key in state)
    assert len(result) == len(state)
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert diffusers_architecture(config)["attn_resolutions"] == [32, 8]


def test_convert_checkpoint_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = Path(__file__).resolve().parents[1] / "golden"
    torch.save({"w": torch.zeros(2)}, tmp_path / "other.pt")
    for source, out, said in (
        (tmp_path / "nothing.pt", tmp_path / "out.pt", "no such file"),
        (golden / "adm" / "model.pt", tmp_path / "folder", "diffusers has no ADM"),
        (tmp_path / "other.pt", tmp_path / "out.pt", "neither the DDPM nor the ADM"),
        (golden / "ddpm" / "model.pt", tmp_path / "no" / "folder" / "out.pt", "cannot be written"),
    ):
        assert convert_checkpoint.main([str(source), str(out)]) in (1, 2)
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.pt"]
