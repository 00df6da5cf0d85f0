#!/usr/bin/env python3
"""Figure 7: the strength of the content, gamma from 0 to 1, with curves of the measures.

    python scripts/figures/fig7_gamma.py --config celeba.yml --values 0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1 \\
        --content_dir my/faces --style_dir my/styles

Takes a minute and a half with the embedded model, a quarter of an hour on a GPU with a 256x256 one.
To be seen: at gamma 0 the style picture itself; with growing gamma the content's shape (outline of the hair, glasses) in
the style's colours. In the curves edges_to_content rises, and so does histogram_to_style, the price. The paper's models degrade
above 0.6; with the embedded one nearly all has happened at 0.2 to 0.4, and 1 is as good.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
from functools import partial

from common import run, sweep

main = partial(sweep, "fig7_gamma", __doc__, "gamma", "0,0.1,0.2,0.4,0.7,1", "γ", "content strength γ, t_edit {t_edit}")

if __name__ == "__main__":
    sys.exit(run(main))
