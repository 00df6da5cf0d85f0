"""Read a checkpoint file safely, whatever its format, into one plain state dict with our names.

Nothing in a file is trusted: a pickle is walked before torch reads it, no code in it runs, and sizes are compared with the
file's before allocation.
"""

from __future__ import annotations

import logging
import re
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffstyle.errors import WorkError, one_line
from diffstyle.files import check_regular
from diffstyle.models.convert import from_diffusers, is_diffusers
from diffstyle.zoo import pickles

log = logging.getLogger(__name__)

LARGEST_HEADER = 16 << 20  # bytes; safetensors names a thousand tensors in 0.15 MB
# Where training scripts put the weights inside a checkpoint; averaged ones first: they are what is sampled with.
NESTED = ("ema", "ema_model", "model_ema", "params_ema", "ema_state_dict", "state_dict", "model_state_dict", "model",
          "params", "unet")  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.", "model.", "unet.")  # prefixes left by DataParallel, torch.compile and wrappers


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights in ``path`` (a file) under our names, on the CPU, possibly mapped from the file. Raises WorkError."""
    kind = sniff(path)
    try:
        content = read_safetensors(path) if kind == "safetensors" else read_pickle(path, zipped=kind == "zip")
    except WorkError:
        raise
    except pickles.Refused as error:
        raise WorkError(f"{path}: refused: {error}") from error
    except Exception as error:  # a damaged file can make the readers fail in any way
        raise WorkError(f"{path}: truncated or damaged, or not a checkpoint ({reason(error)}); get it again") from error
    state = unwrap(find_state(path, content))
    check_tensors(path, state)
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
    size = check_regular(path)
    if not size:  # so do the files of /proc look; reading them may never end
        raise WorkError(f"{path}: not a checkpoint (empty); get it again")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise WorkError(f"{path}: not readable: {error.strerror}") from error
    if start.startswith(b"PK\x03\x04"):
        check_zip(path, size)
        return "zip"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and not is_tar(start):
        return "pickle"
    if len(start) > 8 and start[8:9] == b"{":
        (header,) = struct.unpack("<Q", start[:8])
        if header > min(size - 8, LARGEST_HEADER):
            raise WorkError(f"{path}: truncated or damaged: its header claims {header} bytes, the file has {size}")
        return "safetensors"
    if re.match(rb"\s*(<!doctype|<html|<\?xml|<head|<script)", start, re.IGNORECASE):
        raise WorkError(f"{path}: a web page, not weights: the download was answered with HTML; get the file again")
    raise WorkError(f"{path}: not a checkpoint (neither torch nor safetensors); get it again")


def is_tar(start: bytes) -> bool:
    """Whether a file begins like a tar archive, which torch would read in its oldest way, whatever its name begins with."""
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def check_zip(path: Path, size: int) -> None:
    """torch stores its entries uncompressed, so together they are smaller than the file; anything else is a bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # a damaged directory can make zipfile fail in any way
        raise WorkError(f"{path}: truncated or damaged ({error}); get it again") from error
    total = sum(entry.file_size for entry in entries)
    if total > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise WorkError(f"{path}: refused: its {size} bytes would unpack to {total}, which no torch checkpoint does")


# ---- reading -----------------------------------------------------------------------------------------------------


def read_pickle(path: Path, zipped: bool) -> Any:
    """torch.load, weights only, after a dry run; zipped files are mapped instead of read."""
    (pickles.check_zip if zipped else pickles.check_legacy)(path, path.stat().st_size)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise WorkError(f"{path}: reading it needs the package safetensors: pip install safetensors") from None
    return load_file(path)


def reason(error: Exception) -> str:
    """A reader's failure in short; torch's own advice, to load the file unsafely, is not passed on."""
    text = one_line(error)
    return type(error).__name__ + ("" if "weights_only" in text or "Weights only" in text else f": {text[:100]}")


def check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Plain real numbers on the CPU, together no more than the file has bytes. Raises WorkError."""
    for key, value in state.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not plain or value.is_complex():
            raise WorkError(f"{path}: {key[:80]} is no plain tensor of real numbers ({value.dtype}, {value.layout})")
    total, size = sum(value.numel() for value in state.values()), path.stat().st_size
    if total > size:
        raise WorkError(f"{path}: refused: its tensors would unpack to {total} numbers from {size} bytes")


def plain_weights(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in fp32, contiguous, no longer mapped from the file. Raises WorkError where numbers are not finite or not real."""
    result = {}
    for key, value in state.items():
        if not value.dtype.is_floating_point:
            raise WorkError(f"{path}: {key[:80]} is {str(value.dtype).removeprefix('torch.')} in the file, not floating point")
        weight = value.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if not weight.isfinite().all():
            raise WorkError(f"{path}: {key[:80]} holds values that are not finite: the file is damaged; get it again")
        result[key] = weight
    return result


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
    keys = ", ".join(str(key)[:40] for key in list(content)[:5]) if isinstance(content, Mapping) else type(content).__name__
    raise WorkError(f"{path}: no weights found in it (it holds: {keys or 'nothing'})")


def unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that all keys share because of a wrapper."""
    for prefix in WRAPPERS * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
