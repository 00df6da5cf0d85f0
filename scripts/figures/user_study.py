#!/usr/bin/env python3
"""The user study's table of attributes, measured instead of asked.

Fifty people were asked whether a result follows the content or the original (the style picture) in each attribute. We drew the
avatars, so for them the answers can be computed: benchmarks/attributes.py compares held-out results with what each side wears.
What avatars do not have, or what only a network could tell, is n/a. On photographs there is no truth to compare with: use
evaluate.py's identity instead.

    python scripts/figures/user_study.py --pairs 100 --gamma 0.4

Takes a minute and a half with the embedded model (24 pairs); it knows no other.
To be seen: outlines and glasses follow the content, colours the style.
"""

from __future__ import annotations

import csv
import math
import subprocess
import sys

from common import ROOT, Row, parser, plots, run, save, save_plot
from diffstyle.errors import WorkError
from diffstyle.figures.metrics import bootstrap
from diffstyle.files import open_folder

# attribute, whom it follows, per cent of the answers in the paper, our measure (a column of attributes.csv, positive follows)
ASKED = (
    ("nose, eyes, jaw", "content", "71.94", "edges"),
    ("expression", "content", "63.27", ""),
    ("glasses", "content", "94.37", "glasses"),
    ("hair colour", "style", "95.74", "colours"),
    ("make-up", "style", "90.60", ""),
    ("outline of hair and clothes (ours)", "content", "", "shape"),
)


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__)
    p.add_argument("--pairs", type=int, default=24)
    args = p.parse_args(argv)
    open_folder(args.out, "--out")
    command = [sys.executable, str(ROOT / "benchmarks/attributes.py"), "--config", args.config, "--pairs", str(args.pairs),
               "--gammas", str(args.gamma), "--omegas", "--n_inv", str(args.n_inv), "--n_gen", str(args.n_gen),
               "--t_edit", str(args.t_edit), "--out", str(args.out)]  # fmt: skip
    done = subprocess.run([*command, *(["--model_path", args.model_path] if args.model_path else [])],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise WorkError(f"benchmarks/attributes.py failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    with open(args.out / "attributes.csv", newline="") as file:
        pairs = list(csv.DictReader(file))

    rows: list[Row] = []
    lines = ["| attribute | follows | paper, % of answers | we, % of pairs [95 %] | pairs |", "|---|---|---|---|---|"]
    for attribute, side, said, measure in ASKED:
        follows = [float(float(pair[measure]) > 0) for pair in pairs if pair.get(measure, "nan") not in ("", "nan")]
        labels = [str(i) for i in range(len(follows))]
        share, low, high = (100 * x for x in bootstrap(follows, labels, labels)) if follows else (math.nan,) * 3
        seen = f"{share:.0f} [{low:.0f}, {high:.0f}]" if follows else "n/a"
        rows.append({"attribute": attribute, "follows": side, "paper_percent": said, "pairs": len(follows),
                     "we_see_percent": share, "low": low, "high": high})  # fmt: skip
        lines.append(f"| {attribute} | {side} | {said or 'not asked'} | {seen} | {len(follows)} |")
    save(args.out, "user_study", None, rows, "\n".join(lines))

    figure, (axis,) = plots(1, 1, width=7.5, height=3)
    names = [str(row["attribute"]) for row in rows]
    axis.barh(names, [float(row["we_see_percent"]) for row in rows], label="we, % of pairs")
    axis.plot([float(row["paper_percent"] or "nan") for row in rows], names, "kD", label="paper, % of answers")
    axis.set(xlim=(0, 100), title=f"attributes that follow the expected side, γ = {args.gamma:g}")
    axis.legend()
    save_plot(args.out, "user_study", figure)


if __name__ == "__main__":
    sys.exit(run(main))
