#!/usr/bin/env python3
"""Rewrite a checkpoint of any format that loads (DDIM list, training dict, diffusers, fp16, ...) as a plain one.

    python scripts/convert_checkpoint.py IN OUT
    python scripts/convert_checkpoint.py ddpm.pt FOLDER --config celeba.yml   # what the weights do not tell

IN is a file, a diffusers folder or hf:OWNER/NAME. OUT gets the weights only, in fp32, under the published names:
.safetensors if it ends so, else torch's format. Without an ending OUT becomes a folder that diffusers loads
(UNet2DModel.from_pretrained, DDIMScheduler.from_pretrained). The network is printed as a config for --config.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
import yaml
from torch import Tensor

from diffstyle.console import exit_code
from diffstyle.errors import UsageError, WorkError, saying
from diffstyle.files import write_whole
from diffstyle.model import ModelConfig
from diffstyle.models.convert import diffusers_config, scheduler_config, to_diffusers
from diffstyle.models.recognise import recognise
from diffstyle.zoo.config import load_config
from diffstyle.zoo.folders import CONFIG, SCHEDULER, WEIGHTS, describe, weights_file
from diffstyle.zoo.hub import fetch_hub, is_hub
from diffstyle.zoo.strict import build_strictly
from diffstyle.zoo.weights import read_state


def convert(source: str, out: Path, image_size: int, config_name: str | None = None) -> ModelConfig:
    """Do it; returns what the network is, as far as it can be told. Raises UsageError, WorkError."""
    path = fetch_hub(source) if is_hub(source) else Path(source)
    if not path.exists():
        raise UsageError(f"{source}: no such file or folder")
    weights = weights_file(path)
    check_out(out, weights)
    state = read_state(weights)
    config = load_config(config_name) if config_name else find_config(path, weights, state, image_size)
    plain = build_strictly(config, state, weights).state_dict()
    if out.suffix:
        save(plain, out)
    elif config.family != "ddpm":
        raise UsageError(f"{out}: diffusers has no ADM network; give a file name (.pt or .safetensors)")
    else:
        save_folder(plain, config, out)
    return config


def check_out(out: Path, weights: Path) -> None:
    """OUT must be a new file or folder, or an old one that may be replaced; never what is read, nor a device."""
    if out.exists() and (out.samefile(weights) or (out.is_dir() and out.samefile(weights.parent))):
        raise UsageError(f"{out}: is what is to be read; give another OUT")
    if out.exists() and (out.is_dir() if out.suffix else not out.is_dir()):
        raise UsageError(f"{out}: is there and no {'file' if out.suffix else 'folder'}; give another OUT")
    if out.exists() and not out.is_dir() and not out.is_file():
        raise UsageError(f"{out}: is a device or a pipe; give a file")


def find_config(path: Path, weights: Path, state: Mapping[str, Tensor], image_size: int) -> ModelConfig:
    """The network by the descriptions beside its weights, else by the weights alone."""
    if weights.with_name(CONFIG).exists():
        return describe(path if path.is_dir() else path.parent)
    network = recognise(state, image_size)
    if not network:
        raise WorkError(f"{path}: the weights of neither the DDPM nor the ADM U-Net")
    return ModelConfig("the weights", "CUSTOM", "CUSTOM", image_size, network.pop("family"), network)


def save(state: Mapping[str, Tensor], out: Path) -> None:
    """Write weights whole or not at all. Raises WorkError."""
    write: Callable[[BinaryIO], object] = lambda file: torch.save(dict(state), file)  # noqa: E731
    if out.suffix == ".safetensors":
        try:
            from safetensors.torch import save_file
        except ImportError:
            raise WorkError(f"{out}: writing it needs the package safetensors: pip install safetensors") from None
        write = lambda file: save_file(dict(state), file.name)  # noqa: E731
    try:
        write_whole(out, write)
    except (RuntimeError, ValueError) as error:  # torch and safetensors have their own kinds for a full disk
        raise WorkError(f"{out}: cannot be written: {error}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise WorkError(f"{out}: cannot be written: {error}") from error


def save_folder(state: Mapping[str, Tensor], config: ModelConfig, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"{out}: cannot be made: {error.strerror}") from error
    save(to_diffusers(state), out / WEIGHTS[0])
    for name, content in ((CONFIG, diffusers_config(config.image_size, config.architecture)),
                          (SCHEDULER, scheduler_config(vars(config)))):  # fmt: skip
        text = json.dumps(content, indent=2) + "\n"
        write_whole(out / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]


def as_yaml(config: ModelConfig) -> str:
    """The config file that describes the network."""
    sections: dict[str, Any] = {
        "data": {"dataset": "CUSTOM", "category": "CUSTOM", "image_size": config.image_size},
        "model": {"type": config.family, **config.architecture},
        "diffusion": {
            "beta_schedule": config.beta_schedule, "beta_start": config.beta_start, "beta_end": config.beta_end,
            "num_diffusion_timesteps": config.timesteps, "prediction": config.prediction,
        },
    }  # fmt: skip
    return yaml.safe_dump(sections, sort_keys=False, default_flow_style=None)


def work(args: argparse.Namespace) -> None:
    if not 8 <= args.image_size <= 4096:
        raise UsageError(f"--image_size {args.image_size}: use 8 to 4096")
    try:
        with saying(lambda: "nothing was written"):
            config = convert(args.source, args.out, args.image_size, args.config)
    except (OSError, ValueError) as error:  # a path that no file can have
        raise UsageError(error) from error
    known = "by the config" if args.config else "as far as weights and descriptions tell (heads leave no trace in weights)"
    print(f"# {args.out}: written. The network, {known}:")
    print(as_yaml(config), end="")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN")
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--config", help="what the network is, where the weights alone do not tell (heads, schedule, "
                        "prediction): a name in configs/ or a path")  # fmt: skip
    parser.add_argument("--image_size", type=int, default=256, help="picture size of the model, where no config says it "
                        "(only attention's resolutions depend on it)")  # fmt: skip
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
