"""Which numbers make sense: checked before a picture is read, so that a slip costs no hour."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NoReturn

from diffstyle.errors import UsageError
from diffstyle.model import ModelConfig
from training.watch import WATCHED


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the two dozen flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help lists the options)\n")


def whole(least: int, most: int) -> Callable[[str], int]:
    """A type for argparse: a whole number in [least, most]."""

    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value}: use {least} to {most}")
        return value

    parse.__name__ = "whole number"  # argparse says it where ``text`` is no number
    return parse


def real(least: float, most: float = math.inf) -> Callable[[str], float]:
    """A type for argparse: a finite number in [least, most]."""

    def parse(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and least <= value <= most):
            raise argparse.ArgumentTypeError(f"{value:g}: use {least:g} {'or more' if most == math.inf else f'to {most:g}'}")
        return value

    parse.__name__ = "number"
    return parse


def check(config: ModelConfig, batch: int, transfer: float, processes: int) -> None:
    """Raise UsageError for what this trainer cannot train, or not so."""
    if batch % processes:
        raise UsageError(f"--batch {batch}: {processes} processes share it, use a multiple of {processes}")
    if transfer and processes > 1:
        raise UsageError("--transfer: its walks are one process's; start it without torchrun")
    if config.prediction != "eps":
        raise UsageError(f"{config.name}: its prediction is {config.prediction}, and only networks that predict eps are trained "
                         "here: leave prediction out of the section diffusion")  # fmt: skip
    if config.timesteps <= WATCHED[-1]:
        raise UsageError(f"{config.name}: num_diffusion_timesteps is {config.timesteps}, t = {WATCHED[-1]} must be among them")
    if transfer and batch % 2:
        raise UsageError(f"--batch {batch}: transfers are between pairs, use an even number")
