#!/usr/bin/env python3
"""Local mixing (section 3.4 and the project page): content injected through a mask.

    python scripts/figures/local_mixing.py --config celeba.yml --content_dir my/faces --style_dir my/styles

Takes a minute and a half with the embedded model, a quarter of an hour on a GPU with a 256x256 one.
To be seen: only the masked part takes the content's shape. The CSV's change_inside and change_outside are the mean change
against the same pictures at gamma 0, where the mask is and where it is not; inside must be the larger in the mean (a pair
whose two pictures look alike in the mask may have it the other way round).
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from common import Bench, Row, as_rows, compare, measure_each, parser, run, save, start, summary, transfer, transfer_each
from diffstyle.masks import build_mask

MASKS = {"everywhere": "", "upper half": "0,0,1,0.5", "lower half": "0,0.5,1,1", "official box": "box"}


def changes(bench: Bench, result: Tensor, plain: Tensor, mask: str) -> list[Row]:
    """Mean change of each pair (C, S, 3, H, W) where the mask is and where it is not, in the order of the pairs."""
    change = (result - plain).abs().mean(2)
    cells = build_mask(mask, next(iter(bench.content.h.values())).shape[-2:])
    inside = change.new_ones(change.shape[-2:]) if cells is None else F.interpolate(cells, change.shape[-2:])[0, 0]
    outside = 1 - inside
    return [
        {"change_inside": ((d * inside).sum() / inside.sum()).item(),
         "change_outside": ((d * outside).sum() / outside.sum()).item() if outside.any() else "n/a"}
        for d in change.flatten(0, 1)
    ]  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__).parse_args(argv)
    bench = start(args)
    # "paper": norms are matched inside the mask too; the official code leaves them, so its masks act weakly
    results = transfer_each(bench, {label: replace(bench.settings, mask=m, variant="paper") for label, m in MASKS.items()})
    plain = transfer(bench, replace(bench.settings, gamma=0))
    samples = measure_each(bench, results)
    more = [row for label, mask in MASKS.items() for row in changes(bench, results[label], plain, mask)]
    sheet = compare(bench, results, f"injection through a mask, γ = {bench.settings.gamma:g}, norms matched")
    save(args.out, "local_mixing", sheet, as_rows(samples, more), summary(samples))


if __name__ == "__main__":
    sys.exit(run(main))
