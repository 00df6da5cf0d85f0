"""How bytes come from a mirror into a partial file: HTTPS, Google Drive, a local file. Nothing here knows whose file it is.

A partial file is resumed where it ends. A mirror that sends too much, too slowly or a web page is given up.
"""

from __future__ import annotations

import errno
import html
import ipaddress
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlencode, urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from diffstyle.errors import WorkError, one_line
from diffstyle.files import check_regular

TIMEOUT = 30.0  # seconds without a byte
TRIES = 4  # in a row that bring less than STRIDE, before a mirror is given up
STRIDE = 1 << 20  # bytes
PAUSE = 1.0  # seconds before the second try, doubled for each further one
BLOCK = 1 << 18
SLOWEST, PATIENCE = 1000, 60.0  # fewer bytes a second than this, for so many seconds, is a failure
LARGEST = 16 << 30  # bytes of a file whose size nobody knows
MARGIN = 512 << 20  # bytes that such a file leaves free on the disk
PAGE = 1 << 16  # bytes that are read of a web page
BUSY = {408, 429, 500, 502, 503, 504}  # answers worth another try
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class MirrorError(Exception):
    """This mirror does not deliver; the next one may."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))  # parts of it come from the server


class PageError(MirrorError):
    """A web page came instead of the file."""

    def __init__(self, page: str) -> None:
        super().__init__(describe_page(page))
        self.page = page


class MissingError(MirrorError):
    """The mirror answers 404: it has no such file."""


class CutError(Exception):
    """The connection ended early; what has arrived is kept, so try again."""


def get(url: str, part: Path, size: int | None = None) -> None:
    """Fill ``part`` from ``url`` (https://..., gdrive:ID, file://... or a path), at most ``size`` bytes where that is known.

    Raises MirrorError, or WorkError where no mirror would help (disk full).
    """
    if url.startswith("gdrive:"):
        get_drive(url.removeprefix("gdrive:"), part, size)
    elif is_remote(url):
        get_http(url, part, size)
    else:
        get_local(url, part, size)


def forget(part: Path) -> None:
    for path in (part, etag_file(part)):
        path.unlink(missing_ok=True)


# ---- the kinds of mirrors ----------------------------------------------------------------------------------------


def is_remote(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def get_local(url: str, part: Path, size: int | None) -> None:
    """Copy a file given as a path or a file:// URL."""
    path = Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else Path(url).expanduser()
    try:
        found = check_regular(path)
        file = path.open("rb")
    except WorkError as error:
        raise MirrorError(str(error).removeprefix(f"{path}: ")) from error
    except OSError as error:
        raise MirrorError(f"not readable: {error.strerror}") from error
    with file:
        if found == 0 or (size and found != size):  # no size: also a file of /proc, whose end may never come
            raise MirrorError(f"{found} bytes instead of {size}" if size else "empty")
        need_space(part.parent, found)
        with part_file(part, append=False) as out:
            for block in blocks(file.read, found):
                write(out, block)


def get_drive(file_id: str, part: Path, size: int | None) -> None:
    """A Google Drive file. Large ones are behind a page that asks whether to go on unscanned; its form has the answer."""
    address = "https://drive.usercontent.google.com/download"
    try:
        get_http(f"{address}?{urlencode({'id': file_id, 'export': 'download', 'confirm': 't'})}", part, size)
    except PageError as answer:
        form = re.search(r'<form[^>]*\bid="download-form"[^>]*>.*?</form>', answer.page, re.DOTALL | re.IGNORECASE)
        fields = dict(re.findall(r'<input[^>]*\bname="([^"]*)"[^>]*\bvalue="([^"]*)"', form[0] if form else ""))
        if not fields:
            raise
        get_http(f"{address}?{urlencode({key: html.unescape(value) for key, value in fields.items()})}", part, size)


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
        raise MirrorError(f"refused: {url} is not https")
    host = parts.hostname or ""
    if host.endswith("huggingface.co") and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise MirrorError("not asked because HF_HUB_OFFLINE is set")


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
            reason = f"answers {error.code} {error.reason}"
            if error.code == 416 and have:  # nothing behind what we have
                if have == size:
                    return
                forget(part)
            elif error.code == 404:
                raise MissingError(reason) from error
            elif error.code not in BUSY:
                raise MirrorError(reason) from error
        except urllib.error.URLError as error:  # no such host, refused, no certificate
            raise MirrorError(f"not reachable: {error.reason}") from error
        except (CutError, HTTPException, OSError) as error:
            reason = str(error) or type(error).__name__
        now = part.stat().st_size if part.exists() else 0
        if now >= goal:
            failed, goal = 0, now + STRIDE
        failed += 1
        if failed >= TRIES:
            raise MirrorError(reason)
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
    """Write one answer's body behind the first ``have`` bytes of ``part``. Raises MirrorError, CutError, WorkError."""
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise PageError(b"".join(blocks(response.read1, PAGE))[:PAGE].decode("utf-8", "replace"))
    have, total = promised(response, part, have)
    if total is not None and total > (size or LARGEST):
        raise MirrorError(f"offers {total} bytes, more than the {size or LARGEST} that it may have")
    if size and total is not None and total < size:
        raise MirrorError(f"offers {total} bytes instead of {size}")
    total = total if total is not None else size
    room = need_space(part.parent, MARGIN if total is None else total - have)
    limit = min(LARGEST, have + room - MARGIN) if total is None else total
    keep_etag(response, part, have)

    got = have
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.name.rsplit(".", 2)[0], disable=None)
    with part_file(part, append=have > 0) as out, bar:
        for block in blocks(response.read1, limit - have):
            got += len(block)
            if got > limit:
                break
            write(out, block)
            bar.update(len(block))
    if got > limit:
        forget(part)
        if total is None and limit < LARGEST:
            raise disk_error(part.parent)
        raise MirrorError(f"sends more than {limit} bytes")
    if total is not None and got < total:
        raise CutError(f"cut after {got} of {total} bytes")


def promised(response: HTTPResponse, part: Path, have: int) -> tuple[int, int | None]:
    """Behind how many of our bytes the answer's body goes, and of how many bytes the file is to be."""
    length = response.headers.get("Content-Length", "")
    span = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", response.headers.get("Content-Range", ""))
    if response.status == 206 and span and int(span[1]) == have:
        return have, int(span[2])
    if response.status == 206:
        forget(part)
        raise CutError("answered with another range than asked")
    return 0, int(length) if re.fullmatch(r"\d{1,18}", length) else None


def keep_etag(response: HTTPResponse, part: Path, have: int) -> None:
    """Remember which version of the file this is, so that a later half is not put behind another version's first."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        etag_file(part).write_text(etag, encoding="utf-8")
    elif not have:
        etag_file(part).unlink(missing_ok=True)


def blocks(read: Callable[[int], bytes], limit: int) -> Iterator[bytes]:
    """What ``read`` gives, at most ``limit`` + 1 bytes, so that a surplus is seen. MirrorError when it only drips."""
    since, before, got = time.monotonic(), 0, 0
    while block := read(min(BLOCK, limit + 1 - got)):
        got += len(block)
        yield block
        if got > limit:
            return
        now = time.monotonic()
        if now - since >= PATIENCE:
            if got - before < SLOWEST * (now - since):
                raise MirrorError(f"drips: {got - before} bytes in {now - since:.0f} seconds")
            since, before = now, got


def describe_page(text: str) -> str:
    """What a page that came instead of the file says."""
    if re.search(r"quota|too many users", text, re.IGNORECASE):
        return "Google Drive's quota page: too many downloads of this file, it opens again within 24 hours"
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    return f"a web page instead of the file{f' ({html.unescape(title[1]).strip()[:60]})' if title else ''}"


# ---- files -------------------------------------------------------------------------------------------------------


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


def need_space(folder: Path, size: int) -> int:
    """The free bytes of the disk, which must be ``size`` at least. Raises WorkError."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise disk_error(folder, size)
    return free


def disk_error(folder: Path, size: int | None = None) -> WorkError:
    needed = f"{size / 1e6:.0f} MB more are needed, " if size else ""
    free = f"{shutil.disk_usage(folder).free / 1e6:.0f} MB are free"
    return WorkError(f"{folder}: disk full: {needed}{free}; make room or choose another folder with --dir, then repeat")
