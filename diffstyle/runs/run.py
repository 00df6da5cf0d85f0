"""A whole run: plan, work, and lay out; or only the inversions, or only the laying out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffstyle.errors import UsageError, WorkError, saying
from diffstyle.files import open_folder, temporary_name
from diffstyle.images import read_record
from diffstyle.model import Model, ModelConfig
from diffstyle.pipeline import cache_key
from diffstyle.runs.config import RunConfig
from diffstyle.runs.grid import write_grid
from diffstyle.runs.inputs import Input, picture_reader, read_pictures
from diffstyle.runs.job import Job
from diffstyle.runs.latents import LatentCache
from diffstyle.runs.places import check_places
from diffstyle.runs.plan import Pair, Plan, listed, root_of
from diffstyle.runs.records import Outcome, is_done, merged, model_stamp, remove_leftovers, write_run
from diffstyle.runs.workers import ALONE, Share


def run(model: Model, cfg: RunConfig, plan: Plan, share: Share = ALONE, latents: Path | None = None) -> Outcome:
    """Do what ``cfg`` says (or this process's ``share``) and write all of it to save_dir.

    A broken input, or a result that cannot be written, fails its own pairs only. The first process of a run also lays out
    the grid and run.json. Without a cache latents lie in the folder ``latents``, which other runs share, or in one of this
    run that goes when it ends.
    """
    start = time.time()
    check_places(cfg, plan.written(), [*plan.read(), *listed(cfg), model.path])
    open_folder(cfg.save_dir, "--save_dir")
    remove_leftovers({cfg.save_dir / p.folder for p in plan.pairs} | {cfg.save_dir})
    if cfg.cache_dir:
        open_folder(cfg.cache_dir, "--cache_dir")
        remove_leftovers([cfg.cache_dir])
    folder = cfg.cache_dir or latents or Path(share.from_first(str(cfg.save_dir / temporary_name())))

    job = Job(model, cfg, plan, share, LatentCache(folder, cache_key(model, cfg.settings), model))
    outcome = job.outcome
    with saying(job.progress_made):
        try:
            job.work()
            job.count_again()
            outcome = merged(share.gather(outcome)) if share.together else outcome
        finally:
            if folder not in (cfg.cache_dir, latents) and share.first:
                shutil.rmtree(folder, ignore_errors=True)
            outcome.seconds = time.time() - start
            # Of processes started apart, whichever finds everything there speaks for all.
            whole = share.count == 1 or share.together or all(is_done(job.stamp, cfg, p) for p in plan.pairs)
            if share.first and whole:
                write_run(cfg, plan, model_record(model), outcome)
        if share.first and whole:
            outcome.grid = write_grid(cfg, plan, model.config.image_size, job.read)
    return outcome


def precompute(model: Model, cfg: RunConfig, inputs: Sequence[Input], share: Share = ALONE) -> int:
    """Invert pictures into the cache, ready to serve as content and as style; returns how many are there now."""
    if cfg.cache_dir is None:
        raise UsageError("--just_precompute needs the cache: leave out --no_cache")
    open_folder(cfg.cache_dir, "--cache_dir")
    pictures, failed = read_pictures(inputs, root_of(inputs), cfg.exif)
    plan = Plan(pictures, pictures, [Pair(i, p, p, p.name) for i, p in enumerate(pictures) if p.digest], failed)
    if drawn := list(plan.drawn()):
        check_places(cfg, drawn, plan.read())
    job = Job(model, cfg, plan, share, LatentCache(cfg.cache_dir, cache_key(model, cfg.settings), model))
    wanted = len(job.inversions.needs(job.pairs))
    said = saying(lambda: f"{wanted - len(job.inversions.needs(job.pairs))} of {wanted} missing inversions are made")
    with said, job.progress(job.pairs, transfers=False):
        job.invert_missing(job.pairs)
    return sum(p.digest not in job.broken for p in pictures)


def lay_out(config: ModelConfig, cfg: RunConfig, plan: Plan) -> Outcome:
    """Grid and run.json again from what is on disk, without a network; what is missing is listed as failed."""
    check_places(cfg, plan.written(), [*plan.read(), *listed(cfg)])
    records = ((p, read_record(cfg.save_dir / p.result_name)) for p in plan.pairs)
    found = {p.result_name: record for p, record in records if record}
    if not found:
        raise WorkError(f"--grid_only: none of the {len(plan.pairs)} results is in {cfg.save_dir}")
    outcome = Outcome(kept=[p.name for p in plan.pairs if p.result_name in found])
    outcome.failed = {p.name: f"{p.result_name}: not there, or damaged" for p in plan.pairs if p.result_name not in found}
    write_run(cfg, plan, {**asdict(config), **next(iter(found.values())).get("model", {})}, outcome)
    outcome.grid = write_grid(cfg, plan, config.image_size, picture_reader(config.image_size))
    return outcome


def model_record(model: Model) -> dict[str, Any]:
    return {**asdict(model.config), "path": model.path, "device": str(model.device), **model_stamp(model)}
