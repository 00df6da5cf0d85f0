"""Fetch a published checkpoint: mirrors in order, resumed, verified before the file gets its name."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from diffstyle.errors import UsageError, WorkError
from diffstyle.zoo.entries import Entry, Mirror
from diffstyle.zoo.integrity import complaint, record, sidecar
from diffstyle.zoo.places import downloads
from diffstyle.zoo.transports import MirrorError, forget, get, is_remote, part_file

log = logging.getLogger(__name__)


def fetch(entry: Entry, folder: Path | None = None, origin: str | None = None) -> Path:
    """The verified file of ``entry`` in ``folder``, downloaded unless it is there. Raises WorkError with what to do.

    ``origin``, a local file or a URL, replaces the mirrors of the zoo; it must be one of the entry's files where their
    hashes are known. Processes that want the same model wait for one another.
    """
    folder = folder or downloads()
    make_folder(folder)
    with lock(folder / f".{entry.name}.lock", entry.name):
        mirror = entry.present(folder)
        if mirror and origin is None:
            path = folder / mirror.file
            problem = complaint(path, mirror)
            if not problem:
                return path
            log.warning("%s: %s; kept as %s.old, getting it again", path, problem, path.name)
            os.replace(path, path.with_name(path.name + ".old"))
        failures = []
        for mirror in entry.mirrors if origin is None else [from_origin(entry, origin)]:
            try:
                return fetch_from(mirror, folder)
            except MirrorError as error:
                failures.append(f"{urlsplit(mirror.url).hostname or mirror.url}: {error}")
                log.warning("%s: %s", mirror.url, error)
    raise WorkError(by_hand(entry, folder, failures))


def from_origin(entry: Entry, origin: str) -> Mirror:
    """``--from``: the entry's file from elsewhere, under the name it ends in if the entry knows that."""
    name = urlsplit(origin).path.rpartition("/")[2] if is_remote(origin) else Path(origin).name
    same = next((mirror for mirror in entry.mirrors if mirror.file == name), entry.mirrors[0])
    return Mirror(origin, same.file, same.size, same.sha256, same.md5)


def by_hand(entry: Entry, folder: Path, failures: list[str]) -> str:
    """One line: what happened, which page to open, under which name to save what, how to hand in a copy."""
    first = entry.mirrors[0]
    why = "; ".join(dict.fromkeys(failures))
    return (
        f"{entry.name}: no mirror delivered {first.file} ({why}). By hand: open {first.page}, save the file as "
        f"{folder / first.file} ({first.expected}); for a copy: scripts/download.py {entry.name} --from FILE_OR_URL"
    )


def fetch_from(mirror: Mirror, folder: Path) -> Path:
    """Get one mirror's file into a partial file of its own, verify it, give it its name."""
    target = folder / mirror.file
    part = target.with_name(f"{target.name}.{hashlib.sha256(mirror.url.encode()).hexdigest()[:8]}.part")
    resumed = part.exists()
    log.info("%s: getting it from %s", target.name, mirror.url)
    get(mirror.url, part, mirror.size)
    problem = complaint(part, mirror, target)
    if problem and resumed:  # the old half may have been the wrong one
        log.warning("%s: %s; once more from the start", target.name, problem)
        forget(part)
        get(mirror.url, part, mirror.size)
        problem = complaint(part, mirror, target)
    if problem:
        forget(part)
        raise MirrorError(problem)
    os.replace(part, target)
    forget(part)
    digest = record(target)
    if mirror.sha256 or mirror.md5:
        log.info("%s: verified (%s)", target, mirror.expected)
    else:
        unsaid = "has the structure of a checkpoint, but nobody publishes its hash: whether it is the right one is not verified"
        log.info("%s: %s; later changes will be noticed (%s has its sha256 %s)", target, unsaid, sidecar(target).name, digest)
    return target


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}; choose another folder with --dir") from error


@contextmanager
def lock(path: Path, name: str) -> Iterator[None]:
    """One process at a time; released by the system if this one dies. Without fcntl (Windows) there is no lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with part_file(path, append=True) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another process is getting it, waiting", name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
