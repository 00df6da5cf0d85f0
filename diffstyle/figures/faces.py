"""Identity, expression and landmarks of a face, by the small networks of npm's @vladmandic/face-api (MIT).

Their weights lie in pretrained/metrics as the package has them: a list of tensors and their bytes, mostly 8 bits with a scale.
They were trained on photographs and know nothing of drawings. There is no face detector, so a picture must show one upright
face that fills it, as the aligned data sets do.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffstyle.figures.feature_networks import AbsentError, same_padding

FOLDER = Path(__file__).resolve().parents[1] / "pretrained/metrics"
MEAN_RGB = (122.782, 117.001, 104.298)
Weights = dict[str, Tensor]


@functools.cache
def read_weights(name: str, folder: Path = FOLDER) -> Weights:
    """The tensors of NAME_model.bin, convolutions as torch has them: (out, in, h, w), depthwise (channels, 1, h, w)."""
    try:
        listed = json.loads((folder / f"{name}_model-weights_manifest.json").read_text())[0]["weights"]
        data = (folder / f"{name}_model.bin").read_bytes()
    except OSError as error:
        raise AbsentError(f"{name} needs the model files of npm @vladmandic/face-api in {folder} ({error.strerror})") from None
    weights, at = {}, 0
    for entry in listed:
        count, code = int(np.prod(entry["shape"])), entry.get("quantization")
        values = np.frombuffer(data, np.uint8 if code else np.float32, count, at).astype(np.float32)
        at += count * (1 if code else 4)
        tensor = torch.from_numpy(values * code["scale"] + code["min"] if code else values).float().reshape(entry["shape"])
        if tensor.dim() == 4:
            tensor = tensor.permute((2, 3, 0, 1) if "depthwise" in entry["name"] else (3, 2, 0, 1)).contiguous()
        weights[entry["name"]] = tensor
    return weights


def prepare(x: Tensor, size: int) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] at the network's size, less the mean colour."""
    if x.shape[-1] != size:
        x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return (x * 255 - x.new_tensor(MEAN_RGB)[None, :, None, None]) / 255


# ---- who: a small residual network after dlib's ------------------------------------------------------------------


@torch.inference_mode()
def identity(x: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] to descriptors (N, 128); two of one person lie within 0.6 of each other."""
    w = read_weights("face_recognition")

    def convolve(z: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = w[f"{name}/conv/filters"]
        z = F.conv2d(z, kernel, w[f"{name}/conv/bias"], stride, padding=kernel.shape[-1] // 2 if stride == 1 else 0)
        return z * w[f"{name}/scale/weights"][:, None, None] + w[f"{name}/scale/biases"][:, None, None]

    z = F.max_pool2d(F.relu(convolve(prepare(x, 150), "conv32_down", 2)), 3, 2)
    for name in dict.fromkeys(key.split("/")[0] for key in w if key.split("/")[0] not in ("conv32_down", "fc")):
        down = "down" in name
        out = convolve(F.relu(convolve(z, f"{name}/conv1", 2 if down else 1)), f"{name}/conv2")
        if down:  # zeros where the shortcut is larger than the convolutions' result, and for its missing channels
            z = F.avg_pool2d(z, 2)
            lacking = z.shape[-1] - out.shape[-1]
            out = F.pad(out, (0, lacking, 0, lacking))
            z = F.pad(z, (0, 0, 0, 0, 0, out.shape[1] - z.shape[1]))
        z = F.relu(out + z)
    return z.mean((2, 3)) @ w["fc"]


# ---- how: one densely connected network with two sets of weights -------------------------------------------------


@torch.inference_mode()
def dense(x: Tensor, name: str) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] to the outputs of one of the two networks, before any softmax."""
    w = read_weights(name)

    def separable(z: Tensor, layer: str, stride: int) -> Tensor:
        kernel = w[f"{layer}/depthwise_filter"]
        z = F.conv2d(F.pad(z, same_padding(z.shape[-1], 3, stride)), kernel, None, stride, groups=len(kernel))
        return F.conv2d(z, w[f"{layer}/pointwise_filter"], w[f"{layer}/bias"])

    z = prepare(x, 112)
    for block in range(4):
        if block:
            total = separable(z, f"dense{block}/conv0", 2)
        else:
            total = F.conv2d(F.pad(z, same_padding(112, 3, 2)), w["dense0/conv0/filters"], w["dense0/conv0/bias"], 2)
        z = total = F.relu(total)
        for layer in (1, 2, 3):
            total = total + separable(z, f"dense{block}/conv{layer}", 1)
            z = F.relu(total)
    return F.avg_pool2d(z, 7).flatten(1) @ w["fc/weights"] + w["fc/bias"]


def expression(x: Tensor) -> Tensor:
    """Probabilities (N, 7): neutral, happy, sad, angry, fearful, disgusted, surprised."""
    return dense(x, "face_expression").softmax(1)


def landmarks(x: Tensor) -> Tensor:
    """68 points (N, 68, 2) as (x, y) in fractions of the picture, in the order of the 300-W set."""
    return dense(x, "face_landmark_68").unflatten(1, (68, 2))


# ---- what is compared --------------------------------------------------------------------------------------------


def identity_distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of the descriptors, (N,)."""
    return (identity(a) - identity(b)).norm(dim=1)


def expression_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Share of probability that both expressions have in common, 0 to 1, (N,)."""
    return torch.minimum(expression(a), expression(b)).sum(1)


def landmark_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of the 68 points as a share of the distance between the outer corners of ``b``'s eyes, (N,)."""
    one, other = landmarks(a), landmarks(b)
    return (one - other).norm(dim=2).mean(1) / (other[:, 36] - other[:, 45]).norm(dim=1)
