"""The inverted pictures of a run: made where the cache lacks them, read from it pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from diffstyle.errors import WorkError
from diffstyle.images import to_tensor
from diffstyle.model import Model
from diffstyle.pipeline import Inverted, Progress, invert
from diffstyle.runs.batching import Batches
from diffstyle.runs.inputs import Picture
from diffstyle.runs.latents import LatentCache
from diffstyle.runs.plan import Pair
from diffstyle.runs.workers import Share
from diffstyle.settings import Settings


@dataclass
class Need:
    """What is wanted of a picture's inversion."""

    picture: Picture
    h: bool = False
    x_T: bool = False


@dataclass
class Inversions:
    """The cache, and how to fill it. No list in here holds tensors: latents are read when a pair needs them."""

    model: Model
    settings: Settings
    cache: LatentCache
    share: Share
    batches: Batches
    read: Callable[[Picture], Image.Image]
    fail: Callable[[Picture, str], None]  # told of an input that cannot be used, and why

    def needs(self, pairs: Sequence[Pair]) -> list[Need]:
        """What the pairs read and the cache lacks, each picture once even if it is content and style."""
        needs: dict[str, Need] = {}
        for pair in pairs:
            needs.setdefault(pair.content.digest, Need(pair.content)).h = True
            needs.setdefault(pair.style.digest, Need(pair.style)).x_T = True
        return [need for need in needs.values() if not self.have(need)]

    def have(self, need: Need) -> bool:
        digest = need.picture.digest
        kept = self.settings.kept()
        return (not need.h or self.cache.has_h(digest, kept)) and (not need.x_T or self.cache.has_x_T(digest))

    def make(self, pairs: Sequence[Pair], progress: Progress) -> None:
        """Put into the cache what the pairs read and it lacks."""
        needs = self.share.order(self.needs(pairs))
        for kind in ((True, True), (True, False), (False, True)):  # a walk for h alone ends early
            alike = [need for need in needs if (need.h, need.x_T) == kind]
            self.batches.run(alike, lambda batch: self.invert(batch, progress))

    def invert(self, batch: Sequence[Need], progress: Progress) -> None:
        """Invert pictures of which the same is wanted, into the cache."""
        h, x_T = batch[0].h, batch[0].x_T
        if self.share.count > 1:  # another process may have been here
            missing = [need for need in batch if not self.have(need)]
            progress((len(batch) - len(missing)) * self.settings.inversion_evaluations(x_T))
            batch = missing
        pictures: list[Picture] = []
        loaded: list[Tensor] = []
        for need in batch:
            try:
                loaded.append(to_tensor(self.read(need.picture)))
                pictures.append(need.picture)
            except WorkError as error:
                self.fail(need.picture, str(error))
        if not loaded:
            return
        keys = [picture.digest for picture in pictures]
        found = invert(self.model, torch.stack(loaded), self.settings, keys, None if h else (), x_T, progress)
        for i, key in enumerate(keys):
            if h:
                self.cache.put_h(key, {t: maps[i] for t, maps in found.h.items()})
            if x_T:
                self.cache.put_x_T(key, found.x_T[i])

    def latents(self, pair: Pair) -> tuple[Tensor, dict[int, Tensor]]:
        """x_T of the style and h of the content, made anew if the cache lost them. Raises WorkError."""
        kept = self.settings.kept()
        for again in (True, False):
            x_T, h = self.cache.get_x_T(pair.style.digest), self.cache.get_h(pair.content.digest, kept)
            if x_T is not None and h is not None:
                return x_T, h
            if again:
                lost = [Need(pair.style, x_T=True)] * (x_T is None) + [Need(pair.content, h=True)] * (h is None)
                for need in lost:
                    self.invert([need], lambda _: None)
        culprit = pair.style if x_T is None else pair.content
        raise WorkError(f"{culprit.path}: its inversion gives numbers that are not finite, or cannot be kept")

    def of_pairs(self, pairs: Sequence[Pair]) -> tuple[Inverted, Inverted]:
        """Contents and styles of pairs whose latents can be read, side by side. Raises WorkError."""
        x_T, h = zip(*(self.latents(pair) for pair in pairs), strict=True)
        maps = {t: torch.stack([each[t] for each in h]) for t in self.settings.kept()}
        nothing = torch.empty(len(pairs), 0)
        content = Inverted(nothing, maps, tuple(pair.content.digest for pair in pairs), self.settings)
        style = Inverted(torch.stack(x_T), {}, tuple(pair.style.digest for pair in pairs), self.settings)
        return content, style
