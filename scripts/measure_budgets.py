#!/usr/bin/env python3
"""How often a model must be asked, for --nfe auto: measured on pairs of pictures of its own domain.

    python scripts/measure_budgets.py --images data/faces                      # the embedded model; of make_avatars.py --seed 3
    python scripts/measure_budgets.py --config celeba.yml --images my/faces

Every picture lends its content to the one before it, by the official 1000/1000-step walk and with each number of evaluations. How
near nine of ten pairs come is added to grids/NAME.json beside the config, which scripts/search_grid.py makes first; best with
other pictures than there. Takes some 3,600 evaluations a picture: 50 minutes for 64 pictures and the embedded model on two cores.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from measuring import grid_flags, model_with_grid
from torch import Tensor
from tqdm import tqdm

from diffstyle.api import invert, transfer
from diffstyle.console import at_least, exit_code
from diffstyle.errors import UsageError
from diffstyle.figures.metrics import psnr
from diffstyle.files import read_json, write_json
from diffstyle.images import load_image
from diffstyle.model import Model
from diffstyle.runs.inputs import list_images
from diffstyle.zoo.grids import to_budgets

BUDGETS = (16, 20, 24, 28, 32, 36, 40, 50, 64, 80, 100)
PAIRS = 0.9  # the share of pairs that a budget is to serve


def measured(model: Model, x0: Tensor, gamma: float, batch_size: int) -> tuple[list[int], list[float]]:
    """Numbers of evaluations, and the PSNR in dB that PAIRS of the pairs of x0 (N, 3, H, W) reach with each."""
    after = [*range(1, len(x0)), 0]

    def made(**solver: Any) -> Tensor:
        """The pictures, (N, 3, H, W) in [0, 1]."""
        inverted = invert(model, x0, batch_size, gamma=gamma, n_inv=1000, n_gen=1000, **solver)
        return (transfer(model, inverted[after], inverted, batch_size, one_to_one=True).clamp(-1, 1) + 1) / 2

    wanted, found = made(), []
    for nfe in tqdm(BUDGETS, desc="budgets", leave=False):
        near = psnr(made(solver="abm3", nfe=nfe), wanted)
        found.append(float(near.quantile(1 - PAIRS)))
    return list(BUDGETS), [round(near, 1) for near in rising(found)]


def rising(values: Sequence[float]) -> list[float]:
    """The nearest values that do not fall (isotonic regression): where more evaluations seem to be worse, that is chance."""
    level: list[list[float]] = []
    for value in values:
        level.append([value])
        while len(level) > 1 and fmean(level[-2]) > fmean(level[-1]):
            level[-2:] = [level[-2] + level[-1]]
    return [fmean(each) for each in level for _ in each]


def grid_of(path: Path, model: Model) -> dict[str, Any]:
    """What is known of the model's grid. Raises UsageError where it is of other weights."""
    if not path.is_file():
        grid = model.config.grid
        return {"t": grid.ts, "share": grid.shares, "config": model.config.name, "sha256": model.digest}
    record: dict[str, Any] = read_json(path)
    if record.get("sha256") != model.digest:
        raise UsageError(f"{path}: the grid is of other weights than {model.path}: first run python scripts/search_grid.py")
    return record


def work(args: argparse.Namespace) -> None:
    at_least(args, n_images=2, batch_size=1)
    model, known, out = model_with_grid(args)
    record = grid_of(known, model)
    paths = list_images(args.images, "--images", recursive=True)[: args.n_images]
    if len(paths) < 2:
        raise UsageError(f"--images {args.images}: two pictures or more are needed, for pairs")
    x0 = torch.stack([load_image(picture, model.config.image_size) for picture in paths])
    nfe, found = measured(model, x0, args.gamma, args.batch_size)
    record |= {"nfe": nfe, "psnr": found, "pairs": len(paths), "gamma": args.gamma}
    to_budgets(record, 1000)
    write_json(out, record)
    for n, near in zip(nfe, found, strict=True):
        print(f"{n:3} evaluations: {near} dB")
    print(out)


def main(argv: list[str] | None = None) -> int:
    parser = grid_flags(__doc__, n_images=64)
    parser.add_argument("--gamma", type=float, default=0.4)
    args = parser.parse_args(argv)
    return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
