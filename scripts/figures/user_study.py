#!/usr/bin/env python3
"""The user study's table of attributes, measured instead of asked.

Fifty people were asked whether a result follows the content or the original (the style picture) in each attribute. We drew the
avatars, so for them the answers can be computed: benchmarks/attributes.py compares held-out results with what each side wears.
With --photographs the small networks of diffstyle/figures/faces.py say to which side a result is nearer. What neither can tell
is n/a.

    python scripts/figures/user_study.py --pairs 100
    python scripts/figures/user_study.py --photographs --config celeba.yml --n_contents 20 --n_styles 20 \\
        --n_gen 1000 --content_dir my/faces --style_dir my/faces

Takes a minute and a half with the embedded model (24 pairs), two hours on a GPU for the 400 pairs above.
To be seen: outlines, features, expression and glasses follow the content, colours the style.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import csv
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence

from common import ROOT, Row, check, measure, parser, plots, run, save, save_plot, settings_of, start, transfer
from diffstyle.errors import WorkError
from diffstyle.figures import measures
from diffstyle.figures.metrics import bootstrap
from diffstyle.files import open_folder
from diffstyle.settings import Settings
from diffstyle.zoo.config import load_config

# attribute, whom it follows, per cent of the answers in the paper, our measure (positive: it does)
ASKED = (
    ("nose, eyes, jaw", "content", "71.94", ("edges", "landmarks")),
    ("expression", "content", "63.27", ("expression",)),
    ("glasses", "content", "94.37", ("glasses",)),
    ("hair colour", "style", "95.74", ("colours",)),
    ("make-up", "style", "90.60", ()),
    ("outline of hair and clothes (ours)", "content", "", ("shape",)),
    ("the person (ours)", "content", "", ("identity",)),
)
Pairs = Sequence[Mapping[str, str | float]]


def of_avatars(args: argparse.Namespace, s: Settings) -> Pairs:
    """What benchmarks/attributes.py says of each held-out pair."""
    command = [sys.executable, str(ROOT / "benchmarks/attributes.py"), "--config", args.config, "--pairs", str(args.pairs),
               "--gammas", *([] if s.omega else [str(s.gamma)]), "--omegas", *([str(s.omega)] if s.omega else []),
               "--omega_gamma", str(s.gamma), "--out", str(args.out)]  # fmt: skip
    for name in ("n_inv", "n_gen", "t_edit", "content_replace_step", "t_0"):
        command += [f"--{name}", str(getattr(s, name))]
    if args.model_path:
        command += ["--model_path", args.model_path]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise WorkError(f"benchmarks/attributes.py failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    with open(args.out / "attributes.csv", newline="") as file:
        return [{**row, "content": row["pair"], "style": row["pair"]} for row in csv.DictReader(file)]


def of_photographs(args: argparse.Namespace) -> Pairs:
    """By how much each result is nearer to its content than to its style, on every network that is here."""
    bench = start(args)
    samples = measure(bench, transfer(bench, bench.settings), "photographs", measures.on_faces())
    pairs = []
    for s in samples:
        pair: dict[str, str | float] = {"content": s.content, "style": s.style}
        for name, sign in (("landmarks", -1), ("identity", -1), ("expression", 1)):  # distances, and an overlap
            if f"{name}_to_content_faceapi" in s.values:
                pair[name] = sign * (s.values[f"{name}_to_content_faceapi"] - s.values[f"{name}_to_style_faceapi"])
        pairs.append(pair)
    return pairs


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__)
    p.add_argument("--pairs", type=int, default=24, help="of avatars")
    p.add_argument("--photographs", action="store_true", help="--content_dir and --style_dir hold upright faces that fill them")
    args = p.parse_args(argv)
    check(args, pairs=1)
    open_folder(args.out, "--out")
    s = settings_of(args, load_config(args.config, args.model_path))
    pairs = of_photographs(args) if args.photographs else of_avatars(args, s)

    rows: list[Row] = []
    lines = ["| attribute | follows | paper, % of answers | we, % of pairs [95 %] | pairs |", "|---|---|---|---|---|"]
    for attribute, side, said, names in ASKED:
        judged = [(pair, value) for name in names for pair in pairs if not math.isnan(value := float(pair.get(name) or "nan"))]
        follows = [float(value > 0) for _, value in judged]
        contents, styles = ([str(pair[key]) for pair, _ in judged] for key in ("content", "style"))
        share, low, high = (100 * x for x in bootstrap(follows, contents, styles)) if follows else (math.nan,) * 3
        cell = f"{share:.0f} [{low:.0f}, {high:.0f}]" if follows else "n/a"
        rows.append({"attribute": attribute, "follows": side, "paper_percent": said, "pairs": len(follows),
                     "we_see_percent": share, "low": low, "high": high})  # fmt: skip
        lines.append(f"| {attribute} | {side} | {said or 'not asked'} | {cell} | {len(follows)} |")
    save(args.out, "user_study", None, rows, "\n".join(lines))

    figure, (axis,) = plots(1, 1, width=7.5, height=3)
    places, seen = range(len(rows)), [float(row["we_see_percent"]) for row in rows]
    axis.barh(places, [0 if math.isnan(share) else share for share in seen], label="we, % of pairs")
    axis.plot([float(row["paper_percent"] or "nan") for row in rows], places, "kD", label="paper, % of answers", clip_on=False)
    for place in (i for i in places if math.isnan(seen[i])):
        axis.text(1, place, "n/a", va="center")
    axis.set_yticks(places, [str(row["attribute"]) for row in rows])
    axis.invert_yaxis()  # in the table's order
    axis.set(xlim=(0, 100), title=f"attributes that follow the expected side, γ = {s.gamma:g}")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    save_plot(args.out, "user_study", figure)


if __name__ == "__main__":
    sys.exit(run(main))
