"""Where checkpoints and data sets lie here. Edit the right-hand sides; relative paths start at the repository
(of checkpoints in an installation without one: at ~/.cache/diffstyle).

MODEL_PATHS: a config's name (its file without .yml), or the ``data.category`` or ``data.dataset`` in it -> the
checkpoint (a file, or a diffusers folder). The most specific key wins; ``--model_path`` wins over all of them.
DATASET_PATHS: a name of your choice -> a folder tree of images, used as ``--content_dir dataset:NAME``.
"""

from __future__ import annotations

MODEL_PATHS: dict[str, str] = {
    "CelebA_HQ": "pretrained/celeba_hq.ckpt",
    "church_outdoor": "pretrained/church_outdoor.ckpt",
    "bedroom": "pretrained/bedroom.ckpt",
    "FFHQ": "pretrained/ffhq_10m.pt",
    "AFHQ": "pretrained/afhq_dog_4m.pt",
    "MetFACE": "pretrained/metface_p2.pt",
    "IMAGENET": "pretrained/256x256_diffusion_uncond.pt",
}

DATASET_PATHS: dict[str, str] = {
    "CelebA_HQ": "data/celeba_hq",
    "LSUN": "data/lsun",
    "FFHQ": "data/ffhq",
    "AFHQ": "data/afhq",
    "MetFACE": "data/metfaces",
    "IMAGENET": "data/imagenet",
    "CUSTOM": "data/custom",
}
