"""Networks on the Hugging Face hub by name, hf:OWNER/NAME or hf:OWNER/NAME@REVISION: plain files by plain addresses.

They are kept in a folder like diffusers' own, so that a second run asks nobody.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from diffstyle.errors import UsageError, WorkError
from diffstyle.zoo.download import lock, make_folder
from diffstyle.zoo.folders import CONFIG, SCHEDULER, WEIGHTS
from diffstyle.zoo.integrity import record, sidecar
from diffstyle.zoo.places import root
from diffstyle.zoo.transports import MirrorError, MissingError, forget, get_http
from diffstyle.zoo.weights import sniff

log = logging.getLogger(__name__)

PREFIX = "hf:"
NAME = re.compile(r"hf:([\w][\w.-]{0,95})/([\w][\w.-]{0,95})(?:@([\w][\w.-]{0,95}))?", re.ASCII)
TEXT = 256 << 10  # bytes of a description


def is_hub(name: object) -> bool:
    return str(name).startswith(PREFIX)


def folder_of(name: str) -> Path:
    """Where the files of hf:OWNER/NAME lie here. Raises UsageError."""
    return root() / "hub" / "--".join(part for part in parts(name) if part)


def parts(name: str) -> tuple[str, str, str]:
    match = NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"{name}: write hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    return match[1], match[2], match[3] or ""


def fetch_hub(name: str, download: bool = True) -> Path:
    """The folder with the network's description and weights, fetched unless it is here. Raises UsageError, WorkError."""
    folder = folder_of(name)
    if any((folder / sub / file).is_file() for sub in ("", "unet") for file in WEIGHTS):
        return folder
    if not download:
        raise WorkError(f"{name} is not here ({folder}) and --no_download forbids to get it")
    make_folder(folder)
    with lock(folder / ".lock", name):
        try:
            sub = first_of(name, folder, [f"unet/{CONFIG}", CONFIG]).parent
            scheduler = [f"scheduler/{SCHEDULER}", SCHEDULER]
            try:
                first_of(name, folder, scheduler)
            except MissingError:
                log.info("%s: no %s there, taking a linear schedule and a network that predicts noise", name, SCHEDULER)
            return folder_with(first_of(name, folder, [(sub / file).as_posix() for file in WEIGHTS]), folder)
        except MirrorError as error:
            raise WorkError(f"{name}: {error}; {address(name, '')} shows what there is") from error


def folder_with(weights: Path, folder: Path) -> Path:
    """``folder``, after saying which weights it got."""
    log.info("%s: got; nobody publishes its hash, later changes will be noticed (%s)", folder / weights, sidecar(weights).name)
    return folder


def first_of(name: str, folder: Path, files: Iterable[str]) -> Path:
    """The first of ``files`` that the hub has, fetched into ``folder``; its path there. Raises MirrorError, WorkError."""
    missing = MissingError("nothing asked")
    for file in files:
        try:
            fetch_file(name, file, folder / file)
            return Path(file)
        except MissingError as error:
            missing = MissingError(f"{file}: {error}")
    raise missing


def fetch_file(name: str, file: str, target: Path) -> None:
    """One file, whole or not at all; weights are looked at and their hash is recorded."""
    if target.is_file():
        return
    make_folder(target.parent)
    part = target.with_name(target.name + ".part")
    text = target.suffix == ".json"
    get_http(address(name, file), part, None)
    try:
        if text and part.stat().st_size > TEXT:
            raise MirrorError(f"{file} has {part.stat().st_size} bytes, which no description has")
        if not text:
            sniff(part)
    except (MirrorError, WorkError) as error:
        forget(part)
        raise MirrorError(str(error)) from error
    os.replace(part, target)
    forget(part)
    if not text:
        record(target)


def address(name: str, file: str) -> str:
    """The address of a file in the repository, or of the repository itself."""
    owner, repository, revision = parts(name)
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{hub}/{owner}/{repository}" + (f"/resolve/{revision or 'main'}/{file}" if file else "")
