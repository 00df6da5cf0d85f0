"""What every command shares: least numbers, streams that cannot stop the work, signals, errors in one line, the exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from diffstyle.errors import DiffstyleError, Interrupted, UsageError, out_of_memory

if TYPE_CHECKING:  # until_work comes before all other imports of a program
    from argparse import Namespace

log = logging.getLogger("diffstyle")
# A closed terminal, Ctrl-C, and what kill sends; Windows has no SIGHUP.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name))
PATIENCE = 5.0  # seconds from one signal that is heeded to the next


def at_least(args: Namespace, **limits: int) -> None:
    """Raise UsageError for the first flag of ``limits`` whose number is less than its limit."""
    for name, least in limits.items():
        if (value := getattr(args, name)) < least:
            raise UsageError(f"--{name} {value}: use {least} or more")


class Lossy:
    """A stream that loses what cannot be written (a full disk, a reader that is gone) instead of raising OSError."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        with contextlib.suppress(AttributeError, ValueError):  # a path may hold what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self.give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self.give_up()

    def give_up(self) -> None:
        """Let the null device take the stream's place, also for what is still buffered when the process ends."""
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), self.stream.fileno())


@contextlib.contextmanager
def lossy_streams() -> Iterator[None]:
    """Standard output and error may be closed, full, broken or ASCII: the work goes on, and its exit code counts."""
    for number in range(3):  # else the next file that is opened would take the place of a closed stream
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        cast(TextIO, Lossy(stream or open(os.devnull, "w", encoding="utf-8")))  # noqa: SIM115  # None where it is closed
        for stream in before
    )
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def handling(handler: Callable[[int, object], object]) -> Iterator[None]:
    """Let ``handler`` take ``SIGNALS`` in here, except one that is ignored."""
    main_thread = threading.current_thread() is threading.main_thread()
    wanted = SIGNALS if main_thread else ()
    # nohup ignores SIGHUP, and background jobs SIGINT, on purpose.
    before = {number: signal.getsignal(number) for number in wanted if signal.getsignal(number) != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """``SIGNALS`` raise Interrupted. Those of the next seconds are ignored, for what is being written to be finished or removed.

    Not those after that: Python drops what is raised where it cleans up ("Exception ignored in").
    """
    last = -PATIENCE

    def stop(number: int, _: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PATIENCE:
            last = now
            raise Interrupted(number)

    with handling(stop):
        yield


def end(number: int, _: object) -> None:
    """A handler that ends the process at once, with one line: for imports, in which what is raised may be dropped or changed."""
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


def until_work() -> None:
    """What a program calls before its other imports: until ``exit_code`` heeds them, ``SIGNALS`` end it."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


@contextlib.contextmanager
def postponed() -> Iterator[list[int]]:
    """``SIGNALS`` do not cut in: their numbers are put on the list, for the work to act on where it is consistent."""
    asked: list[int] = []
    with handling(lambda number, _: asked.append(number)):
        yield asked


def exit_code(work: Callable[[], int | None], unforeseen: str = "", memory: str = "use fewer or smaller pictures") -> int:
    """What ``work`` returns (nothing is 0); or, said in one line, what its error stands for: 2 wrong usage, 1 failed work.

    129, 130 and 143 are SIGHUP, SIGINT and SIGTERM. An error that nobody has foreseen is raised; with ``unforeseen``, which
    tells how to see more of it, it is failed work too. ``memory`` is what to do where memory ran out.
    """
    try:
        with interruptible():
            return work() or 0
    except DiffstyleError as error:
        log.debug("", exc_info=True)
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return error.exit_code
    except Interrupted as stop:
        so_far = f": {stop.progress}; the same command goes on from there" if stop.progress else ""
        print(f"interrupted{so_far}", file=sys.stderr)
        return stop.exit_code
    except Exception as error:
        log.debug("", exc_info=True)
        if out_of_memory(error):
            print(f"error: out of memory: {memory}, or close other programs", file=sys.stderr)
            return 1
        if not unforeseen:
            raise
        text = " ".join(str(error).split())[:300]
        print(f"error: {type(error).__name__}: {text} ({unforeseen})", file=sys.stderr)
        return 1
