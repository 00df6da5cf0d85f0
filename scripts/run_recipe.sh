# Sourced by the recipes, with their variables set: main.py with the official flags. The recipe's own arguments come
# last, so that they win. $gpu, $mask and $sh_file_name may be unset, as in the official README; without $gpu no GPU is hidden.
[ -z "${gpu:-}" ] || export CUDA_VISIBLE_DEVICES="$gpu"
"${PYTHON:-python3}" main.py --diff_style \
  --config "$config" --content_dir "$content_dir" --style_dir "$style_dir" --save_dir "$save_dir" \
  --n_gen_step "$n_gen_step" --n_inv_step "$n_inv_step" --n_test_step 1000 \
  --hs_coeff "$hs_coeff" --t_noise "$t_noise" --user_defined_t_edit "$t_edit" --omega "$omega" --dt_lambda "$dt_lambda" \
  ${mask:-} --sh_file_name "${sh_file_name:-}" "$@"
