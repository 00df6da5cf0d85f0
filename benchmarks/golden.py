"""Parity on a device: the runs of the official code that lie in tests/golden/trained, made again there and compared."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np

import diffstyle
from diffstyle import pipeline
from diffstyle.__main__ import parse
from diffstyle.commands import settings_of
from diffstyle.pipeline import Inverted

TRAINED = Path(__file__).resolve().parents[1] / "tests" / "golden" / "trained"
FAMILIES = ("ddpm", "adm")


def parity(device: str, precision: str, few: bool) -> Iterator[tuple[str, str, int, float]]:
    """Network, case, how many results, and the worst max |ours - theirs| / max |theirs| among them.

    ``few``: of the cases of 50 steps, and of each the first result only. Those of the others take a CPU minutes.
    """
    for family in FAMILIES:
        model = diffstyle.load(TRAINED / f"{family}.yml", TRAINED / family / "model.pt", device, precision)
        cases = json.loads((TRAINED / family / "meta.json").read_text())["cases"]
        with np.load(TRAINED / family / "expected.npz") as arrays:
            expected = {name: arrays[name].squeeze() for name in arrays.files}
        for case, said in cases.items():
            settings = settings_of(parse(said["args"]), {"noise": "golden"})
            if few and settings.n_gen > 50:
                continue
            pairs = list(itertools.product(said["contents"], said["styles"]))[: 1 if few else None]
            invert = cache(partial(diffstyle.invert, model, n_inv=settings.n_inv))  # a picture may be in many pairs
            contents = Inverted.join([invert(TRAINED / f"images/contents/{content}.png") for content, _ in pairs])
            styles = Inverted.join([invert(TRAINED / f"images/styles/{style}.png") for _, style in pairs])
            noise = pipeline.one_stream(model, settings).batch(range(len(pairs)))
            found = pipeline.transfer(model, contents, styles, settings, noise).cpu().numpy()
            wanted = [expected[f"{case}/content_{content}_style_{style}"] for content, style in pairs]
            yield (
                family,
                case,
                len(pairs),
                max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, wanted, strict=True)),
            )
