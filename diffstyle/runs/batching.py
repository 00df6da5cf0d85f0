"""How many pictures share a network call: by free memory, and halved when that was too many.

A picture does not depend on the batch that it is made in, up to rounding: at most 1 level of 255 in fp32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from diffstyle.errors import WorkError, out_of_memory
from diffstyle.model import Model
from diffstyle.pipeline import injection

log = logging.getLogger(__name__)
T = TypeVar("T")

# What a picture costs, in units of one activation map of the first level: the encoder's skips of both halves of a stacked
# decode and some working space. Measured at 256x256 it is about 40, for both families.
MAPS = 48
PROBE = 2  # pictures of the pass that measures
MOST = {"cpu": 4, "cuda": 32, "mps": 8}  # beyond these a larger batch is hardly faster


class Batches:
    """Cuts work into batches; after an out-of-memory error it goes on with batches of half the size."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(
        self,
        items: Sequence[T],
        work: Callable[[Sequence[T]], None],
        prepare: Callable[[Sequence[T], Sequence[T]], None] | None = None,
    ) -> None:
        """Call ``work`` on batch after batch; one that ran out of memory is called again, in halves.

        ``prepare`` is called before with the batch and the one that is to follow.
        """
        done = 0
        while done < len(items):
            batch = items[done : done + self.size]
            try:
                if prepare:
                    prepare(batch, items[done + len(batch) : done + 2 * len(batch)])
                work(batch)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise WorkError("out of memory with a single picture; close other programs, or try --precision bf16 or "
                                    "--device cpu") from error  # fmt: skip
                self.size = (len(batch) + 1) // 2
                log.warning("out of memory: going on with --batch_size %d", self.size)
            else:
                done += len(batch)
                continue
            if torch.cuda.is_available():  # after the except block, whose error holds the tensors
                torch.cuda.empty_cache()


def default_batch_size(model: Model, processes: int = 1) -> int:
    """As many pictures as the free memory holds, up to where batching stops to pay.

    On CUDA what a picture takes is measured, and nine tenths of the memory are used; elsewhere it is estimated, and half is
    used. ``processes`` share a CPU's memory; each has a GPU of its own.
    """
    most = MOST.get(model.device.type, 4)
    if model.device.type == "cuda":
        each = measured_bytes(model)
        return int(max(1, min(most, free_memory(model.device) * 9 // 10 // each)))
    first = next(p for p in model.unet.parameters() if p.dim() == 4)
    bytes_each = MAPS * first.shape[0] * model.config.image_size**2 * first.element_size()
    free = free_memory(model.device) // (processes if model.device.type == "cpu" else 1)
    return int(max(1, min(most, free // 2 // bytes_each)))


def measured_bytes(model: Model) -> int:
    """What one picture of a batch takes on a CUDA card at most, by a pass over two; all that is free if two do not fit."""
    device = model.device
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    fits = True
    try:
        injection(model, PROBE)
    except torch.OutOfMemoryError:
        fits = False
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.empty_cache()  # what PyTorch keeps for itself would not count as free
    return max(1, (peak - before) // PROBE) if fits else free_memory(device)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on ``device``; a modest guess where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = 4 << 30
    for line in read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")  # a container's limit
    limit, used = read(group / "memory.max").strip(), read(group / "memory.current").strip()
    return min(free, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else free


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
