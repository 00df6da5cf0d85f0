#!/usr/bin/env bash
# From a fresh clone to a content x style grid made by the embedded model, on any machine. Prints the grid's path last.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
environment requirements.txt
"$PYTHON" main.py --diff_style --config avatars.yml \
  --content_dir test_images/avatars/contents --style_dir test_images/avatars/styles \
  --save_dir results/quickstart --cache_dir results/quickstart/.latents \
  --n_inv_step 50 --n_gen_step 50 --gamma 1 --t_edit 100 --content_replace_step 4 --t_0 300 --report "$@"
