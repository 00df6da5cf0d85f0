#!/usr/bin/env python3
"""Figure 8: without and with style calibration, omega from 0 (off) to 1 (section 3.3).

    python scripts/figures/fig8_calibration.py --config celeba.yml --content_dir my/faces --style_dir my/styles

Takes two minutes with the embedded model, a quarter of an hour on a GPU with a 256x256 one.
To be seen: calibration brings the style back at the price of content, so that gram_to_style and edges_to_content both fall.
At omega 1 the move of x_t is nearly zero and the shape is the style picture's again. With the embedded model up to 0.3 changes
little, and at 0.7 both shapes lie over each other.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import sys
from functools import partial

from common import run, sweep

main = partial(sweep, "fig8_calibration", __doc__, "omega", "0,0.1,0.3,0.7,1", "ω", "style calibration ω, γ = {gamma:g}")

if __name__ == "__main__":
    sys.exit(run(main))
