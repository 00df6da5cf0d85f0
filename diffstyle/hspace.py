"""The paper's idea: blend the content's bottleneck features into the style's, keeping their norm (sections 3.1-3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffstyle.models.layers import at_least_fp32

BLENDS = ("slerp", "lerp", "replace", "add")

# Below this angle (1 - cos) Slerp and Lerp agree to fp32, and dividing by sin(angle) would lose everything.
PARALLEL = 1e-6


def norm(h: Tensor) -> Tensor:
    """Euclidean norm over C*H*W of each sample: (N, C, H, W) -> (N, 1, 1, 1)."""
    return h.flatten(1).norm(dim=1)[:, None, None, None]


def match_norm(h_content: Tensor, h: Tensor) -> Tensor:
    """Scale ``h_content`` to the norm of ``h``: Slerp needs equal norms, and the decoder expects ||h|| to fit the skips."""
    size = norm(h_content)
    return h_content * (norm(h) / torch.where(size == 0, 1, size))


def slerp(h: Tensor, h_content: Tensor, gamma: float) -> Tensor:
    """Spherical interpolation from ``h`` (gamma 0) to ``h_content`` (gamma 1), angle over the flattened C*H*W.

    (N, C, H, W) both. Where the two are parallel (or one is zero) it is linear interpolation, its limit.
    """
    sizes = norm(h) * norm(h_content)
    dot = (h * h_content).flatten(1).sum(1)[:, None, None, None]
    cos = torch.where(sizes == 0, 1, dot / sizes).clamp(-1, 1)
    parallel = 1 - cos.abs() < PARALLEL
    angle = torch.where(parallel, torch.ones_like(cos), cos.acos())
    w = torch.where(parallel, 1 - gamma, ((1 - gamma) * angle).sin() / angle.sin())
    w_content = torch.where(parallel, gamma, (gamma * angle).sin() / angle.sin())
    return w * h + w_content * h_content


def mix(h: Tensor, h_content: Tensor, gamma: float, kind: str = "slerp") -> Tensor:
    """One of the ways to combine two maps (N, C, H, W) that the paper compares.

    replace: h_content, whatever gamma is. add: h + gamma h_content (the paper's h_i + h_j at gamma 1). lerp: (1 - gamma) h +
    gamma h_content as they are. slerp: on the sphere; only here are norms to be matched before.
    """
    if kind == "replace":
        return h_content
    if kind == "add":
        return h + gamma * h_content
    if kind == "lerp":
        return (1 - gamma) * h + gamma * h_content
    return slerp(h, h_content, gamma)


@dataclass(frozen=True)
class Blend:
    """h~ = Slerp(h, h_content / ||h_content|| * ||h||, gamma): how the content's h enters, and where."""

    gamma: float = 0.9  # share of the content in h, 0 to 1
    kind: str = "slerp"  # how two maps are combined: see ``mix``
    mask: Tensor | None = None  # (1, 1, H', W') in [0, 1]; None: everywhere
    match_masked: bool = False  # match the norms of the masked parts too, as the paper says and the official code does not

    def __call__(self, h: Tensor, h_content: Tensor) -> Tensor:
        """The blended map, computed in fp32; all maps (N, C, H', W').

        With a mask only the masked parts are blended and the rest of ``h`` stays (2303.15403, section 3.4).
        """
        part, content = at_least_fp32(h), at_least_fp32(h_content)
        rest: Tensor | float = 0
        if self.mask is not None:
            part, content, rest = self.mask * part, self.mask * content, (1 - self.mask) * part
        if self.kind == "slerp" and (self.mask is None or self.match_masked):
            content = match_norm(content, part)
        return (mix(part, content, self.gamma, self.kind) + rest).to(h.dtype)
