#!/usr/bin/env python3
"""Figure 11: how long content is injected, the t_edit sweep, with curves of the measures.

    python scripts/figures/fig11_t_edit.py --config celeba.yml --values 800,700,600,500,400,300,200 \\
        --content_dir my/faces --style_dir my/styles

Takes a minute and a half with the embedded model, a quarter of an hour on a GPU with a 256x256 one.
To be seen: injecting only at large t changes the coarse outline; the further down it goes, the more of the content (face,
glasses, mouth) arrives, and the more the style's details are disturbed. In the curves edges_to_content rises as t_edit falls.
The embedded model is walked from t = 300 with four timesteps for injections: the first brings the outline, the next two the
glasses and the mouth, and the one at 0 changes nothing.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
from functools import partial

from common import run, sweep

main = partial(sweep, "fig11_t_edit", __doc__, "t_edit", "", "t_edit", "injection at t ≥ t_edit, γ = {gamma:g}")

if __name__ == "__main__":
    sys.exit(run(main))
