"""--compile: both halves of a network through torch.compile, with as few compilations as there can be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffstyle.model import Model
from diffstyle.models.hspace_unet import Features
from diffstyle.models.layers import memory_format

log = logging.getLogger(__name__)
GRAPHED = 8  # pictures up to which a card computes faster than Python can ask; there CUDA graphs pay off
HALVES = ("encode", "decode")


class CompiledHalf:
    """``encode`` or ``decode``, compiled at most twice: for one picture, which PyTorch always treats apart, and for more.

    The number of pictures is marked as free from the first call on, so that other batches, the last smaller one and stacked
    decodes find the code there. With ``graphs`` calls of up to ``GRAPHED`` pictures are compiled once more, into CUDA graphs.
    """

    def __init__(self, half: Callable[..., Any], graphs: bool) -> None:
        self.plain = torch.compile(half)
        self.graphed = torch.compile(half, mode="reduce-overhead") if graphs else None

    def __call__(self, *args: Any) -> Any:
        # A tensor from outside of inference mode, as a walk's first x, would be compiled for apart.
        args = tuple(x.clone() if isinstance(x, Tensor) and not x.is_inference() else x for x in args)
        inputs = [x for arg in args for x in flat(arg)]
        for x in inputs:
            torch._dynamo.maybe_mark_dynamic(x, 0)
        if self.graphed is None or len(inputs[0]) > GRAPHED:
            return self.plain(*args)
        return owned(self.graphed(*args))


def flat(value: Tensor | Features) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [value.h, *value.skips, value.temb]


def owned(output: Tensor | Features) -> Tensor | Features:
    """A graph's output in memory of its own where it is kept for longer than one evaluation: the next replay overwrites it."""
    if isinstance(output, Tensor):
        return output.clone()
    return output._replace(h=output.h.clone(), temb=output.temb.clone())


def compile_model(model: Model) -> None:
    """torch.compile both halves of the network, in place; where that does not work a notice says so and nothing changes.

    It takes a minute or so. On CUDA cuDNN then also times its algorithms for every new shape, and takes the fastest.
    """
    unet, size, cuda = model.unet, model.config.image_size, model.device.type == "cuda"
    x, t = torch.zeros(2, 3, size, size, device=model.device), torch.zeros(2, device=model.device)
    try:
        for half in HALVES:
            setattr(unet, half, CompiledHalf(getattr(unet, half), graphs=cuda))
        with torch.inference_mode():
            unet(x.to(memory_format=memory_format(model.device)), t)
    except Exception as error:  # no compiler, no Triton, an operator that it does not know ...: no common error
        for half in HALVES:
            vars(unet).pop(half, None)
        log.warning("--compile: torch.compile does not work here (%s), running uncompiled", str(error).split("\n")[0][:100])
        return
    if cuda:
        torch.backends.cudnn.benchmark = True
