"""The two ways in which a run fails for its user; the message is one line: what is wrong, where, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class DiffstyleError(Exception):
    """Base of the errors that are shown as one line instead of a traceback."""

    exit_code = 1


class UsageError(DiffstyleError):
    """The command or a config asks for something that cannot be meant (exit code 2)."""

    exit_code = 2


class WorkError(DiffstyleError):
    """The request is fine, but a file, a checkpoint or the machine does not allow it (exit code 1)."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM. ``progress`` is what the run says of how far it came."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number
        self.progress = ""


@contextmanager
def saying(progress: Callable[[], str]) -> Iterator[None]:
    """An interruption in here tells ``progress()``, unless it was told how far the work came further inside."""
    try:
        yield
    except Interrupted as stop:
        stop.progress = stop.progress or progress()
        raise
