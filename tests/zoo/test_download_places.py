"""Where files of the zoo lie: in a checkout and in an installation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffstyle.zoo import checkpoints, places
from diffstyle.zoo.checkpoints import find_checkpoint
from diffstyle.zoo.config import load_config
from diffstyle.zoo.entries import load_zoo
from diffstyle.zoo.places import BUNDLED, HOME, downloads, root


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in site-packages, with pretrained/ as a folder of its own."""
    package = tmp_path / "site-packages" / "diffstyle"
    (package / "pretrained").mkdir(parents=True)
    (package / "pretrained" / "avatars64.pt").touch()
    monkeypatch.setattr(places, "HOME", package)
    monkeypatch.setattr(places, "BUNDLED", package / "pretrained")
    monkeypatch.setattr(checkpoints, "BUNDLED", package / "pretrained")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return package


def test_a_checkout_keeps_its_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert root() == HOME
    assert downloads() == BUNDLED
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not root().is_relative_to(HOME)  # a checkout that nobody may write to


def test_an_installation_downloads_into_the_cache(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert downloads() == tmp_path / "home" / ".cache" / "diffstyle" / "pretrained"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the XDG specification says to ignore
    assert downloads() == tmp_path / "home" / ".cache" / "diffstyle" / "pretrained"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert downloads() == tmp_path / "cache" / "diffstyle" / "pretrained"
    assert not root().exists()  # asking makes nothing


def test_an_installation_finds_its_own_model_and_the_user_s(installed: Path) -> None:
    avatars = load_config("avatars")
    assert find_checkpoint(avatars) == installed / "pretrained" / "avatars64.pt"
    own = downloads() / "avatars64.pt"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_checkpoint(avatars) == own
    celeba = root() / "pretrained" / "celeba_hq.ckpt"  # as MODEL_PATHS says, from the root
    celeba.touch()
    assert find_checkpoint(load_config("celeba")) == celeba
    assert next(iter(load_zoo())) == "celeba"
