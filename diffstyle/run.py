"""A whole run: plan the pairs, invert each picture once, transfer in batches, save every pair, lay out the grid."""

from __future__ import annotations

import logging
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torchvision
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffstyle.checkpoints import Model
from diffstyle.errors import UsageError, WorkError
from diffstyle.images import (
    Picture,
    list_images,
    load_image,
    read_pictures,
    read_record,
    save_png,
    tile,
    to_image,
    write_json,
)
from diffstyle.latents import LatentCache
from diffstyle.masks import mask_digest
from diffstyle.noise import NextNoise, OfficialNoise, pair_noise
from diffstyle.pipeline import invert_batch, transfer_batch
from diffstyle.settings import Settings
from diffstyle.sources import dataset_images, draw_samples, parse_source

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_GRID = 16384  # pixels a side; beyond it the cells of grid.png shrink


@dataclass(frozen=True)
class RunConfig:
    """Where a run reads and writes, and how; what the pictures depend on is in ``settings``."""

    content_dir: Path
    style_dir: Path
    save_dir: Path
    settings: Settings
    cache_dir: Path | None = None  # None: latents live in a temporary folder during the run
    overwrite: bool = False
    batch_size: int = 4
    show_progress: bool = True


@dataclass(frozen=True)
class Pair:
    """One cell of the grid."""

    index: int  # position in the official order: contents outer, styles inner
    content: Picture
    style: Picture

    @property
    def name(self) -> str:
        return f"content_{self.content.name}_style_{self.style.name}.png"

    @property
    def result_name(self) -> str:
        return f"result_{self.name}"


@dataclass(frozen=True)
class Plan:
    """What a run will do, before any network is touched."""

    contents: list[Picture]
    styles: list[Picture]
    pairs: list[Pair]

    def evaluations(self, settings: Settings) -> int:
        """Network evaluations (one encode and at least one decode, of one picture) when nothing is cached or done."""
        styles = {p.digest for p in self.styles}
        contents = {p.digest for p in self.contents} - styles
        inversions = len(styles) * settings.inversion_evaluations() + len(contents) * settings.inversion_evaluations(False)
        return inversions + len(self.pairs) * settings.transfer_evaluations()


@dataclass
class Report:
    """What a run did."""

    grid: Path | None = None
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # already there, with the same settings
    failed: dict[str, str] = field(default_factory=dict)  # input or pair -> reason
    seconds: float = 0.0


def find_inputs(load: Callable[[], Model], cfg: RunConfig, spec: Path, flag: str) -> list[Path]:
    """The pictures of a folder, of ``dataset:NAME[:N]`` or, drawn now by the model, of ``sample:N``."""
    source = parse_source(str(spec), flag)
    if source is None:
        return list_images(spec, flag)
    if source.kind == "dataset":
        return dataset_images(source, flag)
    if cfg.cache_dir is None:
        raise UsageError(f"{flag} {spec}: a drawn picture's latents are those of its making, so it needs the cache")
    open_folder(cfg.save_dir)
    model = load()
    cache = LatentCache(cfg.cache_dir, cache_key(model, cfg.settings))
    folder = cfg.save_dir / "samples"
    return draw_samples(model, cfg.settings, source.count or 1, folder, cache, cfg.batch_size)


def make_plan(cfg: RunConfig, load: Callable[[], Model]) -> Plan:
    """Every content with every style, both sorted by file name; ``load`` is called only to draw ``sample:N``."""
    contents = read_pictures(find_inputs(load, cfg, cfg.content_dir, "--content_dir"))
    styles = read_pictures(find_inputs(load, cfg, cfg.style_dir, "--style_dir"))
    product = [(c, s) for c in contents for s in styles]
    return Plan(contents, styles, [Pair(i, c, s) for i, (c, s) in enumerate(product)])


def run(model: Model, cfg: RunConfig, plan: Plan | None = None) -> Report:
    """Do what ``cfg`` says and write everything to its save_dir; a broken input fails its own pairs only."""
    start = time.time()
    plan = plan or make_plan(cfg, lambda: model)
    report = Report()
    open_folder(cfg.save_dir)
    size = model.config.image_size

    # Broken pictures are found before the first evaluation, and only their own pairs are lost.
    for picture in {p.path: p for p in [*plan.contents, *plan.styles]}.values():
        try:
            load_image(picture.path, size)
        except WorkError as error:
            log.error("%s", error)
            report.failed[str(picture.path)] = str(error)
    usable = [p for p in plan.pairs if not {str(p.content.path), str(p.style.path)} & set(report.failed)]
    todo = usable if cfg.overwrite else [p for p in usable if not is_done(model, cfg, p)]
    report.kept = [p.name for p in usable if p not in todo]

    temporary = None if cfg.cache_dir else tempfile.mkdtemp(prefix="diffstyle-")
    cache = LatentCache(Path(cfg.cache_dir or temporary or ""), cache_key(model, cfg.settings))
    try:
        with tqdm(total=0, unit="eval", disable=not cfg.show_progress, smoothing=0.05) as bar:
            invert_missing(model, cfg, todo, cache, bar)
            transfer_all(model, cfg, todo, cache, bar, report)
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        report.seconds = time.time() - start
        write_json(cfg.save_dir / "run.json", run_record(model, cfg, plan, report))
    report.grid = write_grid(cfg, plan, size)
    return report


def precompute(model: Model, cfg: RunConfig, paths: list[Path]) -> int:
    """Invert pictures into the cache, ready to serve as content and as style; returns how many are there now."""
    if cfg.cache_dir is None:
        raise UsageError("--just_precompute needs the cache: leave out --no_cache")
    pictures = {}
    for picture in read_pictures(paths):
        try:
            load_image(picture.path, model.config.image_size)
            pictures[picture.digest] = picture
        except WorkError as error:
            log.error("%s", error)
    cache = LatentCache(cfg.cache_dir, cache_key(model, cfg.settings))
    selves = [Pair(i, p, p) for i, p in enumerate(pictures.values())]
    with tqdm(total=0, unit="eval", disable=not cfg.show_progress, smoothing=0.05) as bar:
        invert_missing(model, cfg, selves, cache, bar)
    return len(selves)


def open_folder(folder: Path) -> None:
    """Create save_dir if need be and see that it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WorkError(f"--save_dir {folder}: cannot be written to ({error.strerror})") from error


def cache_key(model: Model, settings: Settings) -> dict[str, Any]:
    """Everything that a latent depends on, besides the picture itself."""
    c = model.config
    return {
        "format": 1,
        "checkpoint": model.digest,
        "size": c.image_size,
        "architecture": dict(c.architecture),
        "schedule": [c.beta_start, c.beta_end, c.timesteps],
        "n_inv": settings.n_inv,
        "t_0": settings.t_0,
        "precision": str(model.dtype),
        **({} if settings.solver == "ddim" else {"solver": settings.solver, "nfe": settings.nfe}),
    }


def invert_missing(model: Model, cfg: RunConfig, todo: Sequence[Pair], cache: LatentCache, bar: tqdm[Any]) -> None:
    """Invert what the pairs read and the cache lacks, each picture once even if it is content and style."""
    s, kept = cfg.settings, cfg.settings.kept()
    need_h = {p.content.digest: p.content for p in todo if cache.get_h(p.content.digest, kept) is None}
    need_x_T = {p.style.digest: p.style for p in todo if cache.get_x_T(p.style.digest) is None}
    # A content's walk ends with the last h that is read, and a style's h is never read.
    both = [p for d, p in need_h.items() if d in need_x_T]
    contents = [p for d, p in need_h.items() if d not in need_x_T]
    styles = [p for d, p in need_x_T.items() if d not in need_h]
    bar.total = (len(both) + len(styles)) * s.inversion_evaluations() + len(contents) * s.inversion_evaluations(False)
    bar.total += len(todo) * s.transfer_evaluations()
    bar.set_description("inversion")
    for pictures, keep, latent in ((both, kept, True), (contents, kept, False), (styles, [], True)):
        for batch in batches(pictures, cfg.batch_size):
            x0 = torch.stack([load_image(p.path, model.config.image_size) for p in batch])
            inversion = invert_batch(model, x0, s, keep, bar.update, latent)
            for i, picture in enumerate(batch):
                if keep:
                    cache.put_h(picture.digest, {t: h[i] for t, h in inversion.h.items()})
                if latent:
                    cache.put_x_T(picture.digest, inversion.x_T[i])


def transfer_all(
    model: Model, cfg: RunConfig, todo: Sequence[Pair], cache: LatentCache, bar: tqdm[Any], report: Report
) -> None:
    """Transfer the pairs batch by batch and save each picture as it is finished."""
    s, kept = cfg.settings, cfg.settings.kept()
    size = model.config.image_size
    shape = (3, size, size)
    draws = sum(step.eta > 0 for step in s.transfer_plan())
    official = OfficialNoise(s.seed, shape, draws, calibrated=s.omega != 0)
    bar.set_description("transfer")
    for batch in batches(todo, cfg.batch_size):
        x_T = torch.stack([fetched(cache.get_x_T(p.style.digest)) for p in batch])
        h_each = [fetched(cache.get_h(p.content.digest, kept)) for p in batch]
        h = {t: torch.stack([each[t] for each in h_each]) for t in kept}
        noise: NextNoise
        if s.noise == "official":
            noise = official.batch([p.index for p in batch])
        else:
            noise = pair_noise(s.seed, [(p.content.digest, p.style.digest) for p in batch], shape)
        for pair, x in zip(batch, transfer_batch(model, x_T, h, s, noise, bar.update), strict=True):
            save_pair(model, cfg, pair, x)
            report.done.append(pair.name)


def fetched(latent: T | None) -> T:
    if latent is None:
        raise WorkError("a latent vanished from the cache while the run was reading it; run again")
    return latent


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]


def save_pair(model: Model, cfg: RunConfig, pair: Pair, x: Tensor) -> None:
    """Write the official stack (style, content, result) and the bare result; the bare result last, it marks the pair done."""
    record, size = pair_record(model, cfg, pair), model.config.image_size
    style, content = (to_image(load_image(p.path, size)) for p in (pair.style, pair.content))
    result = to_image(x)
    save_png(cfg.save_dir / pair.name, tile([[style], [content], [result]], 1, size), record)
    save_png(cfg.save_dir / pair.result_name, result, record)


def pair_record(model: Model, cfg: RunConfig, pair: Pair) -> dict[str, Any]:
    """What goes into the PNG: all that the picture depends on, so that it can be recognised and made again."""
    return {
        "settings": asdict(cfg.settings) | {"mask_sha256": mask_digest(cfg.settings.mask)},
        "model": {"config": model.config.name, "sha256": model.digest, "precision": str(model.dtype).removeprefix("torch.")},
        "content": {"name": pair.content.path.name, "sha256": pair.content.digest},
        "style": {"name": pair.style.path.name, "sha256": pair.style.digest},
    }


def is_done(model: Model, cfg: RunConfig, pair: Pair) -> bool:
    """Whether both files of the pair are there with these very settings."""
    record = pair_record(model, cfg, pair)
    return all(read_record(cfg.save_dir / name) == record for name in (pair.name, pair.result_name))


def run_record(model: Model, cfg: RunConfig, plan: Plan, report: Report) -> dict[str, Any]:
    """run.json: the resolved settings, versions, checkpoint and inputs of a run, and how it went."""
    return {
        "settings": asdict(cfg.settings),
        "run": {k: v for k, v in asdict(cfg).items() if k != "settings"},
        "model": {**asdict(model.config), "path": model.path, "sha256": model.digest, "device": str(model.device),
                  "precision": str(model.dtype).removeprefix("torch.")},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__},
        "contents": [asdict(p) for p in plan.contents],
        "styles": [asdict(p) for p in plan.styles],
        "results": [
            {"content": p.content.name, "style": p.style.name, "stack": p.name, "result": p.result_name} for p in plan.pairs
        ],
        "done": len(report.done),
        "kept": len(report.kept),
        "failed": report.failed,
        "seconds": round(report.seconds, 2),
    }  # fmt: skip


def write_grid(cfg: RunConfig, plan: Plan, size: int) -> Path:
    """Lay out grid.png from the results on disk; a missing picture is a grey cell, large grids get smaller cells."""
    columns = len(plan.styles) + 1
    cell = max(8, min(size, MAX_GRID // max(columns, len(plan.contents) + 1)))
    by_content: dict[Picture, list[Pair]] = {c: [] for c in plan.contents}
    for pair in plan.pairs:
        by_content[pair.content].append(pair)

    def shown(path: Path) -> Image.Image | None:
        try:
            return to_image(load_image(path, size))
        except WorkError:
            return None

    def rows() -> Iterator[list[Image.Image | None]]:
        yield [None, *(shown(s.path) for s in plan.styles)]
        for content, pairs in by_content.items():
            yield [shown(content.path), *(shown(cfg.save_dir / p.result_name) for p in pairs)]

    path = cfg.save_dir / "grid.png"
    save_png(path, tile(rows(), columns, cell), {"settings": asdict(cfg.settings)})
    return path
