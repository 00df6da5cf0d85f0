#!/usr/bin/env python3
"""Figure 3: the two naive operations on h, and the one that replaces them.

Replacing h by the content's, or adding the content's h, changes its norm, which the decoder expects to fit the skip
connections. Slerp with matched norms is the paper's answer.

    python scripts/figures/fig3_operations.py --config celeba.yml --content_dir my/faces --style_dir my/styles

Takes half a minute with the embedded model, ten minutes on a GPU with a 256x256 one (27 transfers of 50 steps).
To be seen: in the paper replace and add break the picture or wash it out, and Slerp keeps it clean. With the embedded model
little tells the three apart: the norms of its h differ by a tenth (fig5_blends), and add is a little paler.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
from dataclasses import replace

from common import as_rows, compare, measure_each, parser, run, save, start, summary, transfer_each


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__)
    p.set_defaults(gamma=0.5)  # at 1, matched norms are all that tells Slerp from replacing
    args = p.parse_args(argv)
    bench = start(args)
    results = transfer_each(bench, {blend: replace(bench.settings, blend=blend) for blend in ("replace", "add", "slerp")})
    samples = measure_each(bench, results)
    sheet = compare(bench, results, f"operations on h, γ = {bench.settings.gamma:g} (replace: whatever γ)")
    save(args.out, "fig3_operations", sheet, as_rows(samples), summary(samples))


if __name__ == "__main__":
    sys.exit(run(main))
