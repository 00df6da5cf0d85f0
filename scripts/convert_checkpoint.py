#!/usr/bin/env python3
"""Rewrite a checkpoint of any format that loads (DDIM list, training dict, diffusers, fp16, ...) as a plain one.

    python scripts/convert_checkpoint.py IN OUT

IN is a file or a diffusers folder. OUT gets the weights only, in fp32, under the published names: .safetensors if it
ends so, else torch's format; without an ending OUT becomes a diffusers UNet2DModel folder. The architecture that the
weights show is printed as the ``model`` section of a config.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from diffstyle.errors import DiffstyleError, UsageError, WorkError
from diffstyle.models.convert import diffusers_architecture, diffusers_config, to_diffusers
from diffstyle.models.recognise import recognise
from diffstyle.zoo.weights import read_diffusers_config, read_state, weights_file


def save(state: Mapping[str, Tensor], out: Path) -> None:
    """Write under a temporary name first, so that OUT is whole or absent."""
    part = out.with_name(out.name + ".part")
    try:
        if out.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(dict(state), part)
        else:
            torch.save(dict(state), part)
        os.replace(part, out)
    except ImportError:
        raise WorkError(f"{out}: writing it needs the package safetensors: pip install safetensors") from None
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise WorkError(f"{out}: cannot be written: {error}") from error


def convert(source: Path, out: Path, image_size: int) -> dict[str, Any]:
    """Do it; returns what the network is, as far as it can be told."""
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    weights = weights_file(source)
    state = {key: value.to(torch.float32, copy=True).contiguous() for key, value in read_state(weights).items()}
    described = read_diffusers_config(weights)
    try:
        if described:
            image_size = diffusers_architecture(described)["image_size"]
    except ValueError as error:
        raise WorkError(f"{weights.with_name('config.json')}: another network than the DDPM's: {error}") from None
    network = recognise(state, image_size)
    if not network:
        raise WorkError(f"{source}: the weights of neither the DDPM nor the ADM U-Net")
    if out.suffix:
        save(state, out)
    elif network["family"] != "ddpm":
        raise UsageError(f"{out}: diffusers has no ADM network; give a file name (.pt or .safetensors)")
    else:
        out.mkdir(parents=True, exist_ok=True)
        save(to_diffusers(state), out / "diffusion_pytorch_model.safetensors")
        config = diffusers_config(image_size, network)
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return network


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", type=Path)
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--image_size", type=int, default=256, help="picture size of the model (only attention's "
                        "resolutions depend on it; diffusers' config.json says it itself)")  # fmt: skip
    args = parser.parse_args(argv)
    try:
        network = convert(args.source, args.out, args.image_size)
    except DiffstyleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    family = network.pop("family")
    print(f"# {args.out}: written. As far as the weights tell (heads, dropout and attention order leave no trace):")
    print(yaml.safe_dump({"model": {"type": family, **network}}, sort_keys=False, default_flow_style=None), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
