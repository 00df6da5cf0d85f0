"""One process's work on a run: invert each picture once, transfer in batches, save every pair.

Batches, their order and the number of processes change a result by rounding alone (see ``batching``).
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffstyle.errors import DiffstyleError, WorkError
from diffstyle.files import StorageError, kind_of, make_folder
from diffstyle.images import save_png, tile, to_image
from diffstyle.masks import mask_digest
from diffstyle.model import Model
from diffstyle.noise import NextNoise, OneStream, pair_noise
from diffstyle.pipeline import one_stream, transfer
from diffstyle.runs.background import Background, leaving
from diffstyle.runs.batching import Batches, default_batch_size
from diffstyle.runs.config import RunConfig
from diffstyle.runs.inputs import Picture, picture_reader
from diffstyle.runs.inversions import Inversions
from diffstyle.runs.latents import LatentCache
from diffstyle.runs.plan import Pair, Plan
from diffstyle.runs.records import Outcome, is_done, pair_record, stamp_of
from diffstyle.runs.workers import Share
from diffstyle.settings import Settings

log = logging.getLogger(__name__)
Column = list[list[Image.Image | None]]  # the style and the content, as rows of a table


class Job:
    """The pairs of one process and what became of them."""

    def __init__(self, model: Model, cfg: RunConfig, plan: Plan, share: Share, cache: LatentCache) -> None:
        self.model, self.cfg, self.share = model, cfg, share
        self.size = model.config.image_size
        self.read = picture_reader(self.size)
        self.batches = Batches(cfg.batch_size or default_batch_size(model, share.local_count))
        self.inversions = Inversions(model, cfg.settings, cache, share, self.batches, self.read, self.fail_input)
        self.stamp = stamp_of(model, cfg.settings)
        self.pairs = share.own(plan.pairs)
        self.outcome = Outcome(failed=dict(plan.failed))
        self.broken = {""} if plan.failed else set()  # digests of inputs that cannot be used
        self.stream: OneStream | None = None
        self.bar: tqdm[Any] = tqdm(total=0, unit="eval", disable=True)

    def work(self) -> None:
        todo = []
        for pair in self.pairs:
            if self.has_failed(pair):
                continue
            if not self.cfg.overwrite and is_done(self.stamp, self.cfg, pair) and self.inversions.drawn(pair.content, pair.style):
                self.outcome.kept.append(pair.name)
            else:
                todo.append(pair)
        with self.progress(todo), Background(self.model.device) as background:
            self.invert_missing(todo)
            self.bar.set_description("transfer")
            for group in groups([p for p in todo if not self.has_failed(p)], self.cfg.settings):
                self.batches.run(
                    group,
                    lambda batch: self.transfer(batch, background),
                    lambda batch, following: self.inversions.turn_to(batch, following, background),
                )

    def count_again(self) -> None:
        """What has been done, or was there before, and is not there now, has failed."""
        gone = {p.name for p in self.pairs for name in (p.name, p.result_name) if kind_of(self.cfg.save_dir / name) != "file"}
        for kind in (self.outcome.done, self.outcome.kept):
            for name in [name for name in kind if name in gone]:
                self.fail(name, f"{self.cfg.save_dir / name}: it, or its bare result, vanished during the run; run again")
            kind[:] = [name for name in kind if name not in gone]

    def invert_missing(self, todo: Sequence[Pair]) -> None:
        self.bar.set_description("inversion")
        self.inversions.make(todo, self.bar.update)

    # ---- what fails --------------------------------------------------------------------------------------------------

    def fail(self, what: str, reason: str) -> None:
        log.error("%s", reason)
        self.outcome.failed[what] = reason

    def fail_input(self, picture: Picture, reason: str) -> None:
        self.fail(str(picture.path), reason)
        self.broken.add(picture.digest)

    def has_failed(self, pair: Pair) -> bool:
        return pair.content.digest in self.broken or pair.style.digest in self.broken

    def able(self, pairs: Sequence[Pair], check: Callable[[Pair], object]) -> list[Pair]:
        """Those of the pairs that ``check`` passes; the others fail with its reason."""
        fine = []
        for pair in pairs:
            try:
                check(pair)
                fine.append(pair)
            except StorageError:  # nothing that follows could be kept either
                raise
            except DiffstyleError as error:
                self.fail(pair.name, str(error))
        return fine

    # ---- how far it is -----------------------------------------------------------------------------------------------

    def progress_made(self) -> str:
        """How far this process has come, for an interruption to say."""
        part = f" of this process ({self.share.index} of {self.share.count})" if self.share.count > 1 else ""
        return f"{len(self.outcome.done) + len(self.outcome.kept)} of {len(self.pairs)} pairs{part} are finished"

    @contextmanager
    def progress(self, todo: Sequence[Pair], transfers: bool = True) -> Iterator[None]:
        """A bar over network evaluations."""
        s = self.cfg.settings
        total = sum(self.inversions.evaluations(need) for need in self.inversions.needs(todo))
        alike = Counter(pair.settings(s) for pair in todo if transfers)
        total += sum(count * own.transfer_evaluations(self.model.config.grid) for own, count in alike.items())
        hidden = not (self.cfg.show_progress and self.share.first)
        often = 0.1 if sys.stderr.isatty() else 10.0  # seconds; a log file keeps every state of the bar
        with tqdm(total=total, unit="eval", disable=hidden, smoothing=0.05, mininterval=often) as self.bar:
            yield

    # ---- transfer ----------------------------------------------------------------------------------------------------

    def transfer(self, batch: Sequence[Pair], background: Background) -> None:
        """Transfer pairs of like settings and have each saved."""
        batch = self.able(batch, self.check_inputs)
        if not batch:
            return
        content, style = self.inversions.of_pairs(batch)
        settings = batch[0].settings(self.cfg.settings)
        arrived = leaving(transfer(self.model, content, style, settings, self.noise(batch), self.bar.update))
        inputs = {pair: self.inputs(pair) for pair in self.able(batch, self.inputs)}

        def save_all() -> None:
            results = dict(zip(batch, arrived(), strict=True))
            self.able(list(inputs), lambda pair: self.save(pair, inputs[pair], results[pair]))

        background.put(save_all)

    def check_inputs(self, pair: Pair) -> None:
        """Raise DiffstyleError where something of what a pair is made from cannot be read, or has changed."""
        self.check_mask()
        self.inputs(pair)
        self.inversions.latents(pair)

    def check_mask(self) -> None:
        """Raise WorkError when the mask's file is no longer the one that records name."""
        if self.stamp.mask and mask_digest(self.cfg.settings.mask) != self.stamp.mask:
            raise WorkError(f"--mask {self.cfg.settings.mask}: changed during the run; run again when it stays as it is")

    def noise(self, pairs: Sequence[Pair]) -> NextNoise:
        s, shape = self.cfg.settings, (3, self.size, self.size)
        if s.noise == "pair":
            seeds = [pair.settings(s).seed for pair in pairs]
            return pair_noise(seeds, [(pair.content.digest, pair.style.digest) for pair in pairs], shape)
        self.stream = self.stream or one_stream(self.model, s)
        return self.stream.batch([pair.index for pair in pairs])

    def inputs(self, pair: Pair) -> Column:
        return [[self.read(pair.style)], [self.read(pair.content)]]

    def save(self, pair: Pair, inputs: Column, x: Tensor) -> None:
        """Write the official stack (style, content, result) and the bare result (3, H, W); the latter last, it marks the pair
        done. Raises DiffstyleError.
        """
        self.check_mask()
        if not x.isfinite().all():
            raise WorkError(f"{pair.name}: the result holds numbers that are not finite; try --precision fp32")
        record, folder, result = pair_record(self.stamp, self.cfg, pair), self.cfg.save_dir, to_image(x)
        make_folder(folder / pair.folder)
        save_png(folder / pair.name, tile([*inputs, [result]], 1, self.size, 3), record)
        save_png(folder / pair.result_name, result, record)
        self.outcome.done.append(pair.name)


def groups(pairs: Sequence[Pair], of_run: Settings) -> Iterator[list[Pair]]:
    """Pairs that can share network calls: alike but for the seed. One stream of noise keeps their order."""

    def alike(pair: Pair) -> Settings:
        return replace(pair.settings(of_run), seed=0)

    if of_run.noise != "pair":
        yield from (list(group) for _, group in groupby(pairs, alike))
        return
    by_settings: dict[Settings, list[Pair]] = {}
    for pair in pairs:
        by_settings.setdefault(alike(pair), []).append(pair)
    yield from by_settings.values()
