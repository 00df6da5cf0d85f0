"""Read a checkpoint file safely, whatever its format, into one plain state dict with our names.

Nothing in a file is trusted: no code in a pickle runs, and sizes are compared with the file's before allocation.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from diffstyle.errors import WorkError
from diffstyle.models.convert import from_diffusers, is_diffusers

log = logging.getLogger(__name__)

DIFFUSERS_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# Where training scripts put the weights inside a checkpoint; averaged ones first: they are what is sampled with.
NESTED = ("ema", "ema_model", "model_ema", "params_ema", "ema_state_dict", "state_dict", "model_state_dict", "model",
          "params", "unet")  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.", "model.", "unet.")  # prefixes left by DataParallel, torch.compile and wrappers


def weights_file(path: Path) -> Path:
    """The file with the weights: ``path`` itself, or the one in a diffusers folder (its root or unet/)."""
    if not path.is_dir():
        return path
    for folder in (path, path / "unet"):
        for name in DIFFUSERS_WEIGHTS:
            if (folder / name).is_file():
                return folder / name
    raise WorkError(f"{path}: a folder without {' or '.join(DIFFUSERS_WEIGHTS)}; name the checkpoint file itself")


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights in ``path`` (a file) under our names, on the CPU, possibly mapped from the file. Raises WorkError."""
    kind = sniff(path)
    try:
        content = read_safetensors(path) if kind == "safetensors" else read_pickle(path, zipped=kind == "zip")
    except WorkError:
        raise
    except Exception as error:  # a damaged file can make the readers fail in any way
        raise WorkError(f"{path}: {refusal(error)}") from error
    state = unwrap(find_state(path, content))
    if is_diffusers(state):
        try:
            state = from_diffusers(state)
        except ValueError as error:
            raise WorkError(f"{path}: a diffusers checkpoint that is not a DDPM UNet2DModel: {error}") from None
    if "label_emb.weight" in state:
        log.info("%s: label_emb.weight dropped, the network is used without classes", path.name)
        del state["label_emb.weight"]
    return state


# ---- what kind of file -------------------------------------------------------------------------------------------


def sniff(path: Path) -> str:
    """ "zip" (torch since 1.6), "pickle" (torch before) or "safetensors", by content. Raises WorkError otherwise."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise WorkError(f"{path}: not readable: {error.strerror}") from error
    if start.startswith(b"PK\x03\x04"):
        check_zip(path, size)
        return "zip"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return "pickle"
    if len(start) > 8 and start[8:9] == b"{":
        (header,) = struct.unpack("<Q", start[:8])
        if header > size - 8:
            raise WorkError(f"{path}: truncated or damaged: its header claims {header} bytes, the file has {size}")
        return "safetensors"
    if re.match(rb"\s*(<!doctype|<html|<\?xml|<head|<script)", start, re.IGNORECASE):
        raise WorkError(f"{path}: a web page, not weights: the download was answered with HTML; get the file again")
    raise WorkError(f"{path}: not a checkpoint ({'neither torch nor safetensors' if size else 'empty'}); get it again")


def check_zip(path: Path, size: int) -> None:
    """torch stores its entries uncompressed, so together they are smaller than the file; anything else is a bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise WorkError(f"{path}: truncated or damaged ({error}); get it again") from error
    total = sum(entry.file_size for entry in entries)
    if total > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise WorkError(f"{path}: refused: its {size} bytes would unpack to {total}, which no torch checkpoint does")


class Anything:
    """Stands for whatever a pickle names, and takes what is done to it."""

    def __init__(self, *args: object) -> None: ...
    def __setitem__(self, key: object, value: object) -> None: ...
    def __setstate__(self, state: object) -> None: ...
    def append(self, item: object) -> None: ...
    def extend(self, items: object) -> None: ...


class SizeCheck(pickle._Unpickler):
    """A dry run over a pickle, importing nothing: refuses one that names a storage larger than the file.

    torch's reader would allocate it first. (Python's own unpickler, not the C one, which reads ahead in the file.)
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file)
        self.size = size

    def find_class(self, module: str, name: str) -> type[Anything]:
        return Anything

    def persistent_load(self, pid: Any) -> None:  # ("storage", type, key, location, number of elements, ...)
        if isinstance(pid, tuple) and len(pid) > 4 and not 0 <= pid[4] <= self.size:
            raise ValueError(f"a tensor of {pid[4]} elements in a file of {self.size} bytes")


# ---- reading -----------------------------------------------------------------------------------------------------


def read_pickle(path: Path, zipped: bool) -> Any:
    """torch.load, weights only; zipped files are mapped instead of read."""
    size = path.stat().st_size
    if zipped:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("/data.pkl"):
                    with archive.open(name) as file:
                        SizeCheck(file, size).load()
    else:
        with path.open("rb") as file:
            for _ in range(4):  # magic number, version, machine, object
                SizeCheck(file, size).load()
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise WorkError(f"{path}: reading it needs the package safetensors: pip install safetensors") from None
    return load_file(path)


def refusal(error: Exception) -> str:
    """One line for a reader's failure; a pickle with code is refused by the name of what it would call."""
    text = " ".join(str(error).split())
    code = re.search(r"(?:GLOBAL|global|class|function)[:\s]+([\w.]+\.[\w.]+)", text)
    if "Weights only load failed" in text and code:
        return f"refused: it is not plain weights but would run code ({code[1]})"
    if "Weights only load failed" in text and "nsupported" in text:
        return f"refused: it is not plain weights ({text[:120]})"
    return f"truncated or damaged, or not a checkpoint ({type(error).__name__}: {text[:100]}); get it again"


# ---- finding the state dict --------------------------------------------------------------------------------------


def is_state(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )  # fmt: skip


def find_state(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict itself, one in a dict of a training script, or DDIM's [model, optimiser, epoch, step, ema]."""
    candidates: list[tuple[str, Any]] = []
    if isinstance(content, (list, tuple)) and content:
        candidates = [("the averaged weights (last entry)", content[-1]), ("the first entry", content[0])]
    elif isinstance(content, Mapping) and not is_state(content):
        candidates = [(f"the entry {key!r}", content[key]) for key in NESTED if key in content]
    if is_state(content):
        return dict(content)
    for name, candidate in candidates:
        if is_state(candidate):
            log.info("%s: using %s", path.name, name)
            return dict(candidate)
    keys = ", ".join(str(key) for key in list(content)[:5]) if isinstance(content, Mapping) else type(content).__name__
    raise WorkError(f"{path}: no weights found in it (it holds: {keys or 'nothing'})")


def unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that all keys share because of a wrapper."""
    for prefix in WRAPPERS * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def read_diffusers_config(weights: Path) -> dict[str, Any] | None:
    """The config.json beside ``weights``, if there is one of a diffusers network."""
    path = weights.with_name("config.json")
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkError(f"{path}: not readable as JSON ({error})") from error
    return config if isinstance(config, dict) and "_class_name" in config else None
