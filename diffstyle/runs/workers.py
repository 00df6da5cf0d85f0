"""Several processes on one run: started by torchrun, or apart from one another with --shard.

The work itself is shared through the file system alone: each process takes every n-th pair, reads what others have put
into the cache, and what it has finished stays. torch.distributed only brings the reports together at the end.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

from diffstyle.errors import UsageError, WorkError

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # ranks that are done wait for the others; the end of a process is noticed at once
ENDED = "another process of this run has ended; run again to finish the rest"


@dataclass(frozen=True)
class Share:
    """Which part of a run this process does."""

    index: int = 0
    count: int = 1
    together: bool = False  # under torchrun: one of the processes speaks for all
    local: int = 0  # among the processes of this machine
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process shows progress and writes grid and report."""
        return self.index == 0 or not self.together

    def own(self, items: Sequence[T]) -> list[T]:
        """Every n-th of ``items``, which must be the same list in all processes."""
        return list(items[self.index :: self.count])

    def order(self, items: Sequence[T]) -> list[T]:
        """All of ``items``, own ones first; the others, in case their processes are slow or gone, in an order of our own."""
        rest = [item for i, item in enumerate(items) if i % self.count != self.index]
        random.Random(self.index).shuffle(rest)
        return self.own(items) + rest

    def from_first(self, value: str) -> str:
        """The first process's ``value``, in all."""
        if not self.together:
            return value
        box = [value]
        try:
            torch.distributed.broadcast_object_list(box)
        except RuntimeError as error:
            raise WorkError(ENDED) from error
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Everybody's ``value`` in the first process, which waits for the others; an empty list in them."""
        if not self.together:
            return [value]
        boxes: list[T | None] = [None] * self.count
        try:
            torch.distributed.gather_object(value, boxes if self.first else None)
        except RuntimeError as error:
            raise WorkError(ENDED) from error
        return [box for box in boxes if box is not None]


ALONE = Share()


def find_share(shard: str | None, environ: Mapping[str, str] = os.environ) -> Share:
    """From ``--shard i/n`` or torchrun's variables. Raises UsageError."""
    launched = told(environ, "WORLD_SIZE", 1) if "TORCHELASTIC_RUN_ID" in environ else 1
    if shard:
        numbers = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", shard)
        index, count = map(int, numbers.groups()) if numbers else (0, 0)
        if index >= count:
            raise UsageError(f"--shard {shard[:80]}: use i/n with i from 0 to n - 1, as 0/4, 1/4, 2/4, 3/4")
        if launched > 1:
            raise UsageError("--shard is for processes started one by one; torchrun shares the work by itself")
        return Share(index, count)
    if launched == 1:
        return ALONE
    return Share(
        index=told(environ, "RANK", 0, launched - 1),
        count=launched,
        together=True,
        local=told(environ, "LOCAL_RANK", 0),
        local_count=told(environ, "LOCAL_WORLD_SIZE", 1),
    )


def told(environ: Mapping[str, str], name: str, low: int, high: int = 10**9) -> int:
    """A number that torchrun tells its processes. Raises UsageError."""
    text = environ.get(name, "")
    if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise UsageError(f"torchrun's variable {name} is {text[:80]!r}: start the processes by torchrun, which sets it, or "
                         "unset TORCHELASTIC_RUN_ID")  # fmt: skip
    return int(text)


def join(share: Share, device: torch.device, backend: str = "gloo") -> None:
    """Meet the other processes of torchrun, and divide the CPU's cores among those of this machine.

    ``backend`` is what torch.distributed sends tensors by; gloo is enough for reports.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # before anything is allocated
    if not share.together:
        return
    if device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // share.local_count))
    try:
        torch.distributed.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:  # ValueError: a variable of torchrun's is missing
        kind = UsageError if isinstance(error, ValueError) else WorkError
        raise kind(f"the processes of torchrun do not find each other: {' '.join(str(error).split())[:200]}") from error


def leave(share: Share) -> None:
    if share.together and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
