"""Is a file the right one: size, structure, published hash, and the hash that it had at its first download."""

from __future__ import annotations

from pathlib import Path

from diffstyle.errors import WorkError
from diffstyle.files import file_hash, read_text
from diffstyle.zoo.entries import Entry, Mirror
from diffstyle.zoo.weights import sniff


def complaint(path: Path, mirror: Mirror, target: Path | None = None) -> str:
    """Why ``path`` is not the file that ``mirror`` names, or "": size, structure, then hash.

    ``target`` is the name that a partial file is to get; its first download may have left a hash.
    """
    size = path.stat().st_size
    if mirror.size and size != mirror.size:
        return f"{size} bytes instead of {mirror.size}"
    try:
        sniff(path)
    except WorkError as error:
        return str(error).removeprefix(f"{path}: ")
    for algorithm, wanted in (("sha256", mirror.sha256), ("md5", mirror.md5)):
        if wanted and (found := file_hash(path, algorithm)) != wanted:
            return f"{algorithm} {found} instead of {wanted}"
    return changed(path, target or path)


def changed(path: Path, target: Path) -> str:
    """Why ``path`` is not what was first downloaded as ``target``, or ""."""
    wanted = recorded(target)
    if wanted and (found := file_hash(path)) != wanted:
        return f"sha256 {found} instead of {wanted} as first downloaded (delete {sidecar(target)} to accept it)"
    return ""


def sidecar(path: Path) -> Path:
    """Where the sha256 of a downloaded file is kept, in the format of the sha256sum command."""
    return path.with_name(path.name + ".sha256")


def record(path: Path) -> str:
    """Remember the sha256 of a file that has just been downloaded; returns it."""
    digest = file_hash(path)
    sidecar(path).write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    return digest


def recorded(path: Path) -> str | None:
    """The sha256 of ``path`` at its download, if it was one."""
    try:
        words = read_text(sidecar(path)).split()
    except WorkError:
        return None
    return words[0] if words else None


def status(entry: Entry, folder: Path) -> str:
    """For the list: missing, verified (by a published hash), unchanged (since its download), present or WRONG."""
    mirror = entry.present(folder)
    if mirror is None:
        return "missing"
    path = folder / mirror.file
    problem = complaint(path, mirror)
    if problem:
        return f"WRONG: {path.name}: {problem}"
    if mirror.sha256 or mirror.md5:
        return f"verified: {path.name}"
    return f"{'unchanged since its download' if recorded(path) else 'present'}, no published hash: {path.name}"
