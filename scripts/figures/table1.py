#!/usr/bin/env python3
"""Table 1: FID, ID and Gram of replace, lerp and slerp, without and with style calibration.

    python scripts/figures/table1.py --config celeba.yml --gamma 0.3 --n_gen 1000 --n_contents 100 --n_styles 100 \\
        --content_dir my/faces --style_dir my/faces --identity arcface.pt --inception inception-2015-12-05.pt

The paper prints FID / ID / Gram: replace 49.94 / .3581 / .0415, lerp 36.89 / .4040 / .0318, slerp 32.09 / .4390 / .0310.
Where a network of these columns is missing they are n/a with the reason, and the columns on EfficientNet-Lite0, which are
never FID, and on pixels stand beside them; docs/metrics.md says how each is computed.

Takes three minutes with the embedded model (16 pairs, six configurations), hours on a GPU for the paper's sizes.
To be seen: from replace to lerp to slerp more content (ID, edges) and more style (FID, Gram). The orders that come out are
printed, whichever they are. Intervals that overlap decide nothing.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import as_rows, compare, measure, measured, parser, run, save, start, summary, transfer_each
from diffstyle.errors import UsageError
from diffstyle.figures import measures
from diffstyle.figures.measures import Files, Measure, Sample

BLENDS = ("replace", "lerp", "slerp")


def order(samples: Sequence[Sample], row: Measure, variants: Sequence[str]) -> str:
    """The variants from worst to best by one measure; "" where it has no value."""
    found = {v: measures.estimate(row, [s for s in samples if s.variant == v], {}) for v in variants}
    values = {v: cell[0] * (1 if row.better == "more" else -1) for v, cell in found.items() if cell}
    return f"{row.name}: {' < '.join(sorted(values, key=lambda v: values[v]))}" if values else ""


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__, contents=4, styles=4)
    p.set_defaults(gamma=0.5, omega=0.3)  # at gamma 1 lerp is replace
    p.add_argument("--identity", type=Path, help="face recogniser as TorchScript")
    p.add_argument("--inception", type=Path, help="inception-2015-12-05.pt")
    args = p.parse_args(argv)
    for flag, path in (("--identity", args.identity), ("--inception", args.inception)):
        if path is not None and not path.is_file():
            raise UsageError(f"{flag} {path}: no such file")
    rows = [*measures.paper(Files(identity=args.identity, inception=args.inception)),
            *(row for row in measures.on_lite0() if row.embed), *measured()]  # fmt: skip
    bench = start(args)
    variants = {
        f"{blend}, ω = {omega:g}" if omega else blend: replace(bench.settings, blend=blend, omega=omega)
        for omega in (0.0, args.omega)
        for blend in BLENDS
    }
    results = transfer_each(bench, variants)
    samples = [sample for label, x in results.items() for sample in measure(bench, x, label, rows)]
    orders = [order(samples, row, list(variants)[k : k + 3]) for row in rows for k in (0, 3)]
    text = "\n".join([summary(samples, rows), "", "Worst to best:", "", *(f"- {line}" for line in orders if line)])
    title = f"replace, lerp, slerp at γ = {bench.settings.gamma:g}, without and with calibration"
    sheet = compare(bench, results, title, shown=4)
    save(args.out, "table1", sheet, as_rows(samples), text)


if __name__ == "__main__":
    sys.exit(run(main))
