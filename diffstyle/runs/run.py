"""A whole run: plan the pairs, invert each picture once, transfer in batches, save every pair, lay out the grid."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffstyle.errors import UsageError, WorkError, saying
from diffstyle.files import open_folder, temporary_name
from diffstyle.images import read_record, save_png, tile, to_image, to_tensor
from diffstyle.model import Model, ModelConfig
from diffstyle.noise import NextNoise, OfficialNoise, pair_noise
from diffstyle.pipeline import cache_key, invert_batch, transfer_batch
from diffstyle.runs.batching import Batches, default_batch_size
from diffstyle.runs.inputs import Picture, picture_reader, read_pictures
from diffstyle.runs.latents import LatentCache
from diffstyle.runs.plan import Pair, Plan, RunConfig, make_plan, root_of
from diffstyle.runs.records import Report, is_done, pair_record, sweep, write_grid, write_run
from diffstyle.runs.workers import ALONE, Share
from diffstyle.settings import Settings

log = logging.getLogger(__name__)
Column = list[list[Image.Image | None]]  # the style and the content, as rows of a table


def run(model: Model, cfg: RunConfig, plan: Plan | None = None, share: Share = ALONE) -> Report:
    """Do what ``cfg`` says (or this process's ``share``) and write all of it to save_dir.

    A broken input fails its own pairs only. The first process of a run also lays out the grid and run.json.
    """
    start = time.time()
    plan = plan or make_plan(cfg, lambda: model)
    open_folder(cfg.save_dir, "--save_dir")
    sweep({cfg.save_dir / p.folder for p in plan.pairs} | {cfg.save_dir})
    if cfg.cache_dir:
        open_folder(cfg.cache_dir, "--cache_dir")
        sweep([cfg.cache_dir])
    latents = cfg.cache_dir or Path(share.from_first(str(cfg.save_dir / temporary_name())))

    job = Job(model, cfg, plan, share, LatentCache(latents, cache_key(model, cfg.settings)))
    report = job.report
    with saying(job.progress_made):
        try:
            job.work()
            report = merged(share.gather(report)) if share.together else report
        finally:
            if cfg.cache_dir is None and share.first:
                shutil.rmtree(latents, ignore_errors=True)
            report.seconds = time.time() - start
            # Of processes started apart, whichever finds everything there speaks for all.
            whole = share.count == 1 or share.together or all(is_done(job.stamp, cfg, p) for p in plan.pairs)
            if share.first and whole:
                write_run(cfg, plan, model_record(model), report)
        if share.first and whole:
            report.grid = write_grid(cfg, plan, model.config.image_size, job.read)
    return report


def merged(reports: Sequence[Report]) -> Report:
    """The reports of all processes as one."""
    whole = Report()
    for report in reports:
        whole.done += report.done
        whole.kept += report.kept
        whole.failed |= report.failed
    return whole


def precompute(model: Model, cfg: RunConfig, paths: Sequence[Path], share: Share = ALONE) -> int:
    """Invert pictures into the cache, ready to serve as content and as style; returns how many are there now."""
    if cfg.cache_dir is None:
        raise UsageError("--just_precompute needs the cache: leave out --no_cache")
    open_folder(cfg.cache_dir, "--cache_dir")
    pictures, failed = read_pictures(paths, root_of(paths), cfg.exif)
    plan = Plan(pictures, pictures, [Pair(i, p, p, p.name) for i, p in enumerate(pictures) if p.digest], failed)
    job = Job(model, cfg, plan, share, LatentCache(cfg.cache_dir, cache_key(model, cfg.settings)))
    wanted = len(job.needs(job.pairs))
    said = saying(lambda: f"{wanted - len(job.needs(job.pairs))} of {wanted} missing inversions are made")
    with said, job.progress(job.pairs, transfers=False):
        job.invert_missing(job.pairs)
    return sum(p.digest not in job.broken for p in pictures)


def lay_out(config: ModelConfig, cfg: RunConfig, plan: Plan) -> Report:
    """Grid and run.json again from what is on disk, without a network; what is missing is listed as failed."""
    records = ((p, read_record(cfg.save_dir / p.result_name)) for p in plan.pairs)
    found = {p.result_name: record for p, record in records if record}
    if not found:
        raise WorkError(f"--grid_only: none of the {len(plan.pairs)} results is in {cfg.save_dir}")
    report = Report(kept=[p.name for p in plan.pairs if p.result_name in found])
    report.failed = {p.name: f"{p.result_name}: not there" for p in plan.pairs if p.result_name not in found}
    write_run(cfg, plan, {**asdict(config), **next(iter(found.values())).get("model", {})}, report)
    report.grid = write_grid(cfg, plan, config.image_size, picture_reader(config.image_size))
    return report


def model_record(model: Model) -> dict[str, Any]:
    return {**asdict(model.config), "path": model.path, "device": str(model.device), **model_stamp(model)}


def model_stamp(model: Model) -> dict[str, Any]:
    """What of the model a picture depends on."""
    return {"config": model.config.name, "sha256": model.digest, "precision": str(model.dtype).removeprefix("torch.")}


@dataclass
class Need:
    """What is wanted of a picture's inversion."""

    picture: Picture
    h: bool = False
    x_T: bool = False


class Job:
    """One process's work on a run. No list in here holds tensors: latents are read from the cache when needed."""

    def __init__(self, model: Model, cfg: RunConfig, plan: Plan, share: Share, cache: LatentCache) -> None:
        self.model, self.cfg, self.share, self.cache = model, cfg, share, cache
        self.size = model.config.image_size
        self.read = picture_reader(self.size)
        self.batches = Batches(cfg.batch_size or default_batch_size(model, share.local_count))
        self.stamp = model_stamp(model)
        self.kept = cfg.settings.kept()
        self.pairs = share.own(plan.pairs)
        self.report = Report(failed=dict(plan.failed))
        self.broken = {""} if plan.failed else set()  # digests of inputs that cannot be used
        self.official: OfficialNoise | None = None
        self.bar: tqdm[Any] = tqdm(total=0, unit="eval", disable=True)

    def work(self) -> None:
        todo = []
        for pair in self.pairs:
            if self.has_failed(pair):
                continue
            if not self.cfg.overwrite and is_done(self.stamp, self.cfg, pair):
                self.report.kept.append(pair.name)
            else:
                todo.append(pair)
        with self.progress(todo):
            self.invert_missing(todo)
            self.bar.set_description("transfer")
            for group in groups([p for p in todo if not self.has_failed(p)], self.cfg.settings):
                self.batches.run(group, self.transfer)

    def fail(self, what: str, reason: str) -> None:
        log.error("%s", reason)
        self.report.failed[what] = reason

    def has_failed(self, pair: Pair) -> bool:
        return pair.content.digest in self.broken or pair.style.digest in self.broken

    def progress_made(self) -> str:
        """How far this process has come, for an interruption to say."""
        part = f" of this process ({self.share.index} of {self.share.count})" if self.share.count > 1 else ""
        return f"{len(self.report.done) + len(self.report.kept)} of {len(self.pairs)} pairs{part} are finished"

    @contextmanager
    def progress(self, todo: Sequence[Pair], transfers: bool = True) -> Iterator[None]:
        """A bar over network evaluations."""
        s = self.cfg.settings
        total = sum(s.inversion_evaluations(need.x_T) for need in self.needs(todo))
        alike = Counter(pair.settings(s) for pair in todo if transfers)
        total += sum(count * own.transfer_evaluations() for own, count in alike.items())
        hidden = not (self.cfg.show_progress and self.share.first)
        often = 0.1 if sys.stderr.isatty() else 10.0  # seconds; a log file keeps every state of the bar
        with tqdm(total=total, unit="eval", disable=hidden, smoothing=0.05, mininterval=often) as self.bar:
            yield

    # ---- inversions ----------------------------------------------------------------------------------------------

    def needs(self, todo: Sequence[Pair]) -> list[Need]:
        """What the pairs read and the cache lacks, each picture once even if it is content and style."""
        needs: dict[str, Need] = {}
        for pair in todo:
            needs.setdefault(pair.content.digest, Need(pair.content)).h = True
            needs.setdefault(pair.style.digest, Need(pair.style)).x_T = True
        return [need for need in needs.values() if not self.have(need)]

    def invert_missing(self, todo: Sequence[Pair]) -> None:
        """Put into the cache what the pairs read and it lacks."""
        self.bar.set_description("inversion")
        needs = self.share.order(self.needs(todo))
        for kind in ((True, True), (True, False), (False, True)):  # a walk for h alone ends early
            self.batches.run([need for need in needs if (need.h, need.x_T) == kind], self.invert)

    def have(self, need: Need) -> bool:
        digest = need.picture.digest
        return (not need.h or self.cache.has_h(digest, self.kept)) and (not need.x_T or self.cache.has_x_T(digest))

    def invert(self, batch: Sequence[Need]) -> None:
        """Invert pictures of which the same is wanted, into the cache."""
        s, (h, x_T) = self.cfg.settings, (batch[0].h, batch[0].x_T)
        if self.share.count > 1:  # another process may have been here
            missing = [need for need in batch if not self.have(need)]
            self.bar.update((len(batch) - len(missing)) * s.inversion_evaluations(x_T))
            batch = missing
        loaded: list[tuple[Picture, Tensor]] = []
        for need in batch:
            try:
                loaded.append((need.picture, to_tensor(self.read(need.picture))))
            except WorkError as error:
                self.fail(str(need.picture.path), str(error))
                self.broken.add(need.picture.digest)
        if not loaded:
            return
        x0 = torch.stack([x for _, x in loaded])
        inversion = invert_batch(self.model, x0, s, self.kept if h else (), self.bar.update, x_T)
        for i, (picture, _) in enumerate(loaded):
            if h:
                self.cache.put_h(picture.digest, {t: maps[i] for t, maps in inversion.h.items()})
            if x_T:
                self.cache.put_x_T(picture.digest, inversion.x_T[i])

    def latents(self, pair: Pair) -> tuple[Tensor, dict[int, Tensor]]:
        """x_T of the style and h of the content, made anew if the cache lost them. Raises WorkError."""
        for again in (True, False):
            x_T, h = self.cache.get_x_T(pair.style.digest), self.cache.get_h(pair.content.digest, self.kept)
            if x_T is not None and h is not None:
                return x_T, h
            if again:
                lost = [Need(pair.style, x_T=True)] * (x_T is None) + [Need(pair.content, h=True)] * (h is None)
                for need in lost:
                    self.invert([need])
        culprit = pair.style if x_T is None else pair.content
        raise WorkError(f"{culprit.path}: its inversion gives numbers that are not finite, or cannot be kept")

    # ---- transfer ------------------------------------------------------------------------------------------------

    def transfer(self, batch: Sequence[Pair]) -> None:
        """Transfer pairs of like settings and save each."""
        ready: list[tuple[Pair, Tensor, dict[int, Tensor], Column]] = []
        for pair in batch:
            try:
                inputs: Column = [[self.read(pair.style)], [self.read(pair.content)]]
                ready.append((pair, *self.latents(pair), inputs))
            except WorkError as error:
                self.fail(pair.name, str(error))
        if not ready:
            return
        pairs = [pair for pair, *_ in ready]
        x_T = torch.stack([latent for _, latent, _, _ in ready])
        h = {t: torch.stack([each[t] for _, _, each, _ in ready]) for t in self.kept}
        results = transfer_batch(self.model, x_T, h, pairs[0].settings(self.cfg.settings), self.noise(pairs), self.bar.update)
        for (pair, *_, inputs), x in zip(ready, results, strict=True):
            if not x.isfinite().all():
                self.fail(pair.name, f"{pair.name}: the result holds numbers that are not finite; try --precision fp32")
                continue
            self.save(pair, to_image(x), inputs)
            self.report.done.append(pair.name)

    def noise(self, pairs: Sequence[Pair]) -> NextNoise:
        s, shape = self.cfg.settings, (3, self.size, self.size)
        if s.noise == "pair":
            seeds = [p.settings(s).seed for p in pairs]
            return pair_noise(seeds, [(p.content.digest, p.style.digest) for p in pairs], shape)
        if self.official is None:
            draws = sum(step.eta > 0 for step in s.transfer_plan())
            self.official = OfficialNoise(s.seed, shape, draws, calibrated=s.omega != 0)
        return self.official.batch([p.index for p in pairs])

    def save(self, pair: Pair, result: Image.Image, inputs: Column) -> None:
        """Write the official stack (style, content, result) and the bare result; the latter last, it marks the pair done."""
        record, folder = pair_record(self.stamp, self.cfg, pair), self.cfg.save_dir
        (folder / pair.folder).mkdir(exist_ok=True)
        save_png(folder / pair.name, tile([*inputs, [result]], 1, self.size, 3), record)
        save_png(folder / pair.result_name, result, record)


def groups(pairs: Sequence[Pair], of_run: Settings) -> Iterator[list[Pair]]:
    """Pairs that can share network calls: alike but for the seed. The official noise stream keeps their order."""

    def alike(pair: Pair) -> Settings:
        return replace(pair.settings(of_run), seed=0)

    if of_run.noise == "official":
        yield from (list(group) for _, group in groupby(pairs, alike))
        return
    by_settings: dict[Settings, list[Pair]] = {}
    for pair in pairs:
        by_settings.setdefault(alike(pair), []).append(pair)
    yield from by_settings.values()
