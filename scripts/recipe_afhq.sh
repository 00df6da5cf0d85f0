#!/usr/bin/env bash
# Style mixing with the dogs' network.
#
# Out:  results/recipe_afhq/grid.png, the three photographs in three colourings each, and the nine pairs. Only one of
#       them is an animal: for what the paper shows give it dogs, with --content_dir and --style_dir.
# With: the AFHQ dog network (afhq_dog_4m.pt, fetched if missing).
# Time: 9,300 evaluations of 388 GFLOP, 3.6 PFLOP: 4.5 hours on two CPU cores (1.7 s each, benchmarks/README.md), and
#       6 minutes on a GPU that sustains 10 TFLOP/s (computed). --solver abm3 takes 670 evaluations: 19 and 0.4 minutes.
#
# Run it from the repository; arguments are passed on.

config="afhq.yml"
content_dir="./test_images/photos/contents"
style_dir="./test_images/photos/styles"
save_dir="./results/recipe_afhq"
n_gen_step=1000
n_inv_step=50
hs_coeff=0.3     # gamma
t_noise=200      # t_boost
t_edit=400
omega=0
dt_lambda=1.0

. "$(dirname "$0")/run_recipe.sh"
