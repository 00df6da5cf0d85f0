"""Downloads against a server of our own: whatever happens, the file is right or absent, never half."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import download as script
import pytest
import torch

from diffstyle.errors import UsageError, WorkError
from diffstyle.files import file_hash
from diffstyle.zoo import entries as zoo
from diffstyle.zoo import transports
from diffstyle.zoo.config import CONFIG_DIR, load_config
from diffstyle.zoo.download import fetch
from diffstyle.zoo.entries import Entry, Mirror, load_zoo
from diffstyle.zoo.integrity import record, sidecar, status

REPOSITORY = Path(__file__).resolve().parents[2]


def checkpoint(seed: int = 0) -> bytes:
    """A small file in torch's format."""
    buffer = io.BytesIO()
    torch.save({"w": torch.rand(100_000, generator=torch.Generator().manual_seed(seed))}, buffer)
    return buffer.getvalue()


PAYLOAD = checkpoint()
QUOTA = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>Too many users have viewed or downloaded"
PAGES = {
    "quota": QUOTA,
    "signin": b"<html><title>Sign in</title></html>",
    "rude": b"<html><title>\x1b[2J\n</title></html>",
}


class Server(ThreadingHTTPServer):
    """Serves PAYLOAD; the path's first word says how it misbehaves. ``seen`` lists (path, Range header)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str | None]] = []
        self.tries: dict[str, int] = {}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None: ...

    def do_CONNECT(self) -> None:
        self.server.seen.append((f"CONNECT {self.path}", None))
        self.send_error(403)

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Range")))
        word, _, argument = self.path.strip("/").partition("-")
        number = self.server.tries[self.path] = self.server.tries.get(self.path, 0) + 1
        first = number == 1
        if word.isdigit():
            self.send_error(int(word))
        elif word == "busy" and first:
            self.send_error(503)
        elif word == "page":
            self.answer(PAGES[argument], "text/html")
        elif word == "endless":
            self.send_response(200)
            if argument == "lying":
                self.send_header("Content-Length", "9000000000")
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(PAYLOAD)
        elif word == "drip":
            self.answer(PAYLOAD, chunk=1, pause=0.05)
        elif word == "drippage":
            self.answer(QUOTA, "text/html", chunk=1, pause=0.05)
        elif word == "rude":
            self.send_error(418, "go away \x1b[2J")
        elif word == "lyingpage":
            self.answer(QUOTA, "application/octet-stream")
        elif word == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://example.com/x" if argument == "plain" else "/ok")
            self.end_headers()
        elif word == "wrong":
            self.answer(checkpoint(1))
        elif word == "noranges":
            self.answer(PAYLOAD)
        elif word == "changed":
            self.answer(checkpoint(1) if first else PAYLOAD, etag=f'"{number}"', limit=200_000 if first else None)
        elif word == "cut":
            self.answer(PAYLOAD, etag='"same"', limit=int(argument) if first else None)
        elif word == "always":  # cut after 64 KiB, every time
            self.answer(PAYLOAD, limit=1 << 16)
        elif word == "never":  # promises a body, sends none of it
            self.answer(PAYLOAD, limit=0)
        elif word == "stall":
            self.answer(PAYLOAD, limit=1000, then=lambda: time.sleep(2))
        elif word == "slow":
            self.answer(PAYLOAD, chunk=1 << 14, pause=float(argument))
        else:
            self.answer(PAYLOAD, etag='"same"')

    def answer(
        self, body: bytes, kind: str = "application/octet-stream", etag: str = "", limit: int | None = None,
        chunk: int = 1 << 20, pause: float = 0.0, then: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """``body``, or its requested range; only ``limit`` bytes of it, in pieces with pauses."""
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        start = 0 if self.path.startswith("/noranges") else int(asked)
        if etag and self.headers.get("If-Range", etag) != etag:
            start = 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        end = len(body) if limit is None else min(len(body), start + limit)
        try:
            for i in range(start, end, chunk):
                self.wfile.write(body[i : min(i + chunk, end)])
                time.sleep(pause)
            then()
        except OSError:
            pass  # the client is gone
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def here_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test leaves this machine or waits long."""
    resolve = socket.getaddrinfo

    def local(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(-2, "Name or service not known")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    monkeypatch.setattr(transports, "PAUSE", 0.01)
    monkeypatch.setattr(transports, "TIMEOUT", 5.0)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def entry(*urls: str, **facts: Any) -> Entry:
    """A zoo entry for m.pt; with the right size and hash unless ``facts`` say otherwise."""
    facts = {"size": len(PAYLOAD), "sha256": SHA256, **facts}
    return Entry("m", "M", "m.yml", ("M",), "f", "l", tuple(Mirror(url, "m.pt", **facts) for url in urls))


def sha256_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


SHA256 = sha256_of(PAYLOAD)
UNKNOWN = {"size": None, "sha256": None}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".m.lock"}


def assert_complete(folder: Path) -> None:
    """The right file, its hash beside it, nothing else."""
    assert names(folder) == {"m.pt", "m.pt.sha256"}
    assert (folder / "m.pt").read_bytes() == PAYLOAD
    assert sidecar(folder / "m.pt").read_text() == f"{SHA256}  m.pt\n"


def failure(entry: Entry, folder: Path, origin: str | None = None) -> str:
    """The one line with which fetching fails; the file must be absent."""
    with pytest.raises(WorkError) as error:
        fetch(entry, folder, origin)
    assert "\n" not in str(error.value)
    assert not (folder / "m.pt").exists()
    return str(error.value)


# ---- one mirror --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["ok", "noranges", "redirect-here", "busy", "slow-0.01"])
@pytest.mark.parametrize("facts", [{}, UNKNOWN])
def test_complete(path: str, facts: dict[str, Any], server: Server, tmp_path: Path) -> None:
    assert fetch(entry(server.url(path), **facts), tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "m.pt"
    assert_complete(tmp_path / "new" / "folder")
    requests = len(server.seen)
    fetch(entry(server.url(path), **facts), tmp_path / "new" / "folder")
    assert len(server.seen) == requests  # what is there is not fetched again


@pytest.mark.parametrize("seed", range(5))
def test_resumes_after_a_cut_at_a_random_byte(seed: int, server: Server, tmp_path: Path) -> None:
    at = random.Random(seed).randrange(1, len(PAYLOAD))
    fetch(entry(server.url(f"cut-{at}")), tmp_path)
    assert_complete(tmp_path)
    assert [asked for _, asked in server.seen] == [None, f"bytes={at}-"]


def test_resumes_what_an_earlier_run_left(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "TRIES", 1)
    here = entry(server.url("stall"))
    monkeypatch.setattr(transports, "TIMEOUT", 0.2)
    failure(here, tmp_path)
    (part,) = tmp_path.glob("*.part")
    assert part.read_bytes() == PAYLOAD[: part.stat().st_size]
    part.write_bytes(PAYLOAD[:12345])
    server.seen.clear()
    answer = Handler.answer
    monkeypatch.setattr(Handler, "answer", lambda self, body, **_: answer(self, body))
    fetch(here, tmp_path)
    assert server.seen == [("/stall", "bytes=12345-")]
    assert_complete(tmp_path)


def test_goes_on_as_long_as_enough_comes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "STRIDE", 1 << 16)
    fetch(entry(server.url("always")), tmp_path)  # 7 pieces, more than TRIES
    assert len(server.seen) > transports.TRIES
    assert_complete(tmp_path)


def test_gives_up_when_none_come(server: Server, tmp_path: Path) -> None:
    assert "cut after 0 of" in failure(entry(server.url("never")), tmp_path)
    assert len(server.seen) == transports.TRIES


def test_a_wrong_old_half_is_thrown_away(server: Server, tmp_path: Path) -> None:
    here = entry(server.url("ok"))
    (tmp_path / f"m.pt.{sha256_of(here.mirrors[0].url.encode())[:8]}.part").write_bytes(b"x" * 1000)
    fetch(here, tmp_path)
    assert [asked for _, asked in server.seen] == ["bytes=1000-", None]
    assert_complete(tmp_path)


@pytest.mark.parametrize("length", [len(PAYLOAD), len(PAYLOAD) + 7])
def test_an_old_part_that_is_whole_or_too_long(length: int, server: Server, tmp_path: Path) -> None:
    here = entry(server.url("ok"))
    part = tmp_path / f"m.pt.{sha256_of(here.mirrors[0].url.encode())[:8]}.part"
    part.write_bytes((PAYLOAD + b"surplus")[:length])
    fetch(here, tmp_path)
    assert_complete(tmp_path)


def test_a_file_that_changes_on_the_server_starts_anew(server: Server, tmp_path: Path) -> None:
    fetch(entry(server.url("changed"), **UNKNOWN), tmp_path)
    assert_complete(tmp_path)


# ---- next mirror -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("403", "answers 403"),
        ("404", "answers 404"),
        ("page-signin", "a web page instead of the file (Sign in)"),
        ("page-quota", "quota page"),
        ("lyingpage", "offers"),
        ("wrong", "sha256"),
        ("redirect-plain", "is not https"),
        ("503", "answers 503"),
        ("stall", "timed out"),
    ],
)
def test_the_next_mirror_is_tried(
    bad: str,
    reason: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(transports, "TIMEOUT", 0.3)
    monkeypatch.setattr(transports, "TRIES", 2)
    with caplog.at_level(logging.WARNING):
        fetch(entry(server.url(bad), server.url("ok")), tmp_path)
    assert reason in caplog.text
    assert (tmp_path / "m.pt").read_bytes() == PAYLOAD
    assert "m.pt.sha256" in names(tmp_path)


@pytest.mark.parametrize("bad", ["lyingpage", "page-quota"])
def test_a_page_is_noticed_without_any_known_hash(bad: str, server: Server, tmp_path: Path) -> None:
    assert "page" in failure(entry(server.url(bad), **UNKNOWN), tmp_path)
    assert names(tmp_path) == set()


def test_no_mirror_left(server: Server, tmp_path: Path) -> None:
    text = failure(entry(server.url("403"), server.url("wrong"), "https://nowhere.invalid/m.pt"), tmp_path)
    said = ("answers 403", "sha256", "not reachable", "By hand: open http", str(tmp_path / "m.pt"), SHA256, "--from")
    assert all(words in text for words in said)


def test_only_encrypted_or_local(tmp_path: Path) -> None:
    assert "is not https" in failure(entry("http://example.com/m.pt"), tmp_path)


def test_offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = failure(entry("https://huggingface.co/a/b/resolve/main/m.pt"), tmp_path)
    assert "HF_HUB_OFFLINE" in text
    assert "open https://huggingface.co/a/b," in text


def test_the_proxy_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.url("").rstrip("/"))
    failure(entry("https://nowhere.invalid/m.pt"), tmp_path)
    assert server.seen == [("CONNECT nowhere.invalid:443", None)]


# ---- Google Drive ------------------------------------------------------------------------------------------------


DRIVE = "https://drive.usercontent.google.com/download?id=ID&export=download&confirm=t"
WARNING = b"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body><form id="download-form"
action="https://drive.usercontent.google.com/download" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="ID"><input type="hidden" name="confirm" value="t&amp;x"></form></body></html>"""
PAGES["scan"] = WARNING


@pytest.fixture
def drive(server: Server, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """What Google Drive was asked, and the paths of our server that answer in its place, the last one for good."""
    get_http = transports.get_http
    asked: list[str] = []
    answers: list[str] = []

    def redirected(url: str, part: Path, size: int | None) -> None:
        asked.append(url)
        get_http(server.url(answers.pop(0) if len(answers) > 1 else answers[0]), part, size)

    monkeypatch.setattr(transports, "get_http", redirected)
    return asked, answers


def test_drive(drive: tuple[list[str], list[str]], tmp_path: Path) -> None:
    asked, answers = drive
    answers.append("ok")
    fetch(entry("gdrive:ID"), tmp_path)
    assert_complete(tmp_path)
    assert asked == [DRIVE]


def test_drive_asks_whether_to_go_on_unscanned(drive: tuple[list[str], list[str]], tmp_path: Path) -> None:
    asked, answers = drive
    answers.extend(["page-scan", "ok"])
    fetch(entry("gdrive:ID"), tmp_path)
    assert_complete(tmp_path)
    assert asked == [DRIVE, "https://drive.usercontent.google.com/download?id=ID&confirm=t%26x"]


@pytest.mark.parametrize("page", ["page-quota", "page-scan"])
def test_drive_gives_only_pages(page: str, drive: tuple[list[str], list[str]], tmp_path: Path) -> None:
    drive[1].append(page)
    text = failure(entry("gdrive:ID"), tmp_path)
    assert ("Google Drive's quota page" if page == "page-quota" else "(Google Drive - Virus scan warning)") in text
    assert "open https://drive.google.com/file/d/ID/view" in text


# ---- mirrors that mean harm --------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test reaches quickly."""
    monkeypatch.setattr(transports, "LARGEST", 1_000_000)
    monkeypatch.setattr(transports, "MARGIN", 10_000_000)
    monkeypatch.setattr(transports, "BLOCK", 1 << 14)


@pytest.mark.parametrize("length", ["", "lying"])
@pytest.mark.parametrize(("facts", "limit"), [({}, len(PAYLOAD)), (UNKNOWN, 1_000_000)])
def test_an_endless_stream_stops_at_the_size(
    length: str, facts: dict[str, Any], limit: int, server: Server, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest, write = 0, transports.write

    def watched(out: Any, block: bytes) -> None:
        nonlocal largest
        write(out, block)
        largest = max(largest, out.tell())

    monkeypatch.setattr(transports, "write", watched)
    text = failure(entry(server.url(f"endless-{length}"), **facts), tmp_path)
    assert (f"sends more than {limit} bytes" if not length else "offers 9000000000 bytes, more than") in text
    assert largest <= limit
    assert names(tmp_path) == set()
    assert len(server.seen) == 1


def test_an_endless_stream_leaves_a_margin_on_the_disk(
    server: Server, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_300_000))
    assert "disk full" in failure(entry(server.url("endless-"), **UNKNOWN), tmp_path)
    assert names(tmp_path) == set()


def test_a_drip_is_given_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "PATIENCE", 0.3)
    began = time.monotonic()
    assert "drips: " in failure(entry(server.url("drip")), tmp_path)
    assert time.monotonic() - began < 5
    (part,) = tmp_path.glob("*.part")
    assert 0 < part.stat().st_size < 1000  # kept for another try
    assert "drips: " in failure(entry(server.url("drippage")), tmp_path)


def test_what_a_server_says_is_shown_on_one_line_without_control_characters(server: Server, tmp_path: Path) -> None:
    for path in ("rude", "page-rude"):
        text = failure(entry(server.url(path)), tmp_path)
        assert text.isprintable()
        assert "\\x1b[2J" in text


def test_no_published_hash_is_said(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fetch(entry(server.url("ok"), **UNKNOWN), tmp_path)
    assert "nobody publishes its hash: whether it is the right one is not verified" in caplog.text
    assert f"sha256 {SHA256}" in caplog.text
    assert ": verified" not in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_from_a_pipe_a_device_or_proc(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for origin, said in ((tmp_path / "pipe", "pipe or device"), (Path("/dev/zero"), "pipe or device"),
                         (Path("/proc/kmsg"), "empty"), (tmp_path, "folder")):  # fmt: skip
        if origin.exists():
            assert said in failure(entry("https://nowhere.invalid/m.pt", **UNKNOWN), tmp_path / "new", str(origin))


# ---- disk, processes ---------------------------------------------------------------------------------------------


def test_too_little_space_is_said_before_the_download(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert "disk full: 0 MB more are needed, 0 MB are free" in failure(entry(server.url("ok")), tmp_path)


def test_disk_full_while_writing(server: Server, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        text = failure(entry(server.url("ok")), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "disk full" in text
    fetch(entry(server.url("ok")), tmp_path)  # with room again, the rest comes
    assert server.seen[-1][1] == "bytes=150000-"
    assert_complete(tmp_path)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--dir"):
        fetch(entry("https://nowhere.invalid/m.pt"), tmp_path / "file")


def start(url: str, folder: Path) -> subprocess.Popen[str]:
    """A process of its own that fetches m.pt."""
    code = (
        "import sys; from pathlib import Path; from diffstyle.zoo.download import fetch; from diffstyle.zoo.entries import *;"
        "mirror = Mirror(sys.argv[1], 'm.pt', sha256=sys.argv[3]);"
        "fetch(Entry('m', 'M', 'm.yml', (), '', '', (mirror,)), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, url, str(folder), SHA256]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_at_once(server: Server, tmp_path: Path) -> None:
    other = start(server.url("slow-0.05"), tmp_path)
    wait_for(lambda: server.seen)
    fetch(entry(server.url("slow-0.05")), tmp_path)
    assert len(server.seen) == 1  # this process has waited for the other
    assert_complete(tmp_path)
    _, errors = other.communicate(timeout=60)
    assert other.returncode == 0, errors


def test_killed_in_the_middle(server: Server, tmp_path: Path) -> None:
    process = start(server.url("slow-0.2"), tmp_path)
    wait_for(lambda: any(part.stat().st_size > 20_000 for part in tmp_path.glob("*.part")))
    process.kill()
    process.communicate()
    assert not (tmp_path / "m.pt").exists()
    server.RequestHandlerClass = type("Fast", (Handler,), {"do_GET": lambda self: Handler.answer(self, PAYLOAD)})
    fetch(entry(server.url("slow-0.2")), tmp_path)  # the dead process's lock is gone
    assert_complete(tmp_path)


# ---- a copy handed in --------------------------------------------------------------------------------------------


def test_from_a_file_and_a_url(server: Server, tmp_path: Path) -> None:
    (tmp_path / "copy.pt").write_bytes(PAYLOAD)
    nowhere = entry("https://nowhere.invalid/m.pt")
    for i, origin in enumerate([str(tmp_path / "copy.pt"), (tmp_path / "copy.pt").as_uri(), server.url("ok")]):
        assert fetch(nowhere, tmp_path / str(i), origin) == tmp_path / str(i) / "m.pt"
        assert_complete(tmp_path / str(i))


def test_from_a_wrong_or_missing_file(tmp_path: Path) -> None:
    (tmp_path / "copy.pt").write_bytes(checkpoint(1))
    nowhere, folder = entry("https://nowhere.invalid/m.pt"), tmp_path / "folder"
    assert f"instead of {SHA256}" in failure(nowhere, folder, str(tmp_path / "copy.pt"))
    assert "No such file" in failure(nowhere, folder, str(tmp_path / "absent.pt"))
    (tmp_path / "copy.pt").write_bytes(PAYLOAD[:-9])
    assert "bytes instead of" in failure(nowhere, folder, str(tmp_path / "copy.pt"))
    assert "truncated" in failure(entry("https://nowhere.invalid/m.pt", **UNKNOWN), folder, str(tmp_path / "copy.pt"))
    assert names(folder) == set()


def test_from_takes_the_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(PAYLOAD)
    one = entry("https://a.invalid/m.pt", **UNKNOWN)
    two = dataclasses.replace(one, mirrors=(*one.mirrors, Mirror("https://a.invalid/o", "other.pt", sha256=SHA256)))
    assert fetch(two, tmp_path / "new", str(tmp_path / "other.pt")).name == "other.pt"


# ---- hashes that are not published -------------------------------------------------------------------------------


def test_the_first_hash_is_kept_and_checked(server: Server, tmp_path: Path) -> None:
    here = entry(server.url("ok"), **UNKNOWN)
    fetch(here, tmp_path)
    assert status(here, tmp_path) == "unchanged since its download, no published hash: m.pt"
    (tmp_path / "m.pt").unlink()
    assert "as first downloaded" in failure(entry(server.url("wrong"), **UNKNOWN), tmp_path)
    fetch(here, tmp_path)
    (tmp_path / "m.pt").write_bytes(checkpoint(1))
    assert "WRONG: m.pt: sha256" in status(here, tmp_path)
    fetch(here, tmp_path)  # gets it again, and destroys nothing
    assert (tmp_path / "m.pt").read_bytes() == PAYLOAD
    assert (tmp_path / "m.pt.old").read_bytes() == checkpoint(1)


def test_states(tmp_path: Path) -> None:
    unknown = entry("https://a.invalid/m.pt", **UNKNOWN)
    assert status(unknown, tmp_path) == "missing"
    (tmp_path / "m.pt").write_bytes(PAYLOAD)
    assert status(unknown, tmp_path) == "present, no published hash: m.pt"
    assert status(entry("https://a.invalid/m.pt"), tmp_path) == "verified: m.pt"
    assert "bytes instead of" in status(entry("https://a.invalid/m.pt", size=3), tmp_path)
    md5 = entry("https://a.invalid/m.pt", size=None, sha256=None, md5=file_hash(tmp_path / "m.pt", "md5"))
    assert status(md5, tmp_path) == "verified: m.pt"
    sidecar(tmp_path / "m.pt").write_bytes(b"")
    assert status(unknown, tmp_path).startswith("present")
    record(tmp_path / "m.pt")
    assert status(unknown, tmp_path) == "unchanged since its download, no published hash: m.pt"


# ---- the zoo and its command -------------------------------------------------------------------------------------

SEVEN = ["celeba", "church", "bedroom", "ffhq", "afhq", "metface", "imagenet"]


def test_the_zoo_is_consistent() -> None:
    entries = load_zoo()
    assert list(entries) == SEVEN
    for entry in entries.values():
        config = load_config(entry.config)
        assert (CONFIG_DIR / entry.config).is_file()
        assert {config.category, config.dataset} & set(entry.keys)
        assert entry.licence
        for mirror in entry.mirrors:
            assert mirror.url.startswith(("https://", "gdrive:"))
            assert mirror.page.startswith("https://")
            assert mirror.sha256 is None or len(mirror.sha256) == 64
            assert mirror.md5 is None or len(mirror.md5) == 32
    assert entries["celeba"].mirrors[0].sha256 == entries["celeba"].mirrors[1].sha256 is not None
    assert entries["celeba"].mirrors[2].sha256 is None  # another file
    assert entries["ffhq"].mirrors[0].size == 374_417_833


def test_a_zoo_that_reaches_outside_or_is_broken(tmp_path: Path) -> None:
    text = "m: {title: M, config: c, keys: [], format: f, licence: l, file: %s, mirrors: [{url: x}]}"
    for content in (text % "../evil.pt", text % "/tmp/evil.pt", "m: {title: M}", "[1, 2]", "a: [", ""):
        (tmp_path / "zoo.yml").write_text(content)
        with pytest.raises(WorkError, match="not a readable zoo"):
            load_zoo(tmp_path / "zoo.yml")


@pytest.mark.parametrize("name", SEVEN)
def test_the_command_for_every_model_up_to_the_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def boundary(self: Any, request: urllib.request.Request, timeout: float) -> None:
        asked.append(request.full_url)
        raise urllib.error.URLError("the network ends here")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", boundary)
    assert script.main([name, "--dir", str(tmp_path)]) == 1
    wanted = load_zoo()[name]
    assert len(asked) == len(wanted.mirrors)
    assert all(url.startswith("https://") for url in asked)
    output = capsys.readouterr().err
    assert f"By hand: open {wanted.mirrors[0].page}, save the file as {tmp_path / wanted.mirrors[0].file}" in output


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "afhq_dog_4m.pt").write_bytes(PAYLOAD)
    (tmp_path / "ffhq_10m.pt").write_bytes(PAYLOAD)
    (tmp_path / "bedroom.ckpt").write_bytes(PAYLOAD)
    record(tmp_path / "bedroom.ckpt")
    assert script.main(["--list", "--dir", str(tmp_path)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(rows)[1:] == SEVEN
    assert rows["celeba"].endswith("missing")
    assert rows["afhq"].endswith("present, no published hash: afhq_dog_4m.pt")
    assert rows["bedroom"].endswith("unchanged since its download, no published hash: bedroom.ckpt")
    assert "WRONG: ffhq_10m.pt" in rows["ffhq"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "copy.pt").write_bytes(PAYLOAD)
    folder = ["--dir", str(tmp_path / "new")]
    assert script.main(["afhq", "--from", str(tmp_path / "copy.pt"), *folder]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'afhq_dog_4m.pt'}\n"
    for command, code, said in (
        ([], 2, "name a model"),
        (["cats"], 2, "no model is called cats; there are celeba"),
        (["afhq", "ffhq", "--from", "x"], 2, "--from gives one file"),
        (["--all", *folder], 1, "imagenet: no mirror delivered"),
    ):
        assert script.main(command) == code
        assert said in capsys.readouterr().err

    def interrupt(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(script, "fetch", interrupt)
    assert script.main(["afhq"]) == 130
    monkeypatch.setattr(script, "load_zoo", lambda: zoo.load_zoo(tmp_path / "no.yml"))
    assert script.main(["--list"]) == 1
