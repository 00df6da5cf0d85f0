#!/usr/bin/env bash
# Content injection between faces, 1000 inversion steps: the settings of the official script of this name.
#
# Out:  results/script_diffstyle/grid.png, the three photographs in three colourings each, and the nine pairs.
# With: the CelebA-HQ network (celeba_hq.ckpt, 455 MB, fetched if missing).
# Time: 15,000 evaluations of 497 GFLOP, 7.5 PFLOP: 10 hours on two CPU cores (2.4 s each, benchmarks/README.md), and
#       12 minutes on a GPU that sustains 10 TFLOP/s (computed). --solver abm3 takes 700 evaluations: 28 and 0.6 minutes.
#
# Run it from the repository; arguments are passed on, e.g. --config avatars.yml --n_inv_step 50.

sh_file_name="script_diffstyle.sh"
gpu="0"
config="celeba.yml"
content_dir="./test_images/photos/contents"
style_dir="./test_images/photos/styles"
save_dir="./results/script_diffstyle"
n_gen_step=1000  # timesteps of the generation
n_inv_step=1000  # timesteps of the inversion
hs_coeff=0.3     # gamma
t_noise=200      # t_boost
t_edit=500
omega=0.0
dt_lambda=0.9985

. "$(dirname "$0")/run_recipe.sh"
