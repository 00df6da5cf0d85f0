#!/usr/bin/env bash
# Faces with artistic references: only the style is out of the model's domain, so the inversion takes 1000 steps.
#
# Out:  results/recipe_art/grid.png, the three photographs in the colours of 19 pictures each, and the 57 pairs.
# With: the CelebA-HQ network (celeba_hq.ckpt, 455 MB, fetched if missing).
# Time: 79,000 evaluations of 497 GFLOP, 39 PFLOP: 53 hours on two CPU cores (2.4 s each, benchmarks/README.md), and
#       65 minutes on a GPU that sustains 10 TFLOP/s (computed). --solver abm3 takes 3,900 evaluations: 160 and 3 minutes.
#
# Run it from the repository; arguments are passed on.

config="celeba.yml"
content_dir="./test_images/photos/contents"
style_dir="./test_images/art"
save_dir="./results/recipe_art"
n_gen_step=1000
n_inv_step=1000
hs_coeff=0.4     # gamma
t_noise=0        # t_boost
t_edit=400
omega=0
dt_lambda=1.0

. "$(dirname "$0")/run_recipe.sh"
