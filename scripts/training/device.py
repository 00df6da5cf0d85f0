"""Where the trainer computes, alone or as one of torchrun's processes that share each batch, and what is drawn for it there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from diffstyle.errors import WorkError
from diffstyle.pipeline import to_device
from diffstyle.runs.batching import free_memory
from diffstyle.runs.workers import ALONE, ENDED, Share, join, leave
from diffstyle.zoo.device import pick_device, pick_precision

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    """A device, and which part of every batch is computed on it."""

    device: torch.device = CPU
    share: Share = ALONE

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over all processes into each of these tensors. Raises WorkError when another process has ended."""
        if not self.share.together:
            return
        flat = torch.cat([x.reshape(-1) for x in tensors])
        reduce(flat)
        flat /= self.share.count
        for x, mean in zip(tensors, flat.split([x.numel() for x in tensors]), strict=True):
            x.copy_(mean.view(x.shape))

    def anywhere(self, said: bool) -> bool:
        """Whether any process says so. Raises WorkError when another process has ended."""
        if not self.share.together:
            return said
        flag = torch.tensor([float(said)])  # on the CPU: a GPU at work is not waited for
        reduce(flag)
        return bool(flag)


HERE = Place()


def reduce(x: Tensor) -> None:
    """Put the sum over all processes into x."""
    try:
        torch.distributed.all_reduce(x)
    except RuntimeError as error:
        raise WorkError(ENDED) from error


@contextmanager
def computing(name: str, precision: str, share: Share) -> Iterator[Place]:
    """The place that ``--device`` and ``--precision`` name, met with the other processes of ``share``.

    On CUDA only algorithms are taken that give the same numbers each time, for a resume to be exact. Raises UsageError.
    """
    device = pick_device(name, share.local)
    pick_precision(precision, device)
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing here reads what it has not written
    try:
        join(share, device, "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        yield Place(device, share)
    finally:
        leave(share)


def has_room(device: torch.device, n_bytes: int) -> bool:
    """Whether a GPU that has done an iteration can hold so much besides: what an iteration takes PyTorch keeps for the next."""
    return device.type == "cuda" and n_bytes <= free_memory(device) * 3 // 4


class Draws:
    """All randomness of one iteration, from seed and iteration: nothing has to be saved for an exact resume.

    Numbers are drawn on the CPU, so a seed means the same on every device. Each of several processes draws for the whole
    batch and takes its rows, every n-th, so that together they see what a single one would. Results are on the CPU.
    """

    def __init__(self, seed: int, iteration: int, place: Place = HERE) -> None:
        self.device, self.share = place.device, place.share
        self.generator = torch.Generator().manual_seed(seed * 1_000_003 + iteration)

    def rand(self, n: int, *shape: int) -> Tensor:
        """Uniform in [0, 1): n rows of this process, (n, *shape)."""
        return self.own(torch.rand(n * self.share.count, *shape, generator=self.generator))

    def randn(self, n: int, *shape: int) -> Tensor:
        """Normal, (n, *shape)."""
        return self.own(torch.randn(n * self.share.count, *shape, generator=self.generator))

    def randint(self, low: int, high: int, n: int) -> Tensor:
        """Whole numbers from low to high - 1, (n,)."""
        return self.own(torch.randint(low, high, (n * self.share.count,), generator=self.generator))

    def own(self, rows: Tensor) -> Tensor:
        return rows[self.share.index :: self.share.count]

    def here(self, x: Tensor) -> Tensor:
        """x on the device, without waiting for it."""
        return to_device(x, self.device)
