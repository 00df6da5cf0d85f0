"""Reading and writing beside a GPU at work, which neither the disk nor a PNG keeps waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
ROOM = 2  # batches of results that may wait to be written


class Background:
    """One thread that does what it is given in order. At the end of the ``with`` all of it has been done, or its error is raised.

    Where the CPU computes there is no thread, which would only take turns with it: what is put here is done at once.
    """

    def __init__(self, device: torch.device) -> None:
        self.pool = ThreadPoolExecutor(1, "background") if device.type == "cuda" else None
        self.waiting: deque[Future[None]] = deque()

    def put(self, task: Callable[[], None]) -> None:
        """Have a task done. Waits while ``ROOM`` earlier ones are not, and raises their errors."""
        if not self.pool:
            return task()
        while len(self.waiting) >= ROOM:
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(task))

    def ahead(self, task: Callable[[], T]) -> Future[T] | None:
        """Begin what is wanted soon; None where nothing goes on meanwhile."""
        return self.pool.submit(task) if self.pool else None

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """After an interruption, too, what has been computed is written."""
        if self.pool:
            self.pool.shutdown(wait=True)
        while self.waiting and not error:
            self.waiting.popleft().result()


def leaving(x: Tensor) -> Callable[[], Tensor]:
    """Begin to copy x to the CPU; what this returns waits for the copy, and gives it. Elsewhere than on CUDA it is x itself."""
    if x.device.type != "cuda":
        return lambda: x
    copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    copy.copy_(x, non_blocking=True)
    event = torch.cuda.current_stream(x.device).record_event()

    def arrived() -> Tensor:
        event.synchronize()
        return copy

    return arrived
