#!/usr/bin/env bash
# Local style mixing: the content enters only in the official box over the lower face.
#
# Out:  results/recipe_celeba_mask/grid.png, the three photographs in three colourings each, and the nine pairs.
# With: the CelebA-HQ network (celeba_hq.ckpt, 455 MB, fetched if missing).
# Time: 9,300 evaluations of 497 GFLOP, 4.6 PFLOP: 6 hours on two CPU cores (2.4 s each, benchmarks/README.md), and
#       8 minutes on a GPU that sustains 10 TFLOP/s (computed). --solver abm3 takes 670 evaluations: 27 and 0.6 minutes.
#
# Run it from the repository; arguments are passed on.

config="celeba.yml"
content_dir="./test_images/photos/contents"
style_dir="./test_images/photos/styles"
save_dir="./results/recipe_celeba_mask"
n_gen_step=1000
n_inv_step=50
hs_coeff=0.3     # gamma
t_noise=200      # t_boost
t_edit=400
omega=0
dt_lambda=0.9985
mask="--use_mask"

. "$(dirname "$0")/run_recipe.sh"
