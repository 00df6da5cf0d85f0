"""The inverted pictures of a run: made where the cache lacks them, read from it pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from diffstyle.errors import WorkError
from diffstyle.files import StorageError, make_folder
from diffstyle.images import read_record, save_png, to_image, to_tensor
from diffstyle.model import Model
from diffstyle.pipeline import Inverted, Progress, draw, invert, to_device
from diffstyle.runs.background import Background
from diffstyle.runs.batching import Batches
from diffstyle.runs.inputs import Picture
from diffstyle.runs.latents import LatentCache
from diffstyle.runs.plan import Pair
from diffstyle.runs.records import model_stamp
from diffstyle.runs.sources import initial_noise
from diffstyle.runs.workers import Share
from diffstyle.settings import Settings


@dataclass
class Need:
    """What is wanted of a picture's inversion."""

    picture: Picture
    h: bool = False
    x_T: bool = False


@dataclass
class AtHand:
    """Latents in memory, by the picture's digest: those of one batch of pairs."""

    x_T: dict[str, Tensor] = field(default_factory=dict)  # (3, H, W)
    h: dict[str, dict[int, Tensor]] = field(default_factory=dict)  # (C_h, H', W') by timestep, on the model's device


@dataclass
class Inversions:
    """The cache, and how to fill it. In memory are the latents of the batch at work and, beside a GPU, of the next."""

    model: Model
    settings: Settings
    cache: LatentCache
    share: Share
    batches: Batches
    read: Callable[[Picture], Image.Image]
    fail: Callable[[Picture, str], None]  # told of an input that cannot be used, and why
    at_hand: AtHand = field(default_factory=AtHand)
    coming: Future[AtHand] | None = None

    def needs(self, pairs: Sequence[Pair]) -> list[Need]:
        """What the pairs read and the cache lacks, each picture once even if it is content and style."""
        needs: dict[str, Need] = {}
        for pair in pairs:
            needs.setdefault(pair.content.digest, Need(pair.content)).h = True
            needs.setdefault(pair.style.digest, Need(pair.style)).x_T = True
        return [need for need in needs.values() if not self.have(need)]

    def have(self, need: Need) -> bool:
        picture, kept = need.picture, self.settings.kept()
        return (
            (not need.h or self.cache.has_h(picture.digest, kept))
            and (not need.x_T or self.cache.has_x_T(picture.digest))
            and self.drawn(picture)
        )

    def drawn(self, *pictures: Picture) -> bool:
        """Whether those of the pictures that are samples are there, drawn by this model."""
        return all(read_record(p.path) == self.sample_record(p) for p in pictures if p.sample)

    def sample_record(self, picture: Picture) -> dict[str, object]:
        return {"sample": picture.digest, "model": model_stamp(self.model)}

    def evaluations(self, need: Need) -> int:
        """Network evaluations to make what is wanted of one picture."""
        sample = need.picture.sample
        return sample.n_gen if sample else self.settings.inversion_evaluations(need.x_T, self.model.config.grid)

    def make(self, pairs: Sequence[Pair], progress: Progress) -> None:
        """Put into the cache what the pairs read and it lacks."""
        wanted = self.share.order(self.needs(pairs))
        self.batches.run([need for need in wanted if need.picture.sample], lambda batch: self.draw(batch, progress))
        needs = [need for need in wanted if not need.picture.sample]
        for kind in ((True, True), (True, False), (False, True)):  # a walk for h alone ends early
            alike = [need for need in needs if (need.h, need.x_T) == kind]
            self.batches.run(alike, lambda batch: self.invert(batch, progress))

    def invert(self, batch: Sequence[Need], progress: Progress) -> None:
        """Invert pictures of which the same is wanted, into the cache."""
        h, x_T = batch[0].h, batch[0].x_T
        pictures: list[Picture] = []
        loaded: list[Tensor] = []
        for need in self.missing(batch, progress):
            try:
                loaded.append(to_tensor(self.read(need.picture)))
                pictures.append(need.picture)
            except WorkError as error:
                self.fail(need.picture, str(error))
        if not loaded:
            return
        keys = [picture.digest for picture in pictures]
        found = invert(self.model, torch.stack(loaded), self.settings, keys, None if h else (), x_T, progress)
        for i, picture in enumerate(pictures):
            self.keep(picture, found[[i]], h, x_T)

    def draw(self, batch: Sequence[Need], progress: Progress) -> None:
        """Draw samples of one run, each with all that its inversion would leave: its chain's h, and the noise it starts from.

        A picture that is there already stays as it is; drawn in another batch it would differ by rounding.
        """
        batch, size = self.missing(batch, progress), self.model.config.image_size
        drawn = [(need.picture, need.picture.sample) for need in batch if need.picture.sample]
        if not drawn:
            return
        x_T = torch.stack([initial_noise(sample.seed, sample.index, size) for _, sample in drawn])
        settings = replace(self.settings, n_gen=drawn[0][1].n_gen, t_0=drawn[0][1].t_0)
        keys = [picture.digest for picture, _ in drawn]
        x0, found = draw(self.model, x_T, settings, keys, self.settings.kept())
        progress(sum(map(self.evaluations, batch)))
        for i, (picture, _) in enumerate(drawn):
            self.keep(picture, found[[i]], h=True, x_T=True, image=to_image(x0[i]))

    def missing(self, batch: Sequence[Need], progress: Progress) -> list[Need]:
        """What is still to be made: another process may have been here."""
        missing = [need for need in batch if self.share.count == 1 or not self.have(need)]
        progress(sum(map(self.evaluations, batch)) - sum(map(self.evaluations, missing)))
        return missing

    def keep(self, picture: Picture, found: Inverted, h: bool, x_T: bool, image: Image.Image | None = None) -> None:
        """Put one picture's latents into the cache, and the picture itself if it has been drawn and is not there."""
        try:
            if h:
                self.cache.put_h(picture.digest, {t: maps[0] for t, maps in found.h.items()})
            if x_T:
                self.cache.put_x_T(picture.digest, found.x_T[0])
            if image and not self.drawn(picture):
                make_folder(picture.path.parent)
                save_png(picture.path, image, self.sample_record(picture))
        except StorageError:
            raise
        except WorkError as error:
            self.fail(picture, str(error))

    def turn_to(self, batch: Sequence[Pair], following: Sequence[Pair], background: Background) -> None:
        """Keep at hand what pairs of this batch read and has been read, and begin to read for the following ones."""
        coming, self.coming = self.coming, None
        known = coming.result() if coming else self.at_hand
        styles, contents = {pair.style.digest for pair in batch}, {pair.content.digest for pair in batch}
        self.at_hand = AtHand(
            {digest: x_T for digest, x_T in known.x_T.items() if digest in styles},
            {digest: h for digest, h in known.h.items() if digest in contents},
        )
        if following:
            known = self.at_hand  # a content's h stays on the device for all of its pairs
            _ = self.cache.h_like  # which it asks the network for once: not from the thread
            self.coming = background.ahead(lambda: self.look_up(following, AtHand(dict(known.x_T), dict(known.h))))

    def look_up(self, pairs: Sequence[Pair], found: AtHand) -> AtHand:
        """Add to ``found`` what the cache has for these pairs, each file read once."""
        for pair in pairs:
            style, content = pair.style.digest, pair.content.digest
            if style not in found.x_T and (x_T := self.cache.get_x_T(style)) is not None:
                found.x_T[style] = x_T
            if content not in found.h and (h := self.cache.get_h(content, self.settings.kept())) is not None:
                found.h[content] = {t: to_device(maps, self.model.device) for t, maps in h.items()}
        return found

    def latents(self, pair: Pair) -> tuple[Tensor, dict[int, Tensor]]:
        """x_T of the style and h of the content, made anew if the cache lost them. Raises WorkError."""
        for again in (True, False):
            found = self.look_up([pair], self.at_hand)
            x_T, h = found.x_T.get(pair.style.digest), found.h.get(pair.content.digest)
            if x_T is not None and h is not None:
                return x_T, h
            if again:
                lost = [Need(pair.style, x_T=True)] * (x_T is None) + [Need(pair.content, h=True)] * (h is None)
                for need in lost:
                    (self.draw if need.picture.sample else self.invert)([need], lambda _: None)
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
