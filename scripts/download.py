#!/usr/bin/env python3
"""Get published checkpoints, verified, into pretrained/ (an installation without a checkout: ~/.cache/diffstyle/pretrained).

python scripts/download.py --list                       # the seven models: missing, verified, ...
python scripts/download.py celeba afhq                  # mirrors in order, resumes after an interruption
python scripts/download.py ffhq --from ~/ffhq_10m.pt    # a file or URL of your own, checked like any other
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import logging
import sys
from pathlib import Path

from diffstyle.console import exit_code
from diffstyle.errors import DiffstyleError, UsageError, saying
from diffstyle.zoo.download import fetch
from diffstyle.zoo.entries import Entry, load_zoo
from diffstyle.zoo.integrity import status
from diffstyle.zoo.places import downloads


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to get (see --list)")
    parser.add_argument("--all", action="store_true", help="all seven models, 4.6 GB")
    parser.add_argument("--list", action="store_true", help="what there is and which of it is here, then stop")
    parser.add_argument("--dir", type=Path, default=downloads(), help="target folder (default: %(default)s)")
    parser.add_argument("--from", dest="origin", metavar="FILE_OR_URL", help="take one model from here instead")
    return parser.parse_args(argv)


def choose(zoo: dict[str, Entry], args: argparse.Namespace) -> list[Entry]:
    """The entries that the command names. Raises UsageError."""
    unknown = [name for name in args.names if name not in zoo]
    if unknown:
        raise UsageError(f"no model is called {', '.join(unknown)}; there are {', '.join(zoo)}")
    names = list(zoo) if args.all else list(dict.fromkeys(args.names))
    if not names:
        raise UsageError(f"name a model ({', '.join(zoo)}), or use --all or --list")
    if args.origin and len(names) != 1:
        raise UsageError("--from gives one file: name one model with it")
    return [zoo[name] for name in names]


def table(zoo: dict[str, Entry], folder: Path) -> str:
    rows = [("NAME", "MODEL", "CONFIG", "LICENCE", "STATE")]
    rows += [(e.name, e.title, e.config, e.licence, status(e, folder)) for e in zoo.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]) for row in rows)


def work(args: argparse.Namespace) -> int:
    zoo = load_zoo()
    if args.list:
        print(table(zoo, args.dir))
        return 0
    failed = 0
    for entry in choose(zoo, args):
        try:
            with saying(lambda: "what has arrived is kept"):
                print(fetch(entry, args.dir, args.origin))
        except DiffstyleError as error:  # with --all, the others may still come
            print(f"error: {error}", file=sys.stderr)
            failed = error.exit_code
    return failed


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
