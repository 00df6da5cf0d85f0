#!/usr/bin/env python3
"""Train an unconditional DDPM on your own pictures, for use with diffstyle.

    python scripts/train_ddpm.py --config my.yml --data FOLDER --out runs/mine

That is the usual eps-prediction, at the size and with the network that my.yml names (configs/avatars.yml is a small one), on
a GPU if there is one; --precision bf16 makes it faster there, and about twice as fast on a CPU that has bfloat16. --out gets
``ema.pt`` (the weights, loads with --model_path), ``last.pt`` (the same command goes on from it), ``loss.csv`` and
``samples_*.png``. Every draw comes from (seed, iteration), so a resumed run repeats an uninterrupted one exactly. Several GPUs
share each batch of --batch pictures, for the weights of one up to rounding:

    torchrun --nproc_per_node 4 scripts/train_ddpm.py --batch 64 ...

A small network sends everything through its skip connections, and then the method has nothing to inject. Terms against
that, for any pictures:

--skip_drop P  for half of the samples, each skip connection is zeroed with probability P (never those of the
               outermost level, which carry the noise itself);
--twin P       for a share P of the samples h is encoded from a *twin*: the same picture in other colours with other
               noise. What the twin knows is the shape, so h learns shape; colours must come by the skips;
--twin_clean R the twin's timestep is t times a random factor in [1 - R, 1]: a cleaner twin is worth listening to.

And where the truth of a transfer is known, because shapes and colours were drawn apart (make_avatars.py --layers):

--transfer W   pictures swap their h in pairs, as the method does it, and are to become their partner's shape in their
               own colours; W weighs this against the plain loss. The embedded model is made so (pretrained/README.md).
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports, too, is one line
    from diffstyle.console import until_work

    until_work()

import argparse
import copy
import io
import logging
import math
import signal
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from training.data import Layers, Pictures, load_data
from training.device import HERE, Draws, Place, computing
from training.losses import WEIGHTINGS, Settings, plain_loss
from training.options import Parser, check, real, whole
from training.transfers import STRIDE, Walks, transfer_loss
from training.watch import WATCHED, h_influence, sample

from diffstyle.console import exit_code, lossy_streams, postponed
from diffstyle.diffusion import make_schedule
from diffstyle.errors import Interrupted, UsageError, WorkError, one_line
from diffstyle.files import check_regular, open_folder, read_bytes, write_whole
from diffstyle.images import save_png, tile, to_image
from diffstyle.model import ModelConfig
from diffstyle.models import build_unet
from diffstyle.runs.background import leaving
from diffstyle.runs.records import remove_leftovers
from diffstyle.runs.workers import find_share
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config

log = logging.getLogger("train_ddpm")


def learning_rate(s: Settings, iteration: int, until: int, decay: int) -> float:
    """Linear warm-up, constant, then linearly to zero over the last ``decay`` iterations before ``until``."""
    falling = (until - iteration) / decay if decay else 1.0
    return s.lr * min(1.0, (iteration + 1) / s.warmup if s.warmup else 1.0, falling)


class Trainer:
    """Network, averaged network and optimiser, with everything that a resume needs."""

    def __init__(
        self,
        config: ModelConfig,
        settings: Settings,
        data: Pictures | Layers,
        out: Path,
        compiled: bool = False,
        place: Place = HERE,
    ) -> None:
        if settings.transfer and not isinstance(data, Layers):
            raise UsageError("--transfer needs pictures whose shapes and colours are known: make_avatars.py --layers")
        torch.manual_seed(settings.seed)  # the initial weights
        self.config, self.settings, self.data, self.out, self.place = config, settings, data, out, place
        self.schedule = make_schedule(config.beta_schedule, config.beta_start, config.beta_end, config.timesteps)
        self.abar = torch.tensor(self.schedule.values)
        unet = build_unet(config.family, config.image_size, config.architecture)
        self.unet = unet.to(place.device).to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.unet).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.unet.parameters(), lr=settings.lr, betas=(0.9, 0.99), fused=True)
        walks = round(settings.walks * settings.batch / 2)
        self.walks = Walks(walks, config.image_size, place.device) if settings.transfer else None
        self.iteration = 0
        self.running: deque[Callable[[], Tensor]] = deque()  # losses that a GPU may still be computing
        self.losses: list[float] = []  # since the last entry of loss.csv
        if compiled:
            self.unet.encode, self.unet.decode = torch.compile(self.unet.encode), torch.compile(self.unet.decode)  # type: ignore[method-assign]

    def loss(self) -> Tensor:
        """The loss of the iteration that comes; its draws depend on the seed and the iteration only."""
        s = self.settings
        g = Draws(s.seed, self.iteration, self.place)
        with torch.autocast(self.place.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            if self.walks is not None and isinstance(self.data, Layers):
                return transfer_loss(self.unet, self.data, self.abar, s, g, self.walks)
            return plain_loss(self.unet, self.data, self.abar, s, g)

    def step(self, lr: float) -> float:
        """One iteration; returns the last loss that is known. A GPU is not waited for: there it is the one before."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        loss = self.loss()
        self.optimiser.zero_grad()
        loss.backward()
        loss = loss.detach()
        self.place.average([loss, *(p.grad for p in self.unet.parameters() if p.grad is not None)])
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        self.iteration += 1
        decay = min(self.settings.ema, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.unet.parameters()), 1 - decay)
        self.running.append(leaving(loss))
        return self.settle(0 if self.place.device.type == "cpu" else 1)

    def settle(self, running: int = 0) -> float:
        """Note the losses of all iterations but the last few, and return the last. Raises WorkError when one is not finite."""
        loss = math.nan
        while len(self.running) > running:
            loss = self.running.popleft()().item()
            if not math.isfinite(loss):
                iteration = self.iteration - 1 - len(self.running)
                raise WorkError(f"iteration {iteration}: the loss is {loss}; resume with a lower --lr")
            self.losses.append(loss)
        return loss

    def save(self) -> None:
        """Write last.pt (to resume) and ema.pt (to use), each whole or not at all; of several processes the first does it."""
        self.settle()
        if not self.place.share.first:
            return
        state = {
            "settings": asdict(self.settings),
            "iteration": self.iteration,
            "losses": self.losses,
            "model": self.unet.state_dict(),
            "ema": {name: x.cpu() for name, x in self.ema.state_dict().items()},
            "optimiser": self.optimiser.state_dict(),
            "walks": self.walks.state() if self.walks else {},
        }
        for name, content in (("ema.pt", state["ema"]), ("last.pt", state)):  # killed in between, a resume makes ema.pt again
            whole = io.BytesIO()  # to a full disk torch.save raises what says nothing of it
            torch.save(content, whole)
            write_whole(self.out / name, lambda f, whole=whole: f.write(whole.getbuffer()))  # type: ignore[misc]

    def resume(self) -> None:
        """Go on from last.pt. Raises UsageError when the settings or the network are not those it was made with."""
        path = self.out / "last.pt"
        check_regular(path)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.unet.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.iteration, self.losses = int(state["iteration"]), [float(loss) for loss in state["losses"]]
            if self.walks:
                self.walks.load(state.get("walks", {}))
            before = dict(state["settings"])
        except Exception as error:  # torch.load has no common error
            raise UsageError(f"{path}: cannot be resumed ({one_line(error)[:150]}); use another --out") from error
        before.setdefault("precision", "bf16" if before.get("bf16") else "fp32")  # as older files say it
        changed = [f"{k} {before.get(k)} -> {v}" for k, v in asdict(self.settings).items() if v != before.get(k)]
        if changed:
            log.warning("resuming with other settings: %s", ", ".join(changed))

    def start_from(self, path: Path) -> None:
        """Begin with the weights of a checkpoint in any format that loads. Raises WorkError when they do not fit."""
        state = load_model(self.config, path, download=False).unet.state_dict()
        self.unet.load_state_dict(state)
        self.ema.load_state_dict(state)

    def report(self) -> None:
        """Append iteration, mean loss since the last entry and h-influence to loss.csv; draw samples to look at."""
        self.settle()
        mean = sum(self.losses) / max(1, len(self.losses))
        self.losses = []
        if not self.place.share.first:
            return
        influence = h_influence(self.ema, self.data, self.abar, self.place.device)
        path = self.out / "loss.csv"
        header = "iteration,loss," + ",".join(f"h_influence_{t}" for t in WATCHED)
        try:
            rows = read_bytes(path).decode().splitlines() if path.exists() else [header]
            rows = rows[:1] + [r for r in rows[1:] if int(r.split(",")[0]) < self.iteration]  # a resume repeats some
        except ValueError as error:
            raise WorkError(f"{path}: not the losses that this trainer wrote; move it away") from error
        rows.append(f"{self.iteration},{mean:.6f}," + ",".join(f"{v:.4f}" for v in influence))
        write_whole(path, lambda f: f.write(("\n".join(rows) + "\n").encode()))
        size = self.config.image_size
        pictures = [to_image(x) for x in sample(self.ema, (16, 3, size, size), self.schedule, device=self.place.device)]
        save_png(self.out / f"samples_{self.iteration:07d}.png", tile([pictures[:8], pictures[8:]], 8, size, 2))


def train(trainer: Trainer, args: argparse.Namespace) -> None:
    """Iterate up to ``args.iterations``. A signal is acted on between two iterations only, for no save to hold half of one.

    All processes act on one that any of them got. What an iteration leaves of a GPU's memory the pictures may have.
    """
    place, begun = trainer.place, trainer.iteration
    bar = tqdm(total=args.iterations, initial=begun, unit="it", smoothing=0.02, disable=not place.share.first)
    with postponed() as signals, bar:
        while trainer.iteration < args.iterations and not place.anywhere(bool(signals)):
            loss = trainer.step(learning_rate(trainer.settings, trainer.iteration, args.iterations, args.decay))
            if trainer.iteration == begun + 1:
                trainer.data.keep_on(place.device)
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            if trainer.iteration % args.report_every == 0 or trainer.iteration == args.iterations:
                trainer.report()
            if trainer.iteration % args.save_every == 0 and trainer.iteration < args.iterations:
                trainer.save()
        trainer.save()
        if trainer.iteration < args.iterations:
            stop = Interrupted(signals[0] if signals else signal.SIGTERM)
            stop.progress = f"saved at iteration {trainer.iteration}"
            raise stop


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    d = Settings()
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="the network: a name in configs/ or a path")
    parser.add_argument("--data", required=True, type=Path, help="folder of pictures, or an .npz of make_avatars.py")
    parser.add_argument("--out", required=True, type=Path, help="where weights, losses and samples go; resumes if used before")
    parser.add_argument("--init", type=Path, help="weights to begin with (ema.pt, a published checkpoint) unless --out resumes")
    parser.add_argument("--iterations", type=whole(0, 10**9), default=100_000)
    parser.add_argument("--batch", type=whole(1, 65536), default=d.batch, help="pictures an iteration, of all processes together")
    parser.add_argument("--lr", type=real(1e-12, 1e3), default=d.lr)
    parser.add_argument("--warmup", type=whole(0, 10**9), default=d.warmup, help="iterations of linear warm-up; 0: none")
    parser.add_argument("--decay", type=whole(0, 10**9), default=0, help="iterations at the end in which the rate falls to 0")
    parser.add_argument("--ema", type=real(0, 1), default=d.ema)
    parser.add_argument("--weighting", choices=WEIGHTINGS, default=d.weighting, help="of the eps error by t: losses.py")
    parser.add_argument("--skip_drop", type=real(0, 1), default=d.skip_drop)
    parser.add_argument("--twin", type=real(0, 1), default=d.twin)
    parser.add_argument("--twin_clean", type=real(0, 1), default=d.twin_clean)
    parser.add_argument("--transfer", type=real(0, 1e6), default=d.transfer, help="weight of transfers; --data must be layers")
    parser.add_argument("--walks", type=real(0, 1), default=d.walks, help="share of transfers that go on from the last one's")
    parser.add_argument("--same_shape", type=real(0, 1), default=d.same_shape, help="share of transfers within one shape")
    parser.add_argument("--transfer_from", type=whole(STRIDE, 999), default=d.transfer_from, help="least t at which to transfer")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (cuda:1 ...) or mps")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default=d.precision, help="bf16: bfloat16 autocast")
    parser.add_argument("--bf16", action="store_const", const="bf16", dest="precision", help="the same as --precision bf16")
    parser.add_argument("--uneven", type=real(0, 1), default=d.uneven, help="noise that looks like a walk's errors: losses.py")
    parser.add_argument("--t_power", type=real(1e-3, 1e3), default=d.t_power, help="above 1: low t more often")
    parser.add_argument("--flip", action="store_true", help="mirror half of the pictures")
    parser.add_argument("--seed", type=whole(0, 2**32), default=d.seed)
    parser.add_argument("--save_every", type=whole(1, 10**9), default=250, help="iterations between checkpoints")
    parser.add_argument("--report_every", type=whole(1, 10**9), default=1000, help="iterations between log entries and samples")
    parser.add_argument("--threads", type=whole(1, 1024), help="CPU threads of PyTorch")
    parser.add_argument("--compile", action="store_true", help="torch.compile: minutes to start, then somewhat faster")
    return parser.parse_args(argv)


def work(args: argparse.Namespace) -> None:
    config, share = load_config(args.config), find_share(None)
    check(config, args.batch, args.transfer, share.count)
    settings = Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})
    with computing(args.device, args.precision, share) as place:
        if args.threads:
            torch.set_num_threads(args.threads)
        open_folder(args.out, "--out")
        remove_leftovers([args.out])
        data = load_data(args.data, config.image_size)
        trainer = Trainer(config, settings, data, args.out, args.compile, place)
        if (args.out / "last.pt").exists():
            trainer.resume()
        elif args.init:
            trainer.start_from(args.init)
        train(trainer, args)
    if share.first:
        print(args.out / "ema.pt")


def main(argv: list[str] | None = None) -> int:
    with lossy_streams():
        args = parse_args(argv)
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stderr)
        return exit_code(lambda: work(args), memory="lower --batch or take a smaller network")


if __name__ == "__main__":
    sys.exit(main())
