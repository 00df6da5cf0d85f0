"""Does a network predict what its config says? One evaluation tells, where the network is a trained one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from diffstyle.diffusion import Schedule
from diffstyle.errors import WorkError
from diffstyle.model import ModelConfig
from diffstyle.models.hspace_unet import HSpaceUNet

WIDTH = 64  # pixels of the probe at most; telling noise from picture needs no more
SMALL = 0.9  # abar of the probe that is nearly a picture
SURE, UNLIKE = 0.8, 0.5  # correlations


@torch.inference_mode()
def check_prediction(unet: HSpaceUNet, config: ModelConfig, schedule: Schedule, device: torch.device, path: Path) -> None:
    """Refuse, with WorkError, a network whose output is plainly something else than ``config.prediction``.

    Two probes share one evaluation: a smooth picture with a little noise, for which P_t must come out close to the picture,
    and pure noise. An eps network returns the noise of both, an x0 network the first one's picture, a v network the first
    one's noise and not the second's. An untrained network does none of this and passes.
    """
    picture, noise = probe(config)
    t = min(range(len(schedule)), key=lambda t: abs(schedule(t) - SMALL))
    abar = schedule(t)
    x = torch.cat([abar**0.5 * picture + (1 - abar) ** 0.5 * noise, noise]).to(device)
    out = unet(x, torch.tensor([float(t), len(schedule) - 1.0], device=device)).float().cpu()
    found = classify(correlation(out[:1], picture), correlation(out[:1], noise), correlation(out[1:], noise))
    if found and found != config.prediction:
        raise WorkError(f"{path}: the network predicts {found}, the config says {config.prediction}: "
                        f"write prediction: {found} into its section diffusion")  # fmt: skip


def classify(picture: float, noise: float, pure: float) -> str:
    """What an output is, from its correlation with the first probe's picture and noise and with the pure noise; "" if unclear."""
    if picture > SURE:
        return "x0"
    if noise > SURE and pure > SURE:
        return "eps"
    if noise > SURE and pure < UNLIKE:
        return "v"
    return ""


def probe(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """A smooth picture and noise, both (1, 3, W, W), of a width that every level of the network can halve."""
    mults = config.architecture.get("ch_mult") or config.architecture.get("channel_mult") or range(7)
    factor = 2 ** (len(mults) - 1)
    width = min(config.image_size, -(-WIDTH // factor) * factor)
    ramp = torch.linspace(-1, 1, width)
    picture = torch.stack([ramp[:, None].expand(width, width), ramp.expand(width, width), -ramp[:, None] * ramp]) * 0.7
    return picture[None], torch.randn(1, 3, width, width, generator=torch.Generator().manual_seed(0))


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
