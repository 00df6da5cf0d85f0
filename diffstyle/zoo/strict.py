"""Strict building: every key and shape of the file must be the network's, and what differs is said."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffstyle.errors import UsageError, WorkError
from diffstyle.model import ModelConfig
from diffstyle.models import build_unet
from diffstyle.models.ddpm import DDPM
from diffstyle.models.hspace_unet import HSpaceUNet
from diffstyle.models.recognise import recognise
from diffstyle.zoo.folders import CONFIG, SCHEDULER, architecture_beside, schedule_beside
from diffstyle.zoo.weights import plain_weights


def build_strictly(config: ModelConfig, state: Mapping[str, Tensor], path: Path) -> HSpaceUNet:
    """The network of ``config`` with the weights of ``state`` in fp32; every key and shape must agree."""
    try:
        with torch.device("meta"):  # nothing is allocated before the shapes are known to agree
            unet = build_unet(config.family, config.image_size, config.architecture)
    except (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise UsageError(f"config {config.name}.yml: no {config.family} network can be built: {error}") from error
    expected = unet.state_dict()
    complaint = first_difference(expected, state)
    if complaint:
        raise WorkError(f"{path}: checkpoint of another architecture: {complaint}; {likeness(config, state)}")
    check_description(config, path)
    unet.load_state_dict(plain_weights(path, state), assign=True)
    return unet


def first_difference(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The first key that the network and the file do not share, with both shapes; "" when they agree."""
    for key in [*expected, *(key for key in state if key not in expected)]:
        wanted, found = (tuple(side[key].shape) if key in side else "absent" for side in (expected, state))
        if wanted != found:
            return f"{key[:80]} is {found} in the file, {wanted} in the network"
    return ""


def likeness(config: ModelConfig, state: Mapping[str, Tensor]) -> str:
    """What the weights look like against what the config says."""
    found = recognise(state, config.image_size)
    if not found:
        return f"the weights are of no known family, {config.name}.yml says {config.family}"
    with torch.device("meta"):
        expected = build_unet(config.family, config.image_size, config.architecture).state_dict()
    says = recognise(expected, config.image_size)
    keys = ["family"] if found["family"] != config.family else [k for k in found if found[k] != says.get(k)]
    theirs, ours = (", ".join(f"{k} {side.get(k)}" for k in keys) for side in (found, says))
    if not keys:
        return "some keys are missing or foreign"
    return f"the weights look like {theirs}, {config.name}.yml says {ours}"


def check_description(config: ModelConfig, weights: Path) -> None:
    """The descriptions beside diffusers weights say what shapes cannot: embedding, padding, heads, schedule, prediction."""
    network, schedule = architecture_beside(weights) if config.family == "ddpm" else None, schedule_beside(weights)
    if network is not None:
        defaults = {key: p.default for key, p in inspect.signature(DDPM.__init__).parameters.items()}
        compare(weights.with_name(CONFIG), network, defaults | dict(config.architecture) | vars(config), config.name)
    if network is not None and schedule is not None:
        if schedule["beta_schedule"] in ("cosine", "squaredcos_cap_v2") and config.beta_schedule == "cosine":
            schedule = {key: schedule[key] for key in ("timesteps", "prediction")}
        compare(weights.with_name(SCHEDULER), schedule, vars(config), config.name)


def compare(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> None:
    for key, value in found.items():
        ours = wanted[key]
        if key != "dropout" and (list(value) != list(ours) if isinstance(value, list) else value != ours):
            raise WorkError(f"{path}: {key} is {value}, {name}.yml says {ours}; --config {path.parent} takes it from there")
