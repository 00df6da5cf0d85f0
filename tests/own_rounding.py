"""How far the official fp32 runs on trained networks are from the same walks in fp64: golden/trained/rounding.json.

    PYTHONPATH=. python tests/own_rounding.py        # about ten minutes of one core

Of each result: max |official - fp64| / max |official|, and mean |official - fp64| in levels of 255, which is the share of a
saved picture's values that rounding to levels is expected to tell apart. The parity tests allow ours twice that where it is
more than their bounds. half_way.npz has x half way, in fp64, of the walks of 1000 steps.
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
from golden_models import FAMILIES, HALF_WAY, TRAINED, Official, meta, trained_model, trained_settings


def rounding(family: str, half_way: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
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
            for t, x in official.walk(inverted["styles", style][0], inverted["contents", content][1], generator):
                if t == HALF_WAY:
                    half_way[key] = x[0].float().numpy()
            difference = np.abs(arrays[key] - x[0].numpy())
            worst, mean = difference.max() / np.abs(arrays[key]).max(), difference.mean() * 127.5
            found[key] = float(f"{worst:.3g}"), float(f"{mean:.3g}")
            print(family, key, *found[key], flush=True)
    return found


if __name__ == "__main__":
    half_way: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        found = {family: rounding(family, half_way) for family in FAMILIES}
    (TRAINED / "rounding.json").write_text(json.dumps(found, indent=1) + "\n")
    np.savez_compressed(TRAINED / "half_way.npz", **half_way)  # type: ignore[arg-type]
