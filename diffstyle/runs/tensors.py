"""Tensors in a file: a JSON header and then the bytes, with a checksum over both, and no pickle.

The layout is that of safetensors (8 bytes with the header's length, little endian; per tensor its type, shape and place), so
other programs can read the files; the checksum is an entry of the header's metadata.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from diffstyle.files import LARGEST, check_regular

FORMAT = "diffstyle latents 2"
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64, "I64": torch.int64}
NAMES = {dtype: name for name, dtype in TYPES.items()}
HEADER_BYTES = 1 << 24  # no header of ours is larger
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """A tensor of a file."""

    dtype: torch.dtype
    shape: Shape
    start: int  # of its bytes, after the header
    end: int


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of at least one dimension, in order."""
    entries: dict[str, Any] = {}
    bodies = []
    at = 0
    for name, x in tensors.items():
        body = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        entries[name] = {"dtype": NAMES[x.dtype], "shape": list(x.shape), "data_offsets": [at, at + len(body)]}
        bodies.append(body)
        at += len(body)
    metadata = {"format": FORMAT, "crc32": checksum(entries, bodies)}
    header = json.dumps({"__metadata__": metadata, **entries}).encode()
    header += b" " * (-len(header) % 8)
    file.write(struct.pack("<Q", len(header)) + header)
    for body in bodies:
        file.write(body)


def checksum(entries: Mapping[str, Any], bodies: Iterable[memoryview]) -> str:
    """CRC-32 over what the header says of the tensors and over their bytes, in hexadecimal."""
    crc = zlib.crc32(json.dumps(entries).encode())
    for body in bodies:
        crc = zlib.crc32(body, crc)
    return f"{crc:08x}"


def read_entries(path: Path) -> dict[str, Entry]:
    """What a file of ours holds, judged by its header and its size alone. Raises ValueError, WorkError or OSError else."""
    size = check_regular(path)
    with path.open("rb") as file:
        header = file.read(header_length(file.read(8), size))
    return parse(header, size - 8 - len(header))[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of ours whose checksum is right. Raises ValueError, WorkError or OSError for any other."""
    size = check_regular(path)
    data = torch.empty(min(size, LARGEST), dtype=torch.uint8)
    buffer = data.numpy().data
    with path.open("rb") as file:
        if file.readinto(buffer) != size:  # type: ignore[attr-defined]  # a buffered reader has it
            raise ValueError("it is too large, or changed while it was read")
    start = 8 + header_length(bytes(buffer[:8]), size)
    entries, header = parse(bytes(buffer[8:start]), size - start)
    if header.pop("__metadata__").get("crc32") != checksum(header, [buffer[start:]]):
        raise ValueError("its checksum is wrong")
    bodies = {name: data[start + e.start : start + e.end] for name, e in entries.items()}
    # A view of wider numbers must begin at a multiple of their size.
    return {
        name: (bodies[name].clone() if e.start % e.dtype.itemsize else bodies[name]).view(e.dtype).view(e.shape)
        for name, e in entries.items()
    }


def header_length(start: bytes, size: int) -> int:
    """The header's length, from a file's first 8 bytes and its size."""
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length % 8 or not 0 < length <= min(size - 8, HEADER_BYTES):
        raise ValueError("it is cut, or none of ours")
    return length


def parse(text: bytes, room: int) -> tuple[dict[str, Entry], dict[str, Any]]:
    """The tensors that a header describes, which lie one after the other and fill ``room`` bytes; and the header."""
    try:
        header = json.loads(text)
        if header["__metadata__"]["format"] != FORMAT:
            raise ValueError("it is of another format")
        entries, at = {}, 0
        for name, said in header.items():
            if name != "__metadata__":
                entry = Entry(TYPES[said["dtype"]], tuple(said["shape"]), *said["data_offsets"])
                if not all(type(n) is int and n > 0 for n in (*entry.shape, entry.end)) or entry.start != at:
                    raise ValueError("its header is damaged")
                if entry.end - at != math.prod(entry.shape) * entry.dtype.itemsize:
                    raise ValueError("its header is damaged")
                entries[name], at = entry, entry.end
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("its header is damaged") from error
    if at != room:
        raise ValueError("it is cut")
    return entries, header
