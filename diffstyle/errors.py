"""The two ways in which a run fails for its user; the message is one line: what is wrong, where, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST = 1000  # characters of a message; a file can hold a name of any length


def one_line(text: object) -> str:
    """Text that may come from a file or a server, safe to show: on one line, control characters as escapes."""
    words = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in words)


class DiffstyleError(Exception):
    """Base of the errors that are shown as one line instead of a traceback."""

    exit_code = 1

    def __init__(self, text: object = "") -> None:
        line = one_line(text)
        half = LONGEST // 2  # what is wrong stands at the beginning, what to do at the end
        super().__init__(line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}")


class UsageError(DiffstyleError):
    """The command or a config asks for something that cannot be meant (exit code 2)."""

    exit_code = 2


class WorkError(DiffstyleError):
    """The request is fine, but a file, a checkpoint or the machine does not allow it (exit code 1)."""


class Interrupted(KeyboardInterrupt):
    """SIGHUP, SIGINT or SIGTERM. ``progress`` is what the run says of how far it came."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number
        self.progress = ""


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error means: of the CPU, for which PyTorch has no type of its own, or of a GPU."""
    said = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")  # the last by cuBLAS and cuDNN
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(s in str(error).lower() for s in said))


@contextmanager
def saying(progress: Callable[[], str]) -> Iterator[None]:
    """An interruption in here tells ``progress()``, unless it was told how far the work came further inside."""
    try:
        yield
    except Interrupted as stop:
        stop.progress = stop.progress or progress()
        raise
