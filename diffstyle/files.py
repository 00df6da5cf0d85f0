"""Files: written whole or not at all, recognised by their digest, and what a killed process leaves."""

from __future__ import annotations

import errno
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

from diffstyle.errors import UsageError, WorkError

LARGEST = 1 << 30  # bytes of a file that is read at once: no picture, list, mask or latent is larger
LARGEST_TEXT = 256 << 10  # bytes of a config, description or grid; most have 1 kB
# Errors after which nothing more can be written, whatever it is called.
HOPELESS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an error",
}


class StorageError(WorkError):
    """Nothing more can be written there: the disk is full, read-only or broken."""


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


def kind_of(path: Path) -> str:
    """ "file", "folder", "other" (a pipe or device), or "" where nothing is, or nothing can be, under such a name."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # too long a name, a null byte, a link to itself
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def read_bytes(path: Path) -> bytes:
    """All bytes of a regular file of at most 1 GB, read in one go. Raises WorkError, and never waits: see check_regular.

    A file that claims no bytes gives none, which ends the matter for those of /proc.
    """
    size = check_regular(path)
    if size > LARGEST:
        raise WorkError(f"{path}: {size} bytes, more than the {LARGEST} that are read")
    try:
        # Should a pipe have taken the file's place meanwhile, opening it must not wait for its other end.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            data = file.read(size + 1) if size else b""
    except OSError as error:
        raise WorkError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) != size:
        raise WorkError(f"{path}: changed while it was read")
    return data


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """The text of a regular file of 1 to ``largest`` bytes in UTF-8. Raises WorkError."""
    size = check_regular(path)
    if not 0 < size <= largest:
        raise WorkError(f"{path}: has {size} bytes, a text of 1 to {largest} was expected")
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WorkError(f"{path}: not readable: {error}") from error


def read_json(path: Path, largest: int = LARGEST_TEXT) -> Any:
    """The value of a JSON file of at most ``largest`` bytes. Raises WorkError."""
    try:
        return json.loads(read_text(path, largest))
    except (ValueError, RecursionError) as error:
        raise WorkError(f"{path}: not readable as JSON ({error})") from error


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's bytes. Raises WorkError when it cannot be read."""
    check_regular(path)
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WorkError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def open_folder(folder: Path, flag: str) -> None:
    """Create a folder if need be and see that it can be written to. Raises WorkError, UsageError for a name too long."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        kind = UsageError if error.errno == errno.ENAMETOOLONG else WorkError
        raise kind(f"{flag} {folder}: cannot be written to ({error.strerror})") from error


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it, unless it is there. Raises WorkError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: the file appears whole or not at all.

    That holds for a power cut, too: the bytes are on the disk before the name is, and the name before this returns.
    Raises WorkError; StorageError if no other name would do better.
    """
    temporary = path.with_name(temporary_name())
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EEXIST, f"a {'folder' if path.is_dir() else 'pipe or device'} has that name")
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            sync(f.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(handle: int) -> None:
    """Have an open file's bytes written to the disk, where its file system can do that."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def sync_folder(folder: Path) -> None:
    """Have the names in a folder written to the disk, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def unwritable(path: Path, error: OSError) -> WorkError:
    """What to raise for ``error`` while writing ``path``."""
    if error.errno in HOPELESS:
        return StorageError(f"{path}: cannot be written: {HOPELESS[error.errno]}")
    return WorkError(f"{path}: cannot be written ({error.strerror or error})")


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
