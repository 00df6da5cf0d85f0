"""Parity on a device: the runs of the official code that lie in tests/golden/trained, made again there and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

import diffstyle
from diffstyle.__main__ import parse
from diffstyle.commands import settings_of

TRAINED = Path(__file__).resolve().parents[1] / "tests" / "golden" / "trained"
FAMILIES = ("ddpm", "adm")


def parity(device: str, precision: str, few: bool) -> Iterator[tuple[str, str, int, float]]:
    """Network, case, how many results, and the worst max |ours - theirs| / max |theirs| among them.

    ``few``: one result of the smaller network. All of them take a CPU minutes.
    """
    first = slice(1 if few else None)
    for family in ("adm",) if few else FAMILIES:
        model = diffstyle.load(TRAINED / f"{family}.yml", TRAINED / family / "model.pt", device, precision)
        cases = json.loads((TRAINED / family / "meta.json").read_text())["cases"]
        with np.load(TRAINED / family / "expected.npz") as arrays:
            expected = {name: arrays[name].squeeze() for name in arrays.files}
        for case, said in list(cases.items())[first]:
            settings = asdict(settings_of(parse(said["args"]), {"noise": "golden"}))
            contents, styles = (
                diffstyle.invert(model, [TRAINED / f"images/{side}/{stem}.png" for stem in said[side][first]], **settings)
                for side in ("contents", "styles")
            )
            found = diffstyle.transfer(model, contents, styles, batch_size=16, **settings).flatten(0, 1).numpy()
            names = [f"content_{content}_style_{style}" for content in said["contents"][first] for style in said["styles"][first]]
            wanted = [expected[f"{case}/{name}"] for name in names]
            error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, wanted, strict=True))
            yield family, case, len(names), error
