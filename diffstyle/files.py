"""Files: written whole or not at all, recognised by their digest, and what a killed process leaves."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from diffstyle.errors import WorkError


def check_regular(path: Path) -> int:
    """The size of a regular file. Raises WorkError for a pipe, a device or a folder: reading one may never end.

    Files of /proc count as regular and claim no size; who reads must refuse size 0.
    """
    try:
        info = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise WorkError(f"{path}: not readable: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(info.st_mode):
        raise WorkError(f"{path}: no regular file but a {'folder' if stat.S_ISDIR(info.st_mode) else 'pipe or device'}")
    return info.st_size


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's bytes. Raises WorkError when it cannot be read."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WorkError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def open_folder(folder: Path, flag: str) -> None:
    """Create a folder if need be and see that it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WorkError(f"{flag} {folder}: cannot be written to ({error.strerror})") from error


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: the file appears whole or not at all."""
    temporary = path.with_name(temporary_name())
    try:
        with open(temporary, "wb") as f:
            write(f)
        os.replace(temporary, path)
    except OSError as error:
        raise WorkError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: Path, value: Any) -> None:
    text = dump(value, indent=1)
    write_whole(path, lambda f: f.write(text.encode()))


def dump(value: Any, indent: int | None = None) -> str:
    """JSON that always encodes: bytes of a file name that are not UTF-8 stay as escapes, which JSON can read back."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()


def temporary_name() -> str:
    """A hidden name that no other process uses and that says whose it is: .HOST.PID.RANDOM.tmp"""
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    return f".{host}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def abandoned(name: str) -> bool:
    """Whether ``name`` is a temporary file or folder of a process of this machine that is no more."""
    parts = name.split(".")
    mine = temporary_name().split(".")
    if len(parts) != len(mine) or parts[-1] != "tmp" or parts[1] != mine[1] or not parts[2].isdigit():
        return False
    if parts[2] == mine[2]:
        return False
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
