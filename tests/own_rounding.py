"""How far the official fp32 runs on trained networks are from the same walks in fp64: writes golden/trained/rounding.json.

    PYTHONPATH=. python tests/own_rounding.py        # about ten minutes of one core

Of each result: max |official - fp64| / max |official|, and mean |official - fp64| in levels of 255, which is the share of a
saved picture's values that rounding to levels is expected to tell apart. The parity tests allow ours twice that where it is
more than their bounds.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json

import numpy as np
import torch
from torch import Tensor

from diffstyle.images import load_image
from golden_models import FAMILIES, TRAINED, Official, meta, trained_model, trained_settings

OUT = TRAINED / "rounding.json"


def rounding(family: str) -> dict[str, tuple[float, float]]:
    """Of each result of one network: the largest difference, relative, and the mean one, in levels."""
    model = trained_model(family)
    model = dataclasses.replace(model, unet=copy.deepcopy(model.unet).double())
    arrays, found = np.load(TRAINED / family / "expected.npz"), {}
    inverted: dict[tuple[str, str], tuple[Tensor, dict[int, Tensor]]] = {}
    for case, said in meta(TRAINED / family)["cases"].items():
        s = trained_settings(family, case)
        official = Official(model, s, torch.float64)
        for folder in ("contents", "styles"):
            for stem in said[folder]:
                if (folder, stem) not in inverted:  # every case inverts in 50 steps
                    x0 = load_image(TRAINED / "images" / folder / f"{stem}.png", model.config.image_size)
                    inverted[folder, stem] = official.invert(x0[None].double())
        generator = torch.Generator().manual_seed(s.seed)  # one stream, pair after pair
        for content, style in itertools.product(said["contents"], said["styles"]):
            key = f"{case}/content_{content}_style_{style}"
            exact = official.generate(inverted["styles", style][0], inverted["contents", content][1], generator)[0]
            difference = np.abs(arrays[key] - exact.numpy())
            worst, mean = difference.max() / np.abs(arrays[key]).max(), difference.mean() * 127.5
            found[key] = float(f"{worst:.3g}"), float(f"{mean:.3g}")
            print(family, key, *found[key], flush=True)
    return found


if __name__ == "__main__":
    with torch.inference_mode():
        found = {family: rounding(family) for family in FAMILIES}
    OUT.write_text(json.dumps(found, indent=1) + "\n")
