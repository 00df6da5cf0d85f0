"""What the page does, without the page: one picture at a time, the newest wish first, made as the command line makes it.

A picture here is a run of one pair: the same plan, the same cache of inversions, the same record. So the command line that
``Given.command`` writes makes the same file, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from PIL import Image

from diffstyle.errors import WorkError
from diffstyle.files import kind_of, open_folder, read_bytes, write_whole
from diffstyle.images import to_image, write_png
from diffstyle.model import Model
from diffstyle.pipeline import cache_key, transfer_walk
from diffstyle.runs.config import RunConfig
from diffstyle.runs.job import Job
from diffstyle.runs.latents import LatentCache
from diffstyle.runs.names import mark, shorten
from diffstyle.runs.plan import Pair, Plan, make_plan
from diffstyle.runs.records import pair_record
from diffstyle.runs.workers import ALONE
from diffstyle.settings import Settings

REMEMBERED = 100  # pictures, so that a slider moved back answers at once
OFTEN = 0.2  # seconds between two states of a picture in the making
CLEAR = 600  # timestep below which P_t looks like something
FLAGS = {"n_inv": "--n_inv_step", "n_gen": "--n_gen_step"}  # fields of Settings whose flag has another name
ALWAYS = ("gamma", "omega", "t_edit", "t_boost")  # said in every command, also where they are the default


@dataclass(frozen=True)
class Wish:
    """A picture that somebody wants to see."""

    content: Path
    style: Path
    settings: Settings


@dataclass(frozen=True)
class Going:
    """How far a picture is, and what the network takes it for at this point (P_t)."""

    done: int  # network evaluations
    total: int
    image: Image.Image | None = None


@dataclass(frozen=True)
class Made:
    """A picture, as the file that the command line would leave."""

    name: str
    png: bytes
    doubts: tuple[str, ...]  # what is odd about its settings
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class Given:
    """What the page was started with, in the words of the command line; every command it writes says them again."""

    config: str = "avatars.yml"
    model_path: str | None = None
    device: str = "auto"
    precision: str = "auto"
    save_dir: Path = Path("results/explore")
    cache_dir: Path = Path("precomputed")

    def command(self, wish: Wish) -> str:
        """The command line that makes this picture, to be started in the same folder."""
        program = ["python", "main.py"] if Path(sys.argv[0]).name == "main.py" else ["diffstyle"]
        words = [*program, "--config", self.config]
        if self.model_path:
            words += ["--model_path", self.model_path]
        words += ["--content_dir", str(wish.content), "--style_dir", str(wish.style), "--save_dir", str(self.save_dir)]
        usual = asdict(Settings.of(variant=wish.settings.variant)) | {"variant": Settings().variant}
        for name, value in asdict(wish.settings).items():
            if name in ALWAYS or value != usual[name]:
                words += [FLAGS.get(name, f"--{name}"), str(value)]
        for flag, word, default in (
            ("--device", self.device, "auto"),
            ("--precision", self.precision, "auto"),
            ("--cache_dir", str(self.cache_dir), "precomputed"),
        ):
            words += [flag, word] if word != default else []
        return shlex.join(words)


class SupersededError(Exception):
    """Somebody wants to see something else by now."""


class Desk:
    """One model and one thread that computes; whoever asks gets the states of the picture as they come."""

    def __init__(self, model: Model, given: Given) -> None:
        self.model, self.given = model, given
        self.newest = 0
        self.lock = threading.Lock()
        self.made: OrderedDict[tuple[Pair, Settings], Made] = OrderedDict()
        # A thread of its own: PyTorch keeps its pool of threads for each thread that calls it.
        self.worker = ThreadPoolExecutor(1, "diffstyle")
        open_folder(given.save_dir, "--save_dir")

    def ticket(self) -> int:
        """A right to the desk; the one drawn last is the only one that counts."""
        with self.lock:
            self.newest += 1
            return self.newest

    def make(self, wish: Wish, ticket: int) -> Iterator[Going | Made]:
        """The states of a picture; Made comes last, or nothing more once a newer ticket is drawn. Raises DiffstyleError."""
        states: SimpleQueue[Going | Made | None] = SimpleQueue()

        def work() -> None:
            try:
                self.work(wish, ticket, states)
            except SupersededError:
                pass
            finally:
                states.put(None)

        future = self.worker.submit(work)
        while state := states.get():
            if ticket == self.newest:
                yield state
        if ticket == self.newest:
            future.result()

    def work(self, wish: Wish, ticket: int, states: SimpleQueue[Any]) -> None:
        start = told = time.monotonic()
        done = total = 0

        def tick(evaluations: int, image: Any = None) -> None:
            nonlocal done, told
            done += evaluations
            if ticket != self.newest:
                raise SupersededError
            if time.monotonic() - told > OFTEN:
                told = time.monotonic()
                states.put(Going(done, total, None if image is None else to_image(image[0])))

        tick(0)
        cfg, plan = self.plan(wish)
        pair = plan.pairs[0]
        if (pair, wish.settings) in self.made:
            self.made.move_to_end((pair, wish.settings))
            states.put(self.made[pair, wish.settings])
            return

        job = Job(self.model, cfg, plan, ALONE, LatentCache(self.given.cache_dir, cache_key(self.model, wish.settings)))
        needs = job.inversions.needs([pair])
        total = sum(map(job.inversions.evaluations, needs)) + wish.settings.transfer_evaluations(self.model.config.grid)
        job.inversions.make([pair], tick)
        for reason in job.outcome.failed.values():
            raise WorkError(reason)
        content, style = job.inversions.of_pairs([pair])
        x = style.x_T
        walk = transfer_walk(self.model, content, style, wish.settings, job.noise([pair]))
        for step, x, x0 in walk:  # noqa: B007  # the last x is wanted
            tick(step.evaluations, x0 if step.t < CLEAR else None)
        if not x.isfinite().all():
            raise WorkError("the result holds numbers that are not finite; try --precision fp32")
        file = io.BytesIO()
        write_png(file, to_image(x[0]), pair_record(job.stamp, cfg, pair))
        doubts = tuple(wish.settings.doubts(self.model.config.timesteps))
        made = Made(pair.result_name, file.getvalue(), doubts, done, time.monotonic() - start)
        self.made[pair, wish.settings] = made
        while len(self.made) > REMEMBERED:
            self.made.popitem(last=False)
        states.put(made)

    def plan(self, wish: Wish) -> tuple[RunConfig, Plan]:
        """The run of one pair that the command would be. Raises UsageError, or WorkError for a file that cannot be read."""
        wish.settings.check(self.model.config.timesteps)
        cfg = RunConfig(
            content_dir=wish.content,
            style_dir=wish.style,
            save_dir=self.given.save_dir,
            settings=wish.settings,
            cache_dir=self.given.cache_dir,
            batch_size=1,
            show_progress=False,
        )
        plan = make_plan(cfg)
        for reason in plan.failed.values():
            raise WorkError(reason)
        return cfg, plan

    @cached_property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the h map, which is what a mask acts on."""
        size = self.model.config.image_size
        with torch.inference_mode():
            x = torch.zeros(1, 3, size, size, device=self.model.device)
            h = self.model.unet.encode(x, torch.zeros(1, device=self.model.device)).h
        return h.shape[-2], h.shape[-1]

    # ---- what is not in the folders ------------------------------------------------------------------------------

    def keep(self, dropped: Path) -> Path:
        """Put a dropped picture where a command can name it, under its own name; the same bytes are kept once.

        Raises WorkError.
        """
        folder, data = self.given.save_dir / "inputs", read_bytes(dropped)
        open_folder(folder, "--save_dir")
        longer = f"{shorten(dropped.stem)}~{mark(hashlib.sha256(data).hexdigest())}{dropped.suffix}"
        for path in (folder / dropped.name, folder / longer):
            if not kind_of(path):
                write_whole(path, lambda f: f.write(data))
            if kind_of(path) == "file" and read_bytes(path) == data:
                return path
        raise WorkError(f"{path}: something else lies there; move it away")

    def keep_mask(self, cells: str) -> str:
        """The mask's file, of rows of 0 and 1 such as "0110/0000" (white takes the content); "" where nothing is painted.

        Raises WorkError for cells that are not those of h.
        """
        height, width = self.map_size
        rows = str(cells).split("/")
        if [len(row) for row in rows] != [width] * height or not set(cells) <= set("01/"):
            raise WorkError(f"that is no mask of {height} rows of {width} cells")
        if "1" not in cells:
            return ""
        image = Image.new("L", (width, height))
        image.putdata([255 * int(cell) for row in rows for cell in row])
        file = io.BytesIO()
        image.save(file, format="PNG")
        folder = self.given.save_dir / "masks"
        open_folder(folder, "--save_dir")
        path = folder / f"mask_{mark(cells)}.png"
        if kind_of(path) != "file" or read_bytes(path) != file.getvalue():
            write_whole(path, lambda f: f.write(file.getvalue()))
        return str(path)
