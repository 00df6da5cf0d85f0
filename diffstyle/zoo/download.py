"""Fetch a published checkpoint: sources in order, resumed, verified before the file gets its name."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from diffstyle.errors import UsageError, WorkError
from diffstyle.zoo.entries import PRETRAINED, Entry, Source, complaint, record

log = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a byte
TRIES = 4  # in a row that bring less than STRIDE, before a source is given up
STRIDE = 1 << 20  # bytes
PAUSE = 1.0  # seconds before the second try, doubled for each further one
BLOCK = 1 << 18
BUSY = {408, 429, 500, 502, 503, 504}  # answers worth another try
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SourceError(Exception):
    """This source does not deliver; the next one may."""


class CutError(Exception):
    """The connection ended early; what has arrived is kept, so try again."""


def fetch(entry: Entry, folder: Path = PRETRAINED, origin: str | None = None) -> Path:
    """The verified file of ``entry`` in ``folder``, downloaded unless it is there. Raises WorkError with what to do.

    ``origin``, a local file or a URL, replaces the sources of the zoo; it must be one of the entry's files where their
    hashes are known. Processes that want the same model wait for one another.
    """
    make_folder(folder)
    with lock(folder / f".{entry.name}.lock", entry.name):
        source = entry.present(folder)
        if source and origin is None:
            path = folder / source.file
            problem = complaint(path, source)
            if not problem:
                return path
            log.warning("%s: %s; kept as %s.old, getting it again", path, problem, path.name)
            os.replace(path, path.with_name(path.name + ".old"))
        failures = []
        for source in entry.sources if origin is None else [from_origin(entry, origin)]:
            try:
                return fetch_from(source, folder)
            except SourceError as error:
                failures.append(f"{urlsplit(source.url).hostname or source.url}: {error}")
                log.warning("%s: %s", source.url, error)
    raise WorkError(by_hand(entry, folder, failures))


def from_origin(entry: Entry, origin: str) -> Source:
    """``--from``: the entry's file from elsewhere, under the name it ends in if the entry knows that."""
    name = urlsplit(origin).path.rpartition("/")[2] if is_remote(origin) else Path(origin).name
    same = next((source for source in entry.sources if source.file == name), entry.sources[0])
    return Source(origin, same.file, same.size, same.sha256, same.md5)


def by_hand(entry: Entry, folder: Path, failures: list[str]) -> str:
    """One line: what happened, which page to open, under which name to save what, how to hand in a copy."""
    first = entry.sources[0]
    why = "; ".join(dict.fromkeys(failures))
    return (
        f"{entry.name}: no source delivered {first.file} ({why}). By hand: open {first.page}, save the file as "
        f"{folder / first.file} ({first.expected}); for a copy: scripts/download.py {entry.name} --from FILE_OR_URL"
    )


def fetch_from(source: Source, folder: Path) -> Path:
    """Get one source into a partial file of its own, verify it, give it its name."""
    target = folder / source.file
    part = target.with_name(f"{target.name}.{hashlib.sha256(source.url.encode()).hexdigest()[:8]}.part")
    resumed = part.exists()
    log.info("%s: getting it from %s", target.name, source.url)
    get(source, part)
    problem = complaint(part, source, target)
    if problem and resumed:  # the old half may have been the wrong one
        log.warning("%s: %s; once more from the start", target.name, problem)
        forget(part)
        get(source, part)
        problem = complaint(part, source, target)
    if problem:
        forget(part)
        raise SourceError(problem)
    os.replace(part, target)
    forget(part)
    record(target)
    log.info("%s: verified (%s)", target, source.expected)
    return target


def get(source: Source, part: Path) -> None:
    if source.url.startswith("gdrive:"):
        get_drive(source, part)
    elif is_remote(source.url):
        get_http(source.url, part, source.size)
    else:
        get_local(source.url, part)


def forget(part: Path) -> None:
    for path in (part, etag_file(part)):
        path.unlink(missing_ok=True)


# ---- the kinds of sources ----------------------------------------------------------------------------------------


def is_remote(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def get_local(url: str, part: Path) -> None:
    """Copy a file given as a path or a file:// URL."""
    path = Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else Path(url).expanduser()
    try:
        size, file = path.stat().st_size, path.open("rb")
    except OSError as error:
        raise SourceError(f"not readable: {error.strerror}") from error
    with file, part_file(part, append=False) as out:
        need_space(part.parent, size)
        while block := file.read(BLOCK):
            write(out, block)


def get_drive(source: Source, part: Path) -> None:
    """A Google Drive file: by gdown where it is installed, else by the address that Drive's own page leads to."""
    file_id = source.url.removeprefix("gdrive:")
    try:
        import gdown
    except ImportError:
        log.info("without the package gdown: asking Google Drive directly")
    else:
        try:
            if gdown.download(id=file_id, output=str(part), resume=True) and part.is_file():
                return
        except Exception as error:  # gdown's own exceptions, and those of the packages below it
            if getattr(error, "errno", None) in NO_SPACE:
                raise disk_error(part.parent) from error
            log.warning("gdown: %s", " ".join(str(error).split())[:200])
    get_http(f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t", part, source.size)


class SafeRedirect(urllib.request.HTTPRedirectHandler):
    """Follow redirects only to where a download may come from."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str) -> None:
    """Encrypted, or this machine; and not the hub's when HF_HUB_OFFLINE forbids it."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise SourceError(f"refused: {url} is not https")
    host = parts.hostname or ""
    if host.endswith("huggingface.co") and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise SourceError("not asked because HF_HUB_OFFLINE is set")


def is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def get_http(url: str, part: Path, size: int | None) -> None:
    """Download ``url`` into ``part``, going on where it ends; a cut connection is taken up again."""
    check_url(url)
    # urllib reads HTTPS_PROXY itself; what is on this machine needs no proxy.
    proxies = [urllib.request.ProxyHandler({})] if is_loopback(urlsplit(url).hostname) else []
    opener = urllib.request.build_opener(SafeRedirect, *proxies)
    failed, goal = 0, STRIDE
    while True:
        have = part.stat().st_size if part.exists() else 0
        try:
            with opener.open(request(url, part, have), timeout=TIMEOUT) as response:
                receive(response, part, have, size)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # nothing behind what we have
                if have == size:
                    return
                forget(part)
            elif error.code not in BUSY:
                raise SourceError(f"answers {error.code} {error.reason}") from error
            reason = f"answers {error.code} {error.reason}"
        except urllib.error.URLError as error:  # no such host, refused, no certificate
            raise SourceError(f"not reachable: {error.reason}") from error
        except (CutError, HTTPException, OSError) as error:
            reason = str(error) or type(error).__name__
        now = part.stat().st_size if part.exists() else 0
        if now >= goal:
            failed, goal = 0, now + STRIDE
        failed += 1
        if failed >= TRIES:
            raise SourceError(reason)
        log.info("%s: %s; going on at byte %d", part.name, reason, now)
        time.sleep(PAUSE * 2 ** (failed - 1))


def request(url: str, part: Path, have: int) -> urllib.request.Request:
    headers = {"User-Agent": "diffstyle", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        with suppress(OSError):
            headers["If-Range"] = etag_file(part).read_text(encoding="utf-8")  # a changed file starts anew
    return urllib.request.Request(url, headers=headers)


def etag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def receive(response: HTTPResponse, part: Path, have: int, size: int | None) -> None:
    """Write one answer's body behind the first ``have`` bytes of ``part``. Raises SourceError, CutError, WorkError."""
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise SourceError(web_page(response.read(1 << 16)))
    length = response.headers.get("Content-Length", "")
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status == 206 and span and int(span[1]) == have:
        total: int | None = int(span[2])
    elif response.status == 206:
        forget(part)
        raise CutError("answered with another range than asked")
    else:
        have, total = 0, int(length) if length.isdigit() else None
    if size and total not in (None, size):
        raise SourceError(f"offers {total} bytes instead of {size}")
    need_space(part.parent, (total or size or 0) - have)
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        etag_file(part).write_text(etag, encoding="utf-8")
    elif not have:
        etag_file(part).unlink(missing_ok=True)

    got = have
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.name.rsplit(".", 2)[0], disable=None)
    with part_file(part, append=have > 0) as out, bar:
        while block := response.read1(BLOCK):
            write(out, block)
            got += len(block)
            bar.update(len(block))
    if total is not None and got < total:
        raise CutError(f"cut after {got} of {total} bytes")


def web_page(body: bytes) -> str:
    """What a page that came instead of the file says."""
    text = body.decode("utf-8", "replace")
    if re.search(r"quota|too many users", text, re.IGNORECASE):
        return "Google Drive's quota page: too many downloads of this file, it opens again within 24 hours"
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    return f"a web page instead of the file{f' ({title[1].strip()[:60]})' if title else ''}"


# ---- files -------------------------------------------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}; choose another folder with --dir") from error


def part_file(part: Path, append: bool) -> IO[bytes]:
    try:
        return part.open("ab" if append else "wb")
    except OSError as error:
        raise WorkError(f"{part}: cannot be written: {error.strerror}; choose another folder with --dir") from error


def write(out: IO[bytes], block: bytes) -> None:
    """Write through to the file, so that a full disk is noticed here."""
    try:
        out.write(block)
        out.flush()
    except OSError as error:
        if error.errno in NO_SPACE:
            raise disk_error(Path(out.name).parent) from error
        raise WorkError(f"{out.name}: cannot be written: {error.strerror}") from error


def need_space(folder: Path, size: int) -> None:
    if size > shutil.disk_usage(folder).free:
        raise disk_error(folder, size)


def disk_error(folder: Path, size: int | None = None) -> WorkError:
    needed = f"{size / 1e6:.0f} MB more are needed, " if size else ""
    free = f"{shutil.disk_usage(folder).free / 1e6:.0f} MB are free"
    return WorkError(f"{folder}: disk full: {needed}{free}; make room or choose another folder with --dir, then repeat")


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
