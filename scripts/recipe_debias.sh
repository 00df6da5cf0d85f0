#!/usr/bin/env bash
# Training pictures against a biased data set, in the way of DiffInject: each pair at five strengths, t_edit 500.
#
# Out:  results/recipe_debias/pairs.csv, a row for each picture to make, and the pictures, their gamma in the name.
# With: the FFHQ network (ffhq_10m.pt, fetched if missing), or any: --config, --model_path.
# Time: 51,000 evaluations of 388 GFLOP, 20 PFLOP: 24 hours on two CPU cores (1.7 s each, benchmarks/README.md), and
#       33 minutes on a GPU that sustains 10 TFLOP/s (computed). --solver abm3 takes 2,600 evaluations: 74 and 1.7 minutes.
#
# Every content meets every style. For pairs of your own name a list with the columns content,style, comma between them:
#   pairs=my.csv bash scripts/recipe_debias.sh --content_dir CONTENTS --style_dir STYLES
# Run it from the repository; arguments are passed on.
set -euo pipefail

config="ffhq.yml"
content_dir="./test_images/photos/contents"
style_dir="./test_images/photos/styles"
save_dir="./results/recipe_debias"
n_gen_step=1000
n_inv_step=1000
hs_coeff=0.3     # gamma; the rows of the list say their own
t_noise=0        # t_boost
t_edit=500
omega=0
dt_lambda=1.0
gammas="0.1 0.3 0.5 0.7 0.9"

# The list needs to know which folders the arguments name.
before=""
for word in "$@"; do
  case "$before" in --content_dir | --style_dir | --save_dir) declare "${before#--}=$word" ;; esac
  case "$word" in --content_dir=* | --style_dir=* | --save_dir=*) declare "${word#--}" ;; esac
  before="$word"
done
pictures() { find "$1" -maxdepth 1 -type f \( -iname '*.png' -o -iname '*.jp*g' -o -iname '*.webp' -o -iname '*.bmp' \) | sort; }
quoted() { printf '"%s"' "${1//\"/\"\"}"; }
every_pair() {
  echo "content,style"
  pictures "$content_dir" | while IFS= read -r content; do
    pictures "$style_dir" | while IFS= read -r style; do echo "$(quoted "$content"),$(quoted "$style")"; done
  done
}
mkdir -p "$save_dir"
{ if [ -n "${pairs:-}" ]; then cat "$pairs"; else every_pair; fi; } |
  awk -v gammas="$gammas" '{ sub(/\r$/, "") }
    NR == 1 { n = split(gammas, gamma, " "); print $0 ",gamma"; next }
    NF { for (i = 1; i <= n; i++) print $0 "," gamma[i] }' > "$save_dir/pairs.csv"

set -- --pairs "$save_dir/pairs.csv" "$@"
. "$(dirname "$0")/run_recipe.sh"
