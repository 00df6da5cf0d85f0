"""The flags of the official main.py: which are ours too, which style transfer does not read, and which start something else."""

from __future__ import annotations

from collections.abc import Collection, Sequence

CONTENT_DIR, STYLE_DIR = "./source_images/content", "./source_images/style"

# What each is to us: "ours", "other mode" (Asyrp's and DiffusionCLIP's own work, on which the official code is built), or
# without effect, because only those modes read it, or nothing: then, what it takes.
KINDS = {
    "ours": """config seed verbose model_path t_0 n_inv_step n_gen_step content_replace_step diff_style content_dir style_dir
        save_dir hs_coeff use_mask dt_lambda dt_end t_noise omega user_defined_t_edit just_precompute""",
    "other mode": """run_train run_test lpips style_transfer latent_classifier DirectionalClipSmilarity clip_finetune
        global_clip run_origin latent_at test_celeba_dialog latent_clr eval_latent_clr interpolation interpolation2
        clip_latent_optim edit_images_from_dataset edit_one_image unseen2unseen clip_finetune_eff edit_one_image_eff
        save_precomputed_images test_pretrained compute_distance_graph run_optimize_delta_h
        run_test_pretrained_self_delta_h test_pretrained_at_once""",
    "switch": """add_noise_from_xt origin_process_addnoise train_delta_block train_delta_h image_space_noise_optim
        image_space_noise_optim_delta_block ignore_timesteps use_id_loss shuffle_train_dataloader re_precompute
        save_checkpoint_only_last_iter save_checkpoint_during_iter image_space_noise_optim_origin use_x0_tensor save_x0
        save_x_origin load_random_noise saved_random_noise delta_interpolation save_process_origin save_process_delta_h
        pass_editing style_transfer_style_from_train_images global_cliploss from_noise random_ddim direct_ddim
        direct_same_regardless_of_t step_40_to_ddpm l1_loss_with_x0 pass_origin_and_save_real_image
        style_transfer_use_mean analysis Three_compare_addnoise get_SNR""",
    "int": """user_defined_t_addnoise save_checkpoint_step start_iter_when_you_use_pretrained num_delta start_image_id
        num_mean_of_delta_hs do_alternate attr_index ni align_face n_train_step n_test_step n_test_pretrained_inv_step
        do_train retrain do_test save_train_image save_train_image_step save_train_image_iter bs_train bs_test
        n_precomp_img n_train_img n_test_img deterministic_inv hybrid_noise get_h_num clr_loss_w n_iter scheduler
        scheduler_step_size var maintain interpolation_step maintain_min""",
    "float": """lpips_edit_th lpips_addnoise_th lr_training max_delta min_delta hs_coeff_delta_h hs_coeff_origin_h warigari
        eta rambda LPIPS_addnoise_th model_ratio clip_loss_w l1_loss_w id_loss_w lr_clip_finetune lr_latent_clr
        lr_clip_lat_opt sch_gamma""",
    "str": """sh_file_name custom_train_dataset_dir custom_test_dataset_dir target_image_id multiple_attr multiple_hs_coeff
        masked_h manual_checkpoint_name choose_checkpoint_num load_from_checkpoint style_transfer_noise_from
        custom_dataset_name classification_results_file_name save_to_folder exp comment edit_attr target_class_num
        sample_type img_path clip_model_name""",
    "append": "src_txts trg_txts",
}
OFFICIAL = {f"--{name}": kind for kind, names in KINDS.items() for name in names.split()}


def expand(argv: Sequence[str], known: Collection[str]) -> list[str]:
    """The command line with abbreviated flags in full: an official flag's, or else one of ours (``known`` are all).

    So an official line means what it means there, whatever flags are added here. Raises ValueError for several meanings.
    """
    words = list(argv)
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == "--":
            break
        if flag.startswith("--") and flag not in known:
            official = [name for name in OFFICIAL if name.startswith(flag)]
            meant = official or [name for name in known if name.startswith(flag)]
            if len(meant) > 1:
                raise ValueError(f"{flag} could mean {' or '.join(meant)}")
            words[i] = (meant[0] if meant else flag) + equals + value
    return words
