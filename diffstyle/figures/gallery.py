"""The gallery: one index.html in save_dir that shows a run, from its run.json, without a network and without a server.

Everything that a file name, a setting or an error message says reaches the page as JSON in a data block and is put into
it as text, never as markup; the page's own script is the only one that its content security policy lets run.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diffstyle.errors import WorkError
from diffstyle.files import check_regular, read_bytes, write_whole

TEMPLATE = Path(__file__).parent / "page"
EMBED_BYTES = 8_000_000  # up to here the pictures go into the page, which is then one file; beyond it links to them
LARGEST_TABLE = 32 << 20  # bytes of a metrics.csv, 200,000 pairs
PAIR_KEYS = ("content", "style")  # the columns of metrics.csv that name a pair


def write_report(save_dir: Path) -> Path:
    """Write index.html for the run in ``save_dir``, with its metrics.csv if there is one. Raises WorkError."""
    record = read_json(save_dir / "run.json")
    page = fill_page(gallery_data(save_dir, record, read_metrics(save_dir / "metrics.csv")))
    path = save_dir / "index.html"
    write_whole(path, lambda f: f.write(page.encode("utf-8", errors="replace")))
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object written by a run."""
    try:
        text = read_bytes(path).decode("utf-8", "surrogateescape")
        value = json.loads(text, parse_float=finite, parse_constant=finite)
    except WorkError as error:
        raise WorkError(f"{error}; a finished run leaves it in its --save_dir") from error
    except (ValueError, RecursionError) as error:
        raise WorkError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict) or not isinstance(value.get("results"), list):
        raise WorkError(f"{path}: not the record of a run")
    return value


def finite(text: Any) -> float | None:
    """The number that a text is; None for inf and nan, which JSON in a browser does not know, and where there is none."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def read_metrics(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Metrics by (content, style), as scripts/evaluate.py writes them; what is no finite number (n/a) is left out."""
    if not path.is_file():
        return {}
    table: dict[tuple[str, str], dict[str, float]] = {}
    try:
        if (size := check_regular(path)) > LARGEST_TABLE:
            raise WorkError(f"{path}: {size} bytes, more than the {LARGEST_TABLE} that are read")
        for row in csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8", "replace"), newline="")):
            values = {key: finite(text) for key, text in row.items() if key not in PAIR_KEYS}
            pair = row.get("content") or "", row.get("style") or ""
            table[pair] = {key: value for key, value in values.items() if value is not None}
    except csv.Error as error:
        raise WorkError(f"{path}: not readable as a table ({error})") from error
    return table


def gallery_data(
    save_dir: Path, record: Mapping[str, Any], metrics: Mapping[tuple[str, str], Mapping[str, float]]
) -> dict[str, Any]:
    """What the page's script works on; see gallery/page.js. Pairs refer to contents and styles by position."""
    results = record["results"]
    contents = list(dict.fromkeys(str(r["content"]) for r in results))
    styles = list(dict.fromkeys(str(r["style"]) for r in results))
    content_at, style_at = ({name: i for i, name in enumerate(names)} for names in (contents, styles))
    failed = {str(k): str(v) for k, v in dict(record.get("failed") or {}).items()}
    # An input that could not be read is recorded under its path.
    broken = {
        kind: {p["name"]: failed[str(p["path"])] for p in record.get(kind) or [] if str(p["path"]) in failed}
        for kind in ("contents", "styles")
    }
    sizes = [size_of(save_dir / r["stack"]) for r in results]
    embed = sum(size or 0 for size in sizes) <= EMBED_BYTES
    columns = list(dict.fromkeys(name for values in metrics.values() for name in values))

    pairs: list[dict[str, Any]] = []
    for r, size in zip(results, sizes, strict=True):
        pair: dict[str, Any] = {"c": content_at[str(r["content"])], "s": style_at[str(r["style"])]}
        reason = failed.get(str(r["stack"])) or broken["contents"].get(r["content"]) or broken["styles"].get(r["style"])
        if reason or size is None:
            pair["failed"] = reason or "not made"
        else:
            pair["result"] = link(r["result"])
            pair["stack"] = data_url(save_dir / r["stack"]) if embed else link(r["stack"])
        if values := metrics.get((str(r["content"]), str(r["style"]))):
            pair["metrics"] = [values.get(name) for name in columns]
        if isinstance(r.get("settings"), dict):
            pair["settings"] = {k: v for k, v in r["settings"].items() if v != record.get("settings", {}).get(k)}
        pairs.append(pair)

    model = record.get("model") or {}
    return {
        "title": f"{save_dir.resolve().name}: {len(contents)} contents x {len(styles)} styles",
        "cell": int(model.get("image_size") or 256),
        "contents": contents,
        "styles": styles,
        "metrics": columns,
        "pairs": pairs,
        "failed": failed,
        "seconds": record.get("seconds"),
        "tables": {name: record.get(name) for name in ("settings", "model", "run", "versions") if record.get(name)},
    }


def size_of(path: Path) -> int | None:
    """Bytes of a file, None when it is not there."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


def link(name: str) -> str:
    """A relative URL for a file in save_dir, whatever is in its name."""
    return "./" + quote(os.fsencode(name.replace(os.sep, "/")))


def data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def fill_page(data: Mapping[str, Any]) -> str:
    """The page with its style, script and data in it."""
    css, script = ((TEMPLATE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    # In a script element only "<" could end it or start a comment; as \u003c it is still the same JSON.
    block = json.dumps(data, default=str, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "TITLE": html.escape(str(data["title"])),
        "HASH": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "STYLE": css,
        "SCRIPT": script,
        "DATA": block,
    }
    page = (TEMPLATE / "page.html").read_text(encoding="utf-8")
    return re.sub("@([A-Z]+)@", lambda mark: parts[mark[1]], page)
