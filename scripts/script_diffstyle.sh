#!/usr/bin/env bash
# Content injection with CelebA-HQ, 1000 inversion steps: the settings of the official script of this name.
# Extra arguments are passed on, e.g. --config avatars.yml --n_inv_step 50.

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

CUDA_VISIBLE_DEVICES=$gpu ${PYTHON:-python3} main.py --diff_style \
  --config $config --content_dir $content_dir --style_dir $style_dir --save_dir $save_dir \
  --n_gen_step $n_gen_step --n_inv_step $n_inv_step --n_test_step 1000 \
  --hs_coeff $hs_coeff --t_noise $t_noise --user_defined_t_edit $t_edit --omega $omega --dt_lambda $dt_lambda \
  --sh_file_name $sh_file_name "$@"
