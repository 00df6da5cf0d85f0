"""The networks: two published U-Net families behind one contract (``hspace_unet``). They know nothing of the method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffstyle.models.adm import ADM
from diffstyle.models.ddpm import DDPM
from diffstyle.models.hspace_unet import HSpaceUNet

FAMILIES: dict[str, type[DDPM] | type[ADM]] = {"ddpm": DDPM, "adm": ADM}


def build_unet(family: str, image_size: int, architecture: Mapping[str, Any]) -> HSpaceUNet:
    """A network with random weights; ``architecture`` holds the constructor's keywords."""
    return FAMILIES[family](image_size=image_size, **architecture)
