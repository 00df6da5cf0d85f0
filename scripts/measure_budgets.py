#!/usr/bin/env python3
"""How often a model must be asked, for --nfe auto: measured on pairs of pictures of its own domain.

    python scripts/measure_budgets.py --images data/faces                      # the embedded model; of make_avatars.py --seed 3
    python scripts/measure_budgets.py --config celeba.yml --images my/faces

Every picture lends its content to the one before it, by the official 1000/1000-step walk and with each number of evaluations. How
near nine of ten pairs come is added to grids/NAME.json beside the config, which scripts/search_grid.py makes first; best with
other pictures than there. Takes some 3,100 evaluations a picture: 40 minutes for 32 pictures and the embedded model on one core.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from diffstyle.api import invert_all, load, transfer
from diffstyle.console import at_least, exit_code
from diffstyle.errors import UsageError
from diffstyle.figures.metrics import psnr
from diffstyle.files import open_folder, read_json, write_json
from diffstyle.images import load_image
from diffstyle.model import Model
from diffstyle.runs.inputs import list_images
from diffstyle.settings import Settings
from diffstyle.zoo.config import find_config
from diffstyle.zoo.grids import grid_file, to_budgets

BUDGETS = (16, 20, 24, 28, 32, 36, 40, 50)
PAIRS = 0.9  # the share of pairs that a budget is to serve


def measured(model: Model, x0: Tensor, gamma: float, batch_size: int) -> tuple[list[int], list[float]]:
    """Numbers of evaluations, and the PSNR in dB that PAIRS of the pairs of x0 (N, 3, H, W) reach with each."""
    keys, after = [str(i) for i in range(len(x0))], [*range(1, len(x0)), 0]

    def made(s: Settings) -> Tensor:
        """The pictures, (N, 3, H, W) in [0, 1]."""
        inverted = invert_all(model, x0, keys, s, batch_size)
        return (transfer(model, inverted[after], inverted, batch_size, one_to_one=True).clamp(-1, 1) + 1) / 2

    walk = Settings(gamma=gamma, n_inv=1000, n_gen=1000)
    wanted, found = made(walk), []
    for nfe in tqdm(BUDGETS, desc="budgets", leave=False):
        near = psnr(made(replace(walk, solver="abm3", nfe=nfe)), wanted)
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
    path = args.out or grid_file(find_config(args.config))
    model = load(args.config, args.model_path, args.device)
    if model.config.timesteps != 1000:
        raise UsageError(
            f"{args.config}: its walk has {model.config.timesteps} timesteps; budgets are measured for walks of 1000"
        )
    record = grid_of(grid_file(find_config(args.config)), model)
    open_folder(path.parent, "--out")
    paths = list_images(args.images, "--images", recursive=True)[: args.n_images]
    if len(paths) < 2:
        raise UsageError(f"--images {args.images}: two pictures or more are needed, for pairs")
    x0 = torch.stack([load_image(picture, model.config.image_size) for picture in paths])
    nfe, found = measured(model, x0, args.gamma, args.batch_size)
    record |= {"nfe": nfe, "psnr": found, "pairs": len(paths), "gamma": args.gamma}
    to_budgets(record, 1000)
    write_json(path, record)
    for n, near in zip(nfe, found, strict=True):
        print(f"{n:3} evaluations: {near} dB")
    print(path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="avatars.yml")
    parser.add_argument("--model_path")
    parser.add_argument("--images", type=Path, required=True, help="a folder, with those inside it")
    parser.add_argument("--n_images", type=int, default=32, help="at most so many of them; as many pairs")
    parser.add_argument("--gamma", type=float, default=0.4)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="the file (default: grids/NAME.json beside the config)")
    args = parser.parse_args(argv)
    return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
