"""The U-Nets: published sizes, every architecture flag of the ADM, full-size evaluations on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from diffstyle.models import build_unet
from diffstyle.models.adm import ADM, AttentionBlock
from diffstyle.models.hspace_unet import HSpaceUNet
from diffstyle.models.layers import GroupNorm32, to_precision
from diffstyle.zoo.config import CONFIG_DIR, load_config

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "celeba": 113_673_219, "church": 113_673_219, "bedroom": 113_673_219, "custom": 113_673_219,
    "ffhq": 93_563_910, "afhq": 93_563_910, "metface": 93_563_910, "imagenet": 552_814_086,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SIZES))
def test_published_sizes(name: str) -> None:
    config = load_config(f"{name}.yml")
    with torch.device("meta"):
        unet = build_unet(config.family, config.image_size, config.architecture)
    assert sum(p.numel() for p in unet.parameters()) == SIZES[name]
    assert config.image_size == 256 and not any("label_emb" in key for key in unet.state_dict())


def test_every_config_is_covered() -> None:
    assert {p.stem for p in CONFIG_DIR.glob("*.yml")} == {*SIZES, "avatars"}


@pytest.mark.parametrize("dataset", ["CelebA_HQ", "LSUN", "CUSTOM", "FFHQ", "AFHQ", "MetFACE", "IMAGENET"])
def test_official_yaml_loads_as_it_is(dataset: str, tmp_path: Path) -> None:
    """A YAML in the official form: type simple, the DDPM's keys even for the ADMs, and keys that mean nothing here."""
    path = tmp_path / "official.yml"
    path.write_text(
        f"data:\n  dataset: {dataset}\n  category: {dataset}\n  image_size: 256\n  channels: 3\n"
        "model:\n  type: simple\n  in_channels: 3\n  out_ch: 3\n  ch: 128\n  ch_mult: [1, 1, 2, 2, 4, 4]\n"
        "  num_res_blocks: 2\n  attn_resolutions: [16, ]\n  dropout: 0.0\n  var_type: fixedsmall\n  ema_rate: 0.999\n"
        "  ema: True\n  resamp_with_conv: True\n"
        "diffusion:\n  beta_schedule: linear\n  beta_start: 0.0001\n  beta_end: 0.02\n  num_diffusion_timesteps: 1000\n"
        "sampling:\n  batch_size: 4\n  last_only: True\n"
    )
    config = load_config(path)
    with torch.device("meta"):
        unet = build_unet(config.family, config.image_size, config.architecture)
    size = sum(p.numel() for p in unet.parameters())
    assert size == {"ddpm": 113_673_219, "adm": 552_814_086 if dataset == "IMAGENET" else 93_563_910}[config.family]


SMALL: dict[str, Any] = {"image_size": 16, "num_channels": 32, "channel_mult": [1, 2], "attention_resolutions": [8]}


@pytest.mark.parametrize("updown", [True, False])
@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("learn_sigma", [True, False])
def test_adm_flags(updown: bool, scale_shift: bool, learn_sigma: bool) -> None:
    unet = ADM(**SMALL, resblock_updown=updown, use_scale_shift_norm=scale_shift, learn_sigma=learn_sigma, num_head_channels=32)
    keys = set(unet.state_dict())
    assert ("input_blocks.2.0.op.weight" in keys) == (not updown)
    assert ("input_blocks.2.0.in_layers.0.weight" in keys) == updown
    assert unet.state_dict()["input_blocks.1.0.emb_layers.1.weight"].shape[0] == (64 if scale_shift else 32)
    assert unet.out[2].out_channels == (6 if learn_sigma else 3)
    with torch.inference_mode():
        assert unet(torch.randn(2, 3, 16, 16), torch.tensor([3.0, 900.0])).shape == (2, 3, 16, 16)


def test_adm_head_counts() -> None:
    def heads(**flags: Any) -> list[int]:
        return [m.heads for m in ADM(**SMALL, **flags).modules() if isinstance(m, AttentionBlock)]

    assert heads(num_head_channels=16) == [4, 4, 4, 4]
    assert heads(num_head_channels=-1, num_heads=2) == [2, 2, 2, 2]
    assert heads(num_head_channels=-1, num_heads=2, num_heads_upsample=8) == [2, 2, 8, 8]
    with pytest.raises(ValueError, match="channel_mult has no default for image_size 48"):
        ADM(image_size=48)


def test_both_attention_orders_agree_after_reordering() -> None:
    """The legacy order packs qkv head by head, the new one q, k, v of all heads: the same network up to a permutation."""
    legacy, new = AttentionBlock(64, 4, new_order=False), AttentionBlock(64, 4, new_order=True)
    state = legacy.state_dict()
    for key in ("qkv.weight", "qkv.bias"):
        rows = state[key].unflatten(0, (4, 3, 16))
        state[key] = rows.transpose(0, 1).flatten(0, 2)
    new.load_state_dict(state)
    x = torch.randn(2, 64, 5, 5)
    torch.testing.assert_close(legacy(x), new(x))


def test_attention_is_softmax_of_scaled_products() -> None:
    """Against the textbook formula written out for one head."""
    block = AttentionBlock(32, 1, new_order=False)
    x = torch.randn(1, 32, 3, 3)
    q, k, v = block.qkv(block.norm(x.flatten(2)))[0].chunk(3)
    weights = torch.softmax(q.T @ k / 32**0.5, dim=1)
    expected = x.flatten(2) + block.proj_out((v @ weights.T)[None])
    torch.testing.assert_close(block(x).flatten(2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_norms_and_output_in_fp32(dtype: torch.dtype) -> None:
    unet: HSpaceUNet = to_precision(ADM(**SMALL, num_head_channels=32), dtype)
    assert all(m.weight.dtype == torch.float32 for m in unet.modules() if isinstance(m, GroupNorm32))
    with torch.inference_mode():
        f = unet.encode(torch.randn(1, 3, 16, 16), torch.tensor([5.0]))
        assert f.h.dtype == dtype and unet.decode(f).dtype == torch.float32


@pytest.mark.slow
def test_full_size_evaluation() -> None:
    """One evaluation of each at 256x256 on the CPU in a process of its own, whose peak memory (GB) is read from the system."""
    code = (
        "import resource, torch; from diffstyle.zoo.config import load_config; from models import build_unet\n"
        "for name in ('celeba.yml', 'afhq.yml'):\n"
        "    c = load_config(name); unet = build_unet(c.family, c.image_size, c.architecture).eval()\n"
        "    with torch.inference_mode():\n"
        "        f = unet.encode(torch.randn(1, 3, 256, 256), torch.tensor([500.0])); eps = unet.decode(f)\n"
        "    print(tuple(f.h.shape), tuple(eps.shape), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)\n"
        "    del unet, f, eps\n"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(out.splitlines()) == 2
    for line in out.splitlines():
        assert line.startswith("(1, 512, 8, 8) (1, 3, 256, 256)")
        assert float(line.split()[-1]) < 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_agrees_with_the_cpu() -> None:
    unet = ADM(**SMALL, num_head_channels=32).eval()
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 900.0])
    with torch.inference_mode():
        expected = unet(x, t)
        torch.testing.assert_close(unet.cuda()(x.cuda(), t.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)
