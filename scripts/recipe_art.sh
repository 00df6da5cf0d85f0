#!/usr/bin/env bash
# CelebA-HQ faces with artistic references: only the style is out of domain, so the inversion takes 1000 steps.
# As in the original README, $gpu and $sh_file_name may stay unset. Extra arguments are passed on.

config="celeba.yml"
content_dir="./test_images/photos/contents"
style_dir="./test_images/art"
save_dir="./results/recipe_art"
n_gen_step=1000
n_inv_step=1000
hs_coeff=0.4      # gamma
t_noise=0        # t_boost
t_edit=400
omega=0
dt_lambda=1.0

CUDA_VISIBLE_DEVICES=$gpu ${PYTHON:-python3} main.py --diff_style \
  --config $config --content_dir $content_dir --style_dir $style_dir --save_dir $save_dir \
  --n_gen_step $n_gen_step --n_inv_step $n_inv_step --n_test_step 1000 \
  --hs_coeff $hs_coeff --t_noise $t_noise --user_defined_t_edit $t_edit --omega $omega --dt_lambda $dt_lambda \
  --sh_file_name $sh_file_name "$@"
