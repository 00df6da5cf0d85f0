"""What a run will do, before any network is touched: which pictures, which pairs, which files they become."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffstyle.errors import UsageError
from diffstyle.masks import build_mask, mask_file
from diffstyle.runs.config import LAYOUTS, RunConfig
from diffstyle.runs.inputs import Input, Picture, list_images, path_of, read_pictures
from diffstyle.runs.names import distinct, fold, shorten
from diffstyle.runs.pairs import Finder, Row, read_rows
from diffstyle.runs.places import check_places
from diffstyle.runs.sources import SAMPLES, dataset_images, parse_source, samples
from diffstyle.settings import Settings
from diffstyle.steps import Grid

log = logging.getLogger(__name__)
Changes = tuple[tuple[str, float], ...]  # fields of Settings and their values


@dataclass(frozen=True)
class Pair:
    """One content in one style: a cell of the grid."""

    index: int  # position in the official order: contents outer, styles inner; or the order of the list
    content: Picture
    style: Picture
    stem: str
    folder: str = ""  # below save_dir
    changes: Changes = ()  # what this pair's settings say other than the run's

    @property
    def name(self) -> str:
        """The file of the stack style, content, result, relative to save_dir."""
        return os.path.join(self.folder, f"{self.stem}.png")

    def settings(self, of_run: Settings) -> Settings:
        return replace(of_run, **dict(self.changes)) if self.changes else of_run  # type: ignore[arg-type]  # seed is an int

    @property
    def result_name(self) -> str:
        """The file of the bare result, relative to save_dir."""
        return os.path.join(self.folder, f"result_{self.stem}.png")


@dataclass(frozen=True)
class Plan:
    """The pictures and pairs of a run."""

    contents: list[Picture]
    styles: list[Picture]
    pairs: list[Pair]
    failed: dict[str, str] = field(default_factory=dict)  # path of an input that cannot be read -> why

    def evaluations(self, *runs: Settings, grid: Grid) -> int:
        """Network evaluations (one encode and at least one decode, of one picture) when nothing is cached or done.

        Of several runs, those that invert alike share their inversions. A sample is drawn instead.
        """
        pictures = {p.digest: p for p in (*self.contents, *self.styles)}
        drawing = sum(p.sample.n_gen for p in pictures.values() if p.sample)
        styles = {p.digest for p in self.styles if not p.sample}
        contents = {p.digest for p in self.contents if not p.sample} - styles
        total = 0
        for own in {(s.n_inv, s.t_0, s.solver, s.nfe): s for s in runs}.values():
            total += len(styles) * own.inversion_evaluations(True, grid) + drawing
            total += len(contents) * own.inversion_evaluations(False, grid)
        for settings in runs:
            alike = Counter(pair.settings(settings) for pair in self.pairs)
            total += sum(count * own.transfer_evaluations(grid) for own, count in alike.items())
        return total

    def written(self) -> Iterator[str]:
        """Every file of the pairs and every sample, relative to save_dir."""
        for pair in self.pairs:
            yield from (pair.name, pair.result_name)
        yield from self.drawn()

    def drawn(self) -> Iterator[str]:
        """Every sample, relative to save_dir."""
        yield from (os.path.join(SAMPLES, p.path.name) for p in (*self.contents, *self.styles) if p.sample)

    def read(self) -> Iterator[Path]:
        """Every picture that is not drawn by the model."""
        yield from dict.fromkeys(p.path for p in (*self.contents, *self.styles) if not p.sample)

    def is_product(self) -> bool:
        """Whether the pairs are every content with every style, in order."""
        product = ((c, s) for c in self.contents for s in self.styles)
        return len(self.pairs) == len(self.contents) * len(self.styles) and all(
            (pair.content, pair.style) == cell for pair, cell in zip(self.pairs, product, strict=True)
        )


def make_plan(cfg: RunConfig) -> Plan:
    """Every content with every style, both sorted by file name; or the pairs of a list. Nothing is written.

    Raises UsageError, also where the run would write over one of its own inputs, and WorkError for a mask that is no picture.
    """
    if cfg.layout not in LAYOUTS:
        raise UsageError(f"--layout {cfg.layout} is not known: use {', '.join(LAYOUTS)}")
    build_mask(cfg.settings.mask, (8, 8))
    plan = plan_list(cfg, cfg.pairs) if cfg.pairs else plan_product(cfg)
    check_places(cfg, plan.written(), [*plan.read(), *listed(cfg)])
    return plan


def listed(cfg: RunConfig) -> list[Path]:
    """The files besides pictures that a run reads: the list and the mask."""
    return [path for path in (cfg.pairs, mask_file(cfg.settings.mask)) if path]


def plan_product(cfg: RunConfig) -> Plan:
    content_inputs = find_inputs(cfg, cfg.content_dir, "--content_dir")
    contents, styles, failed = read_sides(cfg, content_inputs, find_inputs(cfg, cfg.style_dir, "--style_dir"))
    product = [(c, s) for c in contents for s in styles]
    stems = [f"content_{c.name}_style_{s.name}" for c, s in product]
    return Plan(contents, styles, name_pairs(cfg, product, [()] * len(product), stems), failed)


def find_inputs(cfg: RunConfig, spec: Path, flag: str) -> list[Input]:
    """The pictures of a folder, of ``dataset:NAME[:N]`` or, to be drawn by the model, of ``sample:N``. Raises UsageError."""
    source = parse_source(str(spec), flag)
    if source is None:
        ours = [cfg.save_dir, *([cfg.cache_dir] if cfg.cache_dir else [])]
        return [*list_images(spec, flag, cfg.recursive, ours)]
    if source.kind == "dataset":
        return [*dataset_images(source, flag)]
    if cfg.cache_dir is None:
        raise UsageError(f"{flag} {spec}: a drawn picture's latents are those of its making, so it needs the cache")
    return [*samples(source.count or 1, cfg.settings, cfg.save_dir)]


def plan_list(cfg: RunConfig, listing: Path) -> Plan:
    """The pairs of a CSV, in its order; lines that say the same are done once."""
    find = Finder(listing)
    rows: dict[tuple[Path, Path, Changes, str], Row] = {}
    for row in read_rows(listing):
        where = f"--pairs {listing}, line {row.line}"
        if cfg.settings.noise == "official" and row.changes.keys() & {"omega", "seed"}:
            raise UsageError(f"{where}: --noise official is one stream for all pairs, a row cannot have its own omega or seed")
        changes = tuple(row.changes.items())
        if changes:
            try:
                replace(cfg.settings, **row.changes).check()  # type: ignore[arg-type]  # seed is an int
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from None
        key = (find(row.content, cfg.content_dir, row.line), find(row.style, cfg.style_dir, row.line), changes, row.name)
        if key in rows:
            log.info("%s: the same as line %d, done once", where, rows[key].line)
        rows.setdefault(key, row)

    named: dict[str, Row] = {}
    for row in rows.values():
        other = named.setdefault(fold(row.name), row) if row.name else row
        if other is not row:
            raise UsageError(f"--pairs {listing}, line {row.line}: the name {row.name!r} is taken by line {other.line}")

    # Each side in order of first appearance.
    content_paths, style_paths = list(dict.fromkeys(k[0] for k in rows)), list(dict.fromkeys(k[1] for k in rows))
    contents, styles, failed = read_sides(cfg, content_paths, style_paths)
    by_content = dict(zip(content_paths, contents, strict=True))
    by_style = dict(zip(style_paths, styles, strict=True))
    cells = [(by_content[c], by_style[s]) for c, s, _, _ in rows]
    stems = [row.name or f"content_{c.name}_style_{s.name}{row.suffix}" for row, (c, s) in zip(rows.values(), cells, strict=True)]
    return Plan(contents, styles, name_pairs(cfg, cells, [k[2] for k in rows], stems), failed)


def read_sides(
    cfg: RunConfig, contents: Sequence[Input], styles: Sequence[Input]
) -> tuple[list[Picture], list[Picture], dict[str, str]]:
    read_contents, failed = read_pictures(contents, root_of(contents), cfg.exif)
    read_styles, failed_styles = read_pictures(styles, root_of(styles), cfg.exif)
    return read_contents, read_styles, {**failed, **failed_styles}


def root_of(inputs: Sequence[Input]) -> Path:
    """The folder that all of them lie under."""
    return Path(os.path.commonpath([os.path.abspath(path_of(each).parent) for each in inputs]))


def name_pairs(
    cfg: RunConfig, cells: Sequence[tuple[Picture, Picture]], changes: Sequence[Changes], stems: Sequence[str]
) -> list[Pair]:
    """Pairs whose files never collide, whatever the inputs are called. Raises UsageError if a list makes them."""
    folders = [""] * len(cells)
    if cfg.layout != "flat":
        folders = [f"style_{s.name}" if cfg.layout == "by-style" else f"content_{c.name}" for c, s in cells]
        folders = [shorten(folder) for folder in folders]
    # Also "content_a_style_b" + "c" against "content_a" + "b_style_c".
    stems = distinct(stems, [f"{c.path}\0{s.path}\0{own}" for (c, s), own in zip(cells, changes, strict=True)])
    pairs = [
        Pair(i, c, s, stem, folder, own)
        for i, ((c, s), own, stem, folder) in enumerate(zip(cells, changes, stems, folders, strict=True))
    ]
    taken: dict[str, Pair] = {}
    for pair in pairs:
        for name in (pair.name, pair.result_name):
            other = taken.setdefault(fold(name), pair)
            if other is not pair:
                raise UsageError(f"two pairs would be saved as {name} (content {other.content.path}, content "
                                 f"{pair.content.path}): give the rows other names")  # fmt: skip
    return pairs
