"""A dry run over the pickle in a checkpoint before torch reads it: nothing is imported, called, hashed or built.

torch's own reader runs no foreign code, but it allocates what a file claims, follows any nesting and takes tensors of
every kind. So its opcodes are walked first, with the numbers, names and tuples that they put on the stack.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

LARGEST = 32 << 20  # bytes; a training checkpoint's pickle has 0.13 MB
OPERATIONS = 400_000  # a training checkpoint of a published network has 43,000
DEPTH = 50

STORAGES = {  # bytes of a number
    "torch.DoubleStorage": 8, "torch.FloatStorage": 4, "torch.HalfStorage": 2, "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8, "torch.IntStorage": 4, "torch.ShortStorage": 2, "torch.CharStorage": 1,
    "torch.ByteStorage": 1, "torch.BoolStorage": 1,
}  # fmt: skip
TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
CALLED = {*TENSORS, "torch._utils._rebuild_parameter", "collections.OrderedDict", "collections.Counter", "torch.Size",
          "torch.device"}  # fmt: skip
DTYPES = {f"torch.{kind}{bits}" for kind in ("float", "int") for bits in (8, 16, 32, 64)} | {
    "torch.bfloat16", "torch.bool", "torch.uint8"
}  # fmt: skip
# Rebuilt by torch without running code, but no network here holds such tensors.
OTHER_TENSORS = ("torch._utils.", "torch._tensor.", "torch.Q", "torch.Complex", "torch.Untyped", "torch.sparse.")

# Operations of pickle's protocol 2, the only one that torch's careful reader knows.
VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
LITERALS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
FILLS = {"APPEND": 1, "SETITEM": 2}


class Refused(ValueError):  # noqa: N818 (it is what happens to the file)
    """Why a pickle is not read."""


class Name(str):
    """Something that the pickle names to have it imported."""


class Storage(NamedTuple):
    """The numbers behind tensors."""

    key: str
    numbers: int
    width: int  # bytes a number


class Other:
    """Any other object; only its being there matters."""


OTHER, ORDERED = Other(), Other()


class DryRun:
    """The stack of a pickle machine. An element is (depth of nesting, value), where most values are OTHER."""

    def __init__(self, size: int) -> None:
        self.size = size  # of the file
        self.operations = 0
        self.storages: dict[str, Storage] = {}

    def walk(self, file: io.BytesIO) -> Any:
        """Go through one pickle, leave ``file`` behind it; its value as far as it was followed. Raises Refused."""
        self.stack: list[tuple[int, Any]] = []
        self.marks: list[int] = []
        self.memo: dict[int, tuple[int, Any]] = {}
        for operation, argument, _ in pickletools.genops(file):
            self.operations += 1
            if self.operations > OPERATIONS:
                raise Refused(f"its pickle has more than {OPERATIONS} operations, which no plain weights have")
            self.step(operation.name, argument)
        return self.stack[-1][1]

    def step(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self.stack.append((0, argument))
        elif name in LITERALS:
            self.stack.append((0, LITERALS[name]))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            self.stack.append((1, OTHER))
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in TUPLES or name == "TUPLE":
            items = self.pop(TUPLES.get(name))
            self.push(items, tuple(value for _, value in items))
        elif name in FILLS or name in ("APPENDS", "SETITEMS"):
            items = self.pop(FILLS.get(name))
            depth, container = self.stack.pop()
            self.push(items, container, depth)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            self.stack.append((0, self.named(".".join(argument.split(" ")))))
        elif name == "BINPERSID":
            self.stack.append((0, self.storage(self.stack.pop()[1])))
        elif name in ("REDUCE", "BUILD"):
            (_, first), (_, second) = self.pop(2)
            self.stack.append((0, self.call(first, second) if name == "REDUCE" else self.build(first)))
        elif name == "PROTO" and argument not in (2, 3):
            raise Refused(f"its pickle is of protocol {argument}, torch writes 2")
        elif name not in ("PROTO", "STOP"):
            raise Refused(f"its pickle uses {name}, which torch does not in plain weights")

    def pop(self, count: int | None) -> list[tuple[int, Any]]:
        """The last ``count`` elements, or those behind the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < 0:
            raise Refused("its pickle is damaged")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push(self, items: list[tuple[int, Any]], value: Any, least: int = 1) -> None:
        """A container of ``items``. For tuples, the only containers that get hashed, the depth is exact."""
        depth = max([least, *(depth + 1 for depth, _ in items)])
        if depth > DEPTH:
            raise Refused(f"its pickle is nested more than {DEPTH} deep")
        self.stack.append((depth, value))

    def named(self, name: str) -> Name:
        if name in STORAGES or name in CALLED or name in DTYPES:
            return Name(name)
        if name.startswith(OTHER_TENSORS):
            raise Refused(f"it holds tensors of a kind that no network here has ({name[:80]})")
        raise Refused(f"it is not plain weights, reading it would call {name[:80]}")

    def storage(self, value: Any) -> Storage:
        """("storage", type, key, location, count, ...) as torch writes it."""
        if not isinstance(value, tuple) or len(value) < 5 or not isinstance(value[1], Name) or value[1] not in STORAGES:
            raise Refused("it names a storage that torch does not write")
        count, found = value[4], Storage(str(value[2]), value[4], STORAGES[value[1]])
        if type(count) is not int or not 0 <= count <= self.size:
            raise Refused(f"it claims a tensor of {count} elements in a file of {self.size} bytes")
        if self.storages.setdefault(found.key, found) != found:
            raise Refused(f"storage {found.key} is of two sizes")
        return found

    def call(self, function: Any, arguments: Any) -> Other:
        if not isinstance(function, Name) or function not in CALLED:
            raise Refused("it calls what it has made itself")
        if function in TENSORS:
            check_tensor(arguments)
        return ORDERED if function == "collections.OrderedDict" else OTHER

    def build(self, target: Any) -> Other:
        """Attributes of an object: torch gives a state dict its _metadata, nothing else any."""
        if target is not ORDERED:
            raise Refused("it sets attributes of something else than a dictionary")
        return ORDERED


def check_tensor(arguments: Any) -> None:
    """(storage, offset, shape, stride, ...) must lie in the storage and not show its numbers more often than it has them."""
    if not isinstance(arguments, tuple) or len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise Refused("it holds a tensor without numbers")
    storage, offset, shape, stride = arguments[:4]
    numbers = [offset, *shape, *stride] if isinstance(shape, tuple) and isinstance(stride, tuple) else [None]
    if any(type(n) is not int or n < 0 for n in numbers) or len(shape) != len(stride) or len(shape) > 8:
        raise Refused("it holds a tensor without a proper shape")
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count > storage.numbers or (count and last >= storage.numbers):
        raise Refused(f"it holds a tensor of shape {shape}, stride {stride}, for which there are {storage.numbers} numbers")


# ---- files -------------------------------------------------------------------------------------------------------


def check_zip(path: Path, size: int) -> None:
    """Walk the one pickle of a zipped checkpoint; every storage must have just the bytes that the pickle says."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry.file_size for entry in archive.infolist()}
        names = [name for name in entries if name.endswith("/data.pkl")]
        if len(names) != 1 or len(entries) != len(archive.infolist()):
            raise Refused("it is a zip file, but not as torch writes it")
        if entries[names[0]] > LARGEST:
            raise Refused(f"its pickle has {entries[names[0]]} bytes, which no plain weights need")
        run = DryRun(size)
        run.walk(io.BytesIO(archive.read(names[0])))
    check_records(run.storages, entries, names[0].removesuffix(".pkl"))


def check_records(storages: Mapping[str, Storage], entries: Mapping[str, int], folder: str) -> None:
    for key, storage in storages.items():
        wanted, found = storage.numbers * storage.width, entries.get(f"{folder}/{key}")
        if found != wanted:
            raise Refused(f"storage {key} has {found or 'no'} bytes instead of {wanted}: the file is damaged")


def check_legacy(path: Path, size: int) -> None:
    """Walk the five pickles of a checkpoint from before torch 1.6: magic number, version, machine, object, storages."""
    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(LARGEST))  # a copy in memory, so that no claimed length is allocated
    run = DryRun(size)
    if run.walk(pickles) != 0x1950A86A20F9469CFC6C:
        raise Refused("it is a pickle, but not as torch writes it")
    for _ in range(4):
        run.walk(pickles)
    total = sum(storage.numbers * storage.width for storage in run.storages.values())
    if total > size:
        raise Refused(f"it claims {total} bytes of numbers in a file of {size} bytes: it is truncated or damaged")
