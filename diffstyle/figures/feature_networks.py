"""Feature spaces for the metrics: the model's own encoder, and trained networks if they lie on this machine.

Nothing is ever downloaded here. What is absent raises ``AbsentError`` with the reason, which becomes the table's n/a.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from diffstyle.errors import WorkError
from diffstyle.figures.metrics import Embedding, Features
from diffstyle.model import Model
from diffstyle.sampling import timestep

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG_STYLE_LAYERS = (1, 6, 11, 20, 29)  # relu1_1, 2_1, 3_1, 4_1, 5_1 of VGG-19: Gatys' style layers
ALEX_LAYERS = (1, 4, 7, 9, 11)  # relu1 ... relu5 of AlexNet: LPIPS's layers


class AbsentError(Exception):
    """A network that a metric needs is not here; the message says what to put where."""


def own_encoder(model: Model, t: int = 50) -> Features:
    """The skips of the diffusion model's own encoder at a low noise level: a space the model knows, not a judge of faces."""

    def features(x: Tensor) -> list[Tensor]:
        z = x.to(model.device, model.dtype) * 2 - 1
        with torch.inference_mode():
            return [f.float().cpu() for f in model.unet.encode(z, timestep(t, z)).skips]

    return features


def own_bottleneck(model: Model, t: int = 50) -> Embedding:
    """h itself at a low noise level. Content injection writes h, so this is a check of the method, not a judge of it."""

    def embed(x: Tensor) -> Tensor:
        z = x.to(model.device, model.dtype) * 2 - 1
        with torch.inference_mode():
            return model.unet.encode(z, timestep(t, z)).h.float().cpu()

    return embed


def cached(prefix: str, wanted_for: str) -> Path:
    """A torchvision checkpoint in torch hub's cache."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = sorted(folder.glob(f"{prefix}-*.pth"))
    if not found:
        raise AbsentError(f"{wanted_for} needs torchvision's {prefix} weights in {folder} (none found)")
    return found[0]


def classifier(name: str, layers: tuple[int, ...], path: Path, size: int) -> Features:
    """Activations of a torchvision classifier's ``features`` at ``layers``, its input ImageNet-normalised."""
    import torchvision.models

    network: nn.Module = getattr(torchvision.models, name)(weights=None)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise AbsentError(f"{path} holds no weights of {name} ({str(error).splitlines()[0][:80]})") from error
    blocks = network.eval().requires_grad_(False).features
    assert isinstance(blocks, nn.Sequential)
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))

    @torch.inference_mode()
    def features(x: Tensor) -> list[Tensor]:
        if x.shape[-1] < size:  # AlexNet's strides leave nothing of a small picture
            x = nn.functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        z, kept = (x - mean) / std, []
        for i, block in enumerate(blocks[: layers[-1] + 1]):
            z = block(z)
            if i in layers:
                kept.append(z.clone())  # the next ReLU works in place
        return kept

    return features


def vgg_style() -> Features:
    """VGG-19 at Gatys' five style layers."""
    return classifier("vgg19", VGG_STYLE_LAYERS, cached("vgg19", "the Gram loss on VGG"), 64)


def alex_lpips(heads: Path | None = None) -> tuple[Features, list[Tensor]]:
    """LPIPS's AlexNet and its learned heads, from ``heads`` or from the installed package lpips."""
    if heads is None:
        found = importlib.util.find_spec("lpips")
        if not found or not found.origin:
            raise AbsentError("LPIPS needs learned heads: pip install lpips, or name weights/v0.1/alex.pth with --lpips_heads")
        heads = Path(found.origin).parent / "weights/v0.1/alex.pth"
    try:
        state = torch.load(heads, map_location="cpu", weights_only=True)
        weights = [state[f"lin{i}.model.1.weight"].flatten() for i in range(len(ALEX_LAYERS))]
    except Exception as error:
        raise AbsentError(f"{heads}: no LPIPS heads ({type(error).__name__})") from error
    return classifier("alexnet", ALEX_LAYERS, cached("alexnet", "LPIPS"), 64), weights


def torchscript_embedding(path: Path | None, size: int = 112) -> Embedding:
    """A face recogniser saved as TorchScript: (N, 3, size, size) in [-1, 1] to (N, D), ArcFace's convention."""
    if path is None:
        raise AbsentError("identity needs a face recogniser: name a TorchScript file with --identity")
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise WorkError(f"--identity {path}: not a readable TorchScript file ({str(error).splitlines()[0][:80]})") from error

    @torch.inference_mode()
    def embed(x: Tensor) -> Tensor:
        return network(nn.functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False) * 2 - 1)

    return embed
