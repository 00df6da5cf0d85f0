"""The golden networks and runs, and a literal re-statement of the official walk to hold ours against."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import main
from diffstyle.commands import settings_of
from diffstyle.model import Model, ModelConfig
from diffstyle.settings import Settings
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config

GOLDEN = Path(__file__).resolve().parent / "golden"
FAMILIES = ("ddpm", "adm")
TRAINED = GOLDEN / "trained"
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ddpm": {"ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "attn_resolutions": [16]},
    "adm": {
        "num_channels": 32,
        "num_res_blocks": 1,
        "channel_mult": [1, 1, 2],
        "attention_resolutions": [16, 8],
        "num_heads": 4,
        "num_head_channels": 32,
    },
}


def golden_config(family: str) -> ModelConfig:
    return ModelConfig("golden", "GOLDEN", "GOLDEN", 32, family, ARCHITECTURES[family])


@functools.cache
def golden_model(family: str) -> Model:
    return load_model(golden_config(family), GOLDEN / family / "model.pt")


def meta(folder: Path) -> dict[str, Any]:
    """What is said of the golden runs of one network."""
    found: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    return found


@functools.cache
def trained_model(family: str) -> Model:
    return load_model(load_config(str(TRAINED / f"{family}.yml")), TRAINED / family / "model.pt")


def trained_settings(family: str, case: str) -> Settings:
    """The case's command line, read by the real parser."""
    args = main.parse(meta(TRAINED / family)["cases"][case]["args"])
    return settings_of(args, {"noise": "golden"})


class Official:
    """What the official code does (docs/official.md), written down without our plan, sampler or h-space functions."""

    def __init__(self, model: Model, s: Settings, dtype: torch.dtype) -> None:
        self.unet, self.s, self.dtype = model.unet, s, dtype
        betas = torch.from_numpy(np.linspace(1e-4, 0.02, 1000)).float()
        self.abar = (1 - betas).cumprod(0).to(dtype)
        self.replace = self.seq(s.n_gen if s.content_replace_step == -1 else s.content_replace_step)

    def seq(self, n: int) -> list[int]:
        return [int(v + 1e-6) for v in np.linspace(0, 1, n) * self.s.t_0]

    def at(self, t: int) -> Tensor:
        return self.abar[t] if t >= 0 else torch.ones((), dtype=self.dtype)

    def net(self, x: Tensor, t: int, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        f = self.unet.encode(x, torch.full((len(x),), float(t), dtype=self.dtype))
        return self.unet.decode(f if h is None else f._replace(h=h)), f.h

    def invert(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        kept = {}
        seq = self.seq(self.s.n_inv)
        for t, t_next in zip(seq[:-1], seq[1:], strict=True):
            eps, kept[t] = self.net(x, t)
            x0 = (x - eps * (1 - self.at(t)).sqrt()) / self.at(t).sqrt()
            x = self.at(t_next).sqrt() * x0 + (1 - self.at(t_next)).sqrt() * eps
        return x, kept

    def mix(self, h: Tensor, h_content: Tensor) -> Tensor:
        def slerp(a: Tensor, b: Tensor) -> Tensor:
            angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
            g = self.s.gamma
            return torch.sin((1 - g) * angle) / torch.sin(angle) * a + torch.sin(g * angle) / torch.sin(angle) * b

        if not self.s.mask:
            return slerp(h, h_content / h_content.norm() * h.norm())
        m = torch.zeros_like(h)
        m[:, :, 4:7, 3:5] = 1
        return slerp(m * h, m * h_content) + (1 - m) * h

    def generate(self, x: Tensor, kept: dict[int, Tensor], generator: torch.Generator) -> Tensor:
        """One pair, (1, 3, H, W)."""
        s, seq = self.s, self.seq(self.s.n_gen)
        for t, t_next in zip(reversed(seq), reversed([-1, *seq[:-1]]), strict=True):
            a, a_next = self.at(t), self.at(t_next)
            eps, h = self.net(x, t)
            eps_h = eps
            injecting = t in self.replace and t >= s.t_edit
            if injecting:
                nearest = min(kept, key=lambda k: (abs(k - t), -k))
                eps_h, _ = self.net(x, t, self.mix(h, kept[nearest]))
            eta = 1.0 if t in self.replace and t <= s.t_boost else 0.0
            sigma = eta * ((1 - a / a_next) * (1 - a_next) / (1 - a)).sqrt()
            z = torch.zeros_like(x)
            if eta:
                for _ in range(2 if s.omega else 1):
                    z = torch.randn(x.shape, generator=generator).to(self.dtype)
            if injecting and s.omega:
                p, p_h = ((x - e * (1 - a).sqrt()) / a.sqrt() for e in (eps, eps_h))
                p_h = (p_h - p_h.mean()) / p_h.std() * p.std() + p_h.mean()
                x = x + a.sqrt() * (p_h - p) + s.omega * (1 - a).sqrt() * (eps_h - eps)
                eps, _ = self.net(x, t)
                eps_h = eps
            x0 = (x - eps_h * (1 - a).sqrt()) / a.sqrt()
            if injecting and not s.omega and t >= s.dt_end and s.dt_lambda != 1:
                x = a_next.sqrt() * x0 + s.dt_lambda * (1 - a_next).sqrt() * eps
            else:
                x = a_next.sqrt() * x0 + (1 - a_next - sigma**2).sqrt() * eps + sigma * z
        return x


def relative(ours: Tensor | np.ndarray, theirs: Tensor | np.ndarray) -> float:
    """max |ours - theirs| / max |theirs|"""
    a, b = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))


def levels(x: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) that the official code saves of a result x (3, H, W), in levels from 0 to 255."""
    return np.clip((x.squeeze() + 1) / 2 * 255 + 0.5, 0, 255).astype(np.uint8).astype(int).transpose(1, 2, 0)
