"""Whatever is in a file, reading it ends soon, with what the file says or with one line that says why not.

Half a minute in CI, always the same inputs. Longer, with other inputs every time, by hand:

    FUZZ_EXAMPLES=3000 python -m pytest tests/fuzz

A failure prints the smallest input that hypothesis finds. More than 10 s for one input, or more than 1 GB beyond the start
in all, is a failure too.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import signal
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from batch_tools import ARCHITECTURE, CONFIG
from diffstyle.errors import DiffstyleError, UsageError, WorkError
from diffstyle.images import chunks, open_fitted, orientation, read_record, read_result, save_png
from diffstyle.masks import build_mask
from diffstyle.models import build_unet
from diffstyle.runs.inputs import Picture, picture_reader
from diffstyle.runs.latents import LatentCache
from diffstyle.runs.pairs import read_rows
from diffstyle.runs.places import is_run
from diffstyle.runs.tensors import FORMAT, checksum
from diffstyle.zoo.config import load_config
from diffstyle.zoo.weights import read_state

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
SECONDS, BYTES = 10, 1 << 30
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))

fuzz = settings(
    max_examples=EXAMPLES or 100,
    derandomize=not EXAMPLES,
    deadline=None,  # an alarm ends what hangs
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < BYTES, f"{grown >> 20} MB more than at the start"


def soon(read: Callable[[], Any]) -> Any:
    """``read()``, or the DiffstyleError that it raises, whose text is one line without control characters."""

    def stop(*_: object) -> None:
        raise AssertionError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        return read()
    except DiffstyleError as error:
        text = str(error)
        assert text and len(text) < 1000 and "\n" not in text and "\x1b" not in text
        return error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def written(data: bytes, name: str) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


# ---- damage ------------------------------------------------------------------------------------------------------

EXTREMES = [struct.pack(kind, n) for kind in ("<I", ">I", "<Q", ">Q") for n in (0, 1, 2**31 - 1, 2**32 - 1)] + [
    struct.pack("<q", -1), struct.pack("<d", float("nan")), bytes(64), b"[" * 3000, b"(" * 3000, b"\xff" * 9,
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, wholes: list[bytes]) -> bytes:
    """One of the files with up to eight changes."""
    data = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "flip", "put", "insert", "delete", "cut", "copy"]))
        some = draw(st.binary(min_size=1, max_size=12) | st.sampled_from(EXTREMES)) if kind in ("put", "insert") else b""
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "put":
            data[at : at + len(some)] = some
        elif kind == "insert":
            data[at:at] = some
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "cut":
            del data[at:]
        elif kind == "copy":
            data[at:at] = data[draw(st.integers(0, at)) : at]
        del data[1 << 20 :]
    return bytes(data)


# ---- lists -------------------------------------------------------------------------------------------------------

LISTS = [
    b'content,style,gamma,omega,seed,name\na.png,b.png,0.3,,7,x\n"a, b.png",c.png,,0.1,,\n',
    "\ufeffStyle;CONTENT\r\n s00.png ; é.png \r\n".encode(),
    b"content\tstyle\nx\ty\n",
]
CELLS = st.sampled_from(["", "a.png", "0.3", "nan", "1e999", "-1", "9" * 5000, "\0", '"', "\u202e", "../x", "grid", ".x", "CON"])


@fuzz
@given(
    damaged(LISTS)
    | st.binary(max_size=300)
    | st.lists(st.lists(CELLS | st.text(max_size=8), max_size=8), max_size=6).map(
        lambda rows: ("content,style,gamma,seed,name\n" + "\n".join(",".join(row) for row in rows)).encode("utf-8", "replace")
    )
)
def test_lists(data: bytes) -> None:
    rows = soon(lambda: read_rows(written(data, "list.csv")))
    if not isinstance(rows, UsageError):
        assert rows and all(row.content and row.style and row.line > 1 for row in rows)


# ---- pictures and records ----------------------------------------------------------------------------------------

PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8))
RECORD = {"settings": {"gamma": 0.3}, "content": {"name": "ä\n", "sha256": "0"}}


def result() -> bytes:
    path = FOLDER / "result.png"
    save_png(path, PIXELS, RECORD)
    return path.read_bytes()


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIXELS.convert(options.pop("mode", "RGB")).save(buffer, kind, **options)
    return buffer.getvalue()


RESULT = result()
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
PICTURES = [
    RESULT, encoded("JPEG", exif=EXIF), encoded("JPEG", progressive=True, mode="CMYK"), encoded("PNG", mode="P"),
    encoded("PNG", mode="I;16" if "I;16" in Image.MODES else "L"), encoded("GIF"), encoded("WEBP"), encoded("TIFF"),
    encoded("TIFF", compression="tiff_lzw"), encoded("BMP"), encoded("PPM"), encoded("TGA"), encoded("EPS"), encoded("ICO"),
    encoded("PCX"), encoded("SGI"),
]  # fmt: skip


@fuzz
@given(damaged([RESULT]))
def test_records(data: bytes) -> None:
    path = written(data, "record.png")
    record, image = soon(lambda: read_record(path)), soon(lambda: read_result(path))
    if data.startswith(RESULT):
        assert record == RECORD and image is not None
    elif len(data) == len(RESULT):
        assert record is None and image is None, "a changed byte is noticed"
    assert image is None or record is not None


@st.composite
def rebuilt(draw: st.DrawFn) -> bytes:
    """A PNG of right checksums whose chunks are left out, repeated, changed or foreign."""
    parts = [(kind, bytes(body)) for kind, body in chunks(RESULT)]
    data = RESULT[:8]
    records = (b"{}", b"[]", b"1e999", b"[" * 9000, b'{"a":' * 9000, b"\xff", b"nul", b"")
    texts = [b"diffstyle\0\0\0\0\0" + record for record in records]
    for _ in range(draw(st.integers(1, 6))):
        kind, body = draw(st.sampled_from(parts) | st.tuples(st.just(b"iTXt"), st.sampled_from(texts)))
        if draw(st.booleans()):
            body = draw(damaged([body]))
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data + RESULT[-12:]


@fuzz
@given(rebuilt())
def test_records_of_right_checksums(data: bytes) -> None:
    path = written(data, "rebuilt.png")
    record = soon(lambda: read_record(path))
    assert record is None or isinstance(record, dict)
    soon(lambda: read_result(path))
    soon(lambda: open_fitted(path, 8, exif=True))


@fuzz
@given(damaged(PICTURES))
def test_pictures(data: bytes) -> None:
    path = written(data, "picture.png")
    image = soon(lambda: open_fitted(path, 8, exif=True))
    assert isinstance(image, WorkError) or (image.size == (8, 8) and image.mode == "RGB")
    assert soon(lambda: orientation(data)) in range(1, 9)
    mask = soon(lambda: build_mask(str(path), (4, 3)))
    assert isinstance(mask, WorkError) or (mask.shape == (1, 1, 4, 3) and 0 <= mask.min() <= mask.max() <= 1)
    assert isinstance(soon(lambda: picture_reader(8)(Picture(path, "x", "another digest"))), WorkError)


@fuzz
@given(damaged([json.dumps({"settings": {}, "model": {}, "results": []}).encode(), b"[" * 50_000, b"\xff\xfe"]))
def test_runs(data: bytes) -> None:
    assert soon(lambda: is_run(data)) in (True, False)


# ---- caches ------------------------------------------------------------------------------------------------------

CACHE = LatentCache(FOLDER / "cache", {"size": 4})
CACHE.put_x_T("p", torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)))
CACHE.put_h("p", {t: torch.full((2, 1, 1), float(t)) for t in (0, 5, 50)})
X_T, H = CACHE.path("p", "xT"), CACHE.path("p", "h")
WHOLE = {path: path.read_bytes() for path in (X_T, H)}
WORDS = st.sampled_from(["dtype", "shape", "data_offsets", "x_T", "5"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**64) | st.floats() | st.sampled_from(["F32", "I64", "x", "5"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries({
    "dtype": st.sampled_from(["F32", "F64", "I64", "BF16", "Q"]) | JSON,
    "shape": st.lists(st.integers(-1, 4) | st.just(2**62), max_size=4) | JSON,
    "data_offsets": st.tuples(st.integers(-1, 200), st.integers(-1, 200)) | JSON,
})  # fmt: skip


def check_cache() -> None:
    """Each of the four questions is answered, and no number comes from a file that is not as it was written."""
    x_T, h = soon(lambda: CACHE.get_x_T("p")), soon(lambda: CACHE.get_h("p", [0, 50]))
    assert x_T is None or (x_T.shape == (3, 4, 4) and x_T.dtype == torch.float32 and bool(x_T.isfinite().all()))
    assert h is None or (sorted(h) == [0, 50] and len({(x.shape, x.dtype) for x in h.values()}) == 1)
    assert soon(lambda: CACHE.has_x_T("p")) in (True, False) and soon(lambda: CACHE.has_h("p", [5])) in (True, False)


@fuzz
@given(damaged([WHOLE[X_T]]), damaged([WHOLE[H]]))
def test_caches(x_T: bytes, h: bytes) -> None:
    X_T.write_bytes(x_T)
    H.write_bytes(h)
    check_cache()
    for data, path, found in ((x_T, X_T, CACHE.get_x_T("p")), (h, H, CACHE.get_h("p", [0]))):
        assert (found is not None) == (data == WHOLE[path])


@fuzz
@given(
    JSON | st.dictionaries(st.sampled_from(["x_T", "0", "5", "50"]), ENTRY, max_size=3), st.binary(max_size=200), st.booleans()
)
def test_caches_of_right_checksums(entries: Any, body: bytes, as_x_T: bool) -> None:
    header: Any = entries
    if isinstance(entries, Mapping):
        header = {"__metadata__": {"format": FORMAT, "crc32": checksum(entries, [memoryview(body)])}, **entries}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (X_T if as_x_T else H).write_bytes(struct.pack("<Q", len(text)) + text + body)
    check_cache()


# ---- configs -----------------------------------------------------------------------------------------------------

LINE = st.sampled_from([
    "data:", "  image_size: 8", "  dataset: CelebA_HQ", "model:", "  type: ddpm", "  ch: 1e9", "  ch_mult: [1, 1]", "a: &a [1]",
    "b: *a", "? [x]", "!!python/name:os.system", "- - -", "{", "]", "'", "diffusion: {num_diffusion_timesteps: 1e9}",
    "model: {<<: *a}", "\t", "%YAML 9", "---", "...", "x: 2024-99-99", "0o99: .nan", "checkpoint: ../../etc/passwd",
    "\u202e: \x07",
])  # fmt: skip
NUMBERS = st.booleans() | st.integers(-3, 2**70) | st.floats()
SCALARS = st.none() | NUMBERS | st.text(max_size=6) | st.lists(st.integers(), max_size=3)
GOOD = yaml.safe_load(CONFIG)


def changed(changes: Mapping[tuple[str, str], Any]) -> bytes:
    content = {part: dict(keys) for part, keys in GOOD.items()}
    for (part, key), value in changes.items():
        content.setdefault(part, {})[key] = value
    return yaml.safe_dump(content).encode()


PLACES = [(part, key) for part, keys in GOOD.items() for key in keys]
PLACES += [("diffusion", "num_diffusion_timesteps"), ("diffusion", "beta_end")]


@fuzz
@given(
    damaged([CONFIG.encode()])
    | st.lists(LINE, max_size=12).map(lambda lines: "\n".join(lines).encode())
    | st.dictionaries(st.sampled_from(PLACES), SCALARS, max_size=3).map(changed)
)
def test_configs(data: bytes) -> None:
    config = soon(lambda: load_config(written(data, "config.yml")))
    if not isinstance(config, DiffstyleError):
        assert 0 < config.image_size <= 4096 and 0 < config.timesteps <= 10**6 and 0 < config.beta_end < 1


# ---- checkpoints -------------------------------------------------------------------------------------------------


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def safetensors(weights: Mapping[str, torch.Tensor]) -> bytes:
    path = FOLDER / "weights"
    from diffstyle.runs.tensors import write_tensors

    with path.open("wb") as file:
        write_tensors(file, weights)
    return path.read_bytes()


SMALL = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}
WEIGHTS = build_unet("ddpm", 8, ARCHITECTURE).state_dict()
CHECKPOINTS = [
    saved(SMALL), saved({"ema": SMALL, "epoch": 3, "optimizer": {"lr": 0.1}}), saved([SMALL, {}, 1, 2, SMALL]),
    saved(SMALL, _use_new_zipfile_serialization=False), safetensors(SMALL), saved(WEIGHTS)[: 1 << 16],
]  # fmt: skip


def check_weights(data: bytes) -> None:
    state = soon(lambda: read_state(written(data, "weights.pt")))
    if not isinstance(state, DiffstyleError):
        assert all(isinstance(name, str) and isinstance(x, torch.Tensor) for name, x in state.items())


@fuzz
@given(damaged(CHECKPOINTS))
def test_checkpoints(data: bytes) -> None:
    check_weights(data)


GLOBALS = ["torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict", "os system", "torch Size"]
OPERATIONS = [
    *(bytes([code]) for code in b"(.02N\x88]})\x85\x86\x87aesutld"),
    b"Q", b"R", b"b", b"\x81", b"q\0", b"h\0", b"h\x01", b"K\x02", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 8,
    b"X\x01\0\0\0a", b"X\xff\xff\xff\x7fa", b"X\x07\0\0\0storage", b"X\x03\0\0\0cpu", b"G" + bytes(8), b"\x80\x02",
    *(f"c{name.replace(' ', chr(10))}\n".encode() for name in GLOBALS),
]  # fmt: skip
PICKLE = pickle.dumps({"a": [1, (2, 3)], "b": "x" * 10}, protocol=2)


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in (("x/data.pkl", data), ("x/version", b"3\n"), ("x/byteorder", b"little"), ("x/data/0", bytes(24))):
            archive.writestr(name, body)
    return buffer.getvalue()


def pickle_in(checkpoint: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


@fuzz
@given(
    st.lists(st.sampled_from(OPERATIONS), max_size=60).map(lambda codes: b"\x80\x02" + b"".join(codes) + b".")
    | damaged([PICKLE, *(pickle_in(data) for data in CHECKPOINTS[:3])]),
    st.booleans(),
)
def test_pickles(data: bytes, in_zip: bool) -> None:
    check_weights(zipped(data) if in_zip else data)
