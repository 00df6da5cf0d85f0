"""Where training pictures come from: a folder or an .npz of pictures, or drawn shapes that every batch colours anew."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import check_regular
from diffstyle.images import load_image, readable_endings
from diffstyle.pipeline import to_device
from training.device import CPU, Draws, has_room

log = logging.getLogger("train_ddpm")


def taken(store: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """store[index], for an index on the CPU, on ``device``. Rows of a store that is elsewhere go there by pinned memory."""
    return to_device(store[to_device(index, store.device)], device)


class Pictures:
    """Pictures as they are: images (N, 3, H, W) uint8."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def keep_on(self, device: torch.device) -> None:
        """Move what is drawn from to a GPU that has room for it."""
        if has_room(device, self.images.nbytes):
            self.images = self.images.to(device)

    def draw(self, n: int, g: Draws) -> Tensor:
        """n random pictures (n, 3, H, W) in [-1, 1], where g wants them."""
        return taken(self.images, g.randint(0, len(self), n), g.device).float() / 127.5 - 1


class Layers:
    """Drawn shapes in any colours (make_avatars.py --layers): a picture is a constant plus weights times four colours."""

    def __init__(self, constant: Tensor, weights: Tensor, colours: Tensor) -> None:
        self.constant, self.weights = constant, weights  # (N, H, W, 3) and (N, H, W, 4), uint8
        self.colours = colours.float()  # (M, 4, 3) in [0, 255]

    def __len__(self) -> int:
        return len(self.constant)

    def keep_on(self, device: torch.device) -> None:
        """Move what is drawn from to a GPU that has room for it."""
        if has_room(device, self.constant.nbytes + self.weights.nbytes + self.colours.nbytes):
            self.constant, self.weights, self.colours = (x.to(device) for x in (self.constant, self.weights, self.colours))

    def paint(self, shapes: Tensor, colours: Tensor, device: torch.device = CPU) -> Tensor:
        """Shapes (n,) in colourings (n,), both indices on the CPU -> pictures (n, 3, H, W) in [-1, 1] on ``device``, channels
        last in memory.
        """
        constant, weights = taken(self.constant, shapes, device), taken(self.weights, shapes, device)
        with torch.autocast(device.type, enabled=False):  # in bfloat16 colours would be a level off
            coloured = torch.bmm(weights.flatten(1, 2).float() / 255, taken(self.colours, colours, device))
        return ((constant + coloured.view(constant.shape)).clamp(0, 255) / 127.5 - 1).permute(0, 3, 1, 2)

    def pick(self, n: int, g: Draws) -> tuple[Tensor, Tensor]:
        """n random shapes and n random colourings, as indices."""
        return g.randint(0, len(self), n), g.randint(0, len(self.colours), n)

    def draw(self, n: int, g: Draws) -> Tensor:
        """n random pictures (n, 3, H, W) in [-1, 1], where g wants them."""
        return self.paint(*self.pick(n, g), g.device)


def load_data(path: Path, size: int) -> Pictures | Layers:
    """An .npz of make_avatars.py (with ``images``, or ``constant``, ``weights`` and ``colours``), or a folder tree.

    Raises UsageError if nothing in it can be trained on.
    """
    if path.suffix == ".npz":
        return from_npz(path, size)
    known = readable_endings()
    try:
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in known)
    except OSError as error:
        raise UsageError(f"--data {path}: cannot be read ({error.strerror})") from error
    loaded = []
    for file in tqdm(files, desc="reading pictures", leave=False):
        try:
            loaded.append(((load_image(file, size) + 1) * 127.5).round().byte())
        except WorkError as error:
            log.warning("skipped %s", error)
    if not loaded:
        raise UsageError(f"--data {path}: no picture in it")
    return Pictures(torch.stack(loaded))


def from_npz(path: Path, size: int) -> Pictures | Layers:
    try:
        check_regular(path)
        with np.load(path) as arrays:
            names = ("images",) if "images" in arrays else ("constant", "weights", "colours")
            found = [arrays[name] for name in names]
    except Exception as error:  # zipfile, zlib and numpy have an error of their own each
        raise UsageError(f"--data {path}: no readable .npz with an array 'images' ({str(error)[:150]})") from error
    for name, array in zip(names, found, strict=True):
        *middle, channels = {"weights": ("H", "W", 4), "colours": (4, 3)}.get(name, ("H", "W", 3))
        if array.dtype != np.uint8 or array.ndim != len(middle) + 2 or array.shape[-1] != channels or not array.size:
            shape = ", ".join(map(str, ("N", *middle, channels)))
            raise UsageError(f"--data {path}: '{name}' is {array.dtype} {array.shape}, it must be uint8 ({shape}) and not empty")
    if len(found) == 3:
        return layers(path, size, *found)
    images = torch.from_numpy(found[0]).permute(0, 3, 1, 2)
    if images.shape[2:] != (size, size):
        images = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True).round().byte()
    return Pictures(images.contiguous())


def layers(path: Path, size: int, constant: np.ndarray, weights: np.ndarray, colours: np.ndarray) -> Layers:
    if constant.shape[1:3] != (size, size):
        raise UsageError(f"--data {path}: layers of {constant.shape[1]} pixels, the config says {size}")
    if weights.shape[:3] != constant.shape[:3] or colours.shape[1] != 4:
        raise UsageError(f"--data {path}: constant {constant.shape}, weights {weights.shape} and colours {colours.shape} "
                         "do not belong together: (N, H, W, 3), (N, H, W, 4) and (M, 4, 3)")  # fmt: skip
    return Layers(*map(torch.from_numpy, (constant, weights, colours)))
