#!/usr/bin/env python3
"""Local mixing: content injected through a mask (the paper's figure of this name).

To be seen: only the masked part takes the content's shape. The CSV's change_inside and change_outside are the mean change
against the same pictures at gamma 0, where the mask is and where it is not; inside must be the larger in the mean (a pair
whose two pictures look alike in the mask may have it the other way round).
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch.nn.functional as F

from common import compare, parser, run, save, start, summary, transfer, transfer_each
from diffstyle.masks import build_mask

MASKS = {"everywhere": "", "upper half": "0,0,1,0.5", "lower half": "0,0.5,1,1", "official box": "box"}


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__).parse_args(argv)
    bench = start(args)
    # "paper": norms are matched inside the mask too; the official code leaves them, so its masks act weakly
    variants = {label: replace(bench.settings, mask=mask, variant="paper") for label, mask in MASKS.items()}
    results = transfer_each(bench, variants)
    sheet, rows = compare(bench, results, f"injection through a mask, γ = {args.gamma:g}, norms matched")
    plain = transfer(bench, replace(bench.settings, gamma=0))
    size = bench.model.config.image_size
    for label, s in variants.items():
        change = (results[label] - plain).abs().mean(2)  # (C, S, H, W)
        mask = build_mask(s.mask, next(iter(bench.content.h.values())).shape[-2:])
        inside = change.new_ones(size, size) if mask is None else F.interpolate(mask, (size, size))[0, 0]
        for row in rows:
            if row["variant"] == label:
                d = change[int(row["content"]), int(row["style"])]
                outside = 1 - inside
                row["change_inside"] = ((d * inside).sum() / inside.sum()).item()
                row["change_outside"] = ((d * outside).sum() / outside.sum()).item() if outside.any() else "n/a"
    save(args.out, "local_mixing", sheet, rows, summary(rows))


if __name__ == "__main__":
    sys.exit(run(main))
