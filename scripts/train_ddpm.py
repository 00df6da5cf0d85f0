#!/usr/bin/env python3
"""Train an unconditional DDPM on your own pictures, for use with diffstyle.

    python scripts/train_ddpm.py --config my.yml --data FOLDER --out runs/mine

That is the usual eps-prediction, at the size and with the network that my.yml names (configs/avatars.yml is a small one);
--bf16 makes it about twice as fast on a CPU that has bfloat16. --out gets ``ema.pt`` (the weights, loads with --model_path),
``last.pt`` (the same command goes on from it), ``loss.csv`` and ``samples_*.png``. Every draw comes from (seed, iteration), so
a resumed run repeats an uninterrupted one exactly.

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

import argparse
import copy
import logging
import sys
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from training.data import Layers, Pictures, load_data
from training.losses import WEIGHTINGS, Settings, generator, plain_loss
from training.transfers import Walks, transfer_loss
from training.watch import h_influence, sample

from diffstyle.diffusion import make_schedule
from diffstyle.errors import DiffstyleError, UsageError, WorkError
from diffstyle.files import write_whole
from diffstyle.images import save_png, tile, to_image
from diffstyle.model import ModelConfig
from diffstyle.models import build_unet
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config

log = logging.getLogger("train_ddpm")


def learning_rate(s: Settings, iteration: int, until: int, decay: int) -> float:
    """Linear warm-up, constant, then linearly to zero over the last ``decay`` iterations before ``until``."""
    falling = (until - iteration) / decay if decay else 1.0
    return s.lr * min(1.0, (iteration + 1) / s.warmup, falling)


class Trainer:
    """Network, averaged network and optimiser, with everything that a resume needs."""

    def __init__(
        self, config: ModelConfig, settings: Settings, data: Pictures | Layers, out: Path, compiled: bool = False
    ) -> None:
        if settings.transfer and not isinstance(data, Layers):
            raise UsageError("--transfer needs pictures whose shapes and colours are known: make_avatars.py --layers")
        torch.manual_seed(settings.seed)  # the initial weights
        self.config, self.settings, self.data, self.out = config, settings, data, out
        self.schedule = make_schedule(config.beta_schedule, config.beta_start, config.beta_end, config.timesteps)
        self.abar = torch.tensor(self.schedule.values)
        self.unet = build_unet(config.family, config.image_size, config.architecture).to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.unet).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.unet.parameters(), lr=settings.lr, betas=(0.9, 0.99), fused=True)
        self.walks = Walks(round(settings.walks * settings.batch / 2), config.image_size) if settings.transfer else None
        self.iteration = 0
        self.losses: list[float] = []  # since the last entry of loss.csv
        if compiled:
            self.unet.encode, self.unet.decode = torch.compile(self.unet.encode), torch.compile(self.unet.decode)  # type: ignore[method-assign]

    def loss(self) -> Tensor:
        """The loss of the iteration that comes; its draws depend on the seed and the iteration only."""
        s = self.settings
        g = generator(s.seed, self.iteration)
        with torch.autocast("cpu", torch.bfloat16, enabled=s.bf16):
            if self.walks is not None and isinstance(self.data, Layers):
                return transfer_loss(self.unet, self.data, self.abar, s, g, self.walks)
            return plain_loss(self.unet, self.data, self.abar, s, g)

    def step(self, lr: float) -> float:
        """One iteration; returns its loss. Raises WorkError when the loss is not finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        loss = self.loss()
        if not torch.isfinite(loss):
            raise WorkError(f"iteration {self.iteration}: the loss is {loss.item()}; resume with a lower --lr")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        self.iteration += 1
        decay = min(self.settings.ema, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.unet.parameters()), 1 - decay)
        return loss.item()

    def save(self) -> None:
        """Write last.pt (to resume) and ema.pt (to use), each whole or not at all."""
        state = {
            "settings": asdict(self.settings),
            "iteration": self.iteration,
            "losses": self.losses,
            "model": self.unet.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "walks": self.walks.state() if self.walks else {},
        }
        write_whole(self.out / "last.pt", lambda f: torch.save(state, f))
        write_whole(self.out / "ema.pt", lambda f: torch.save(self.ema.state_dict(), f))

    def resume(self) -> None:
        """Go on from last.pt. Raises UsageError when the settings or the network are not those it was made with."""
        path = self.out / "last.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.unet.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.iteration, self.losses = state["iteration"], state["losses"]
            if self.walks:
                self.walks.load(state.get("walks", {}))
        except Exception as error:  # torch.load has no common error
            raise UsageError(f"{path}: cannot be resumed ({str(error).splitlines()[0][:150]}); use another --out") from error
        now = asdict(self.settings)
        changed = [f"{k} {state['settings'].get(k)} -> {v}" for k, v in now.items() if v != state["settings"].get(k)]
        if changed:
            log.warning("resuming with other settings: %s", ", ".join(changed))

    def start_from(self, path: Path) -> None:
        """Begin with the weights of a checkpoint in any format that loads. Raises WorkError when they do not fit."""
        state = load_model(self.config, path, download=False).unet.state_dict()
        self.unet.load_state_dict(state)
        self.ema.load_state_dict(state)

    def report(self) -> None:
        """Append iteration, mean loss since the last entry and h-influence to loss.csv; draw samples to look at."""
        mean = sum(self.losses) / max(1, len(self.losses))
        self.losses = []
        influence = h_influence(self.ema, self.data, self.abar)
        path = self.out / "loss.csv"
        header = "iteration,loss," + ",".join(f"h_influence_{t}" for t in range(400, 1000, 100))
        rows = path.read_text().splitlines() if path.exists() else [header]
        rows = rows[:1] + [r for r in rows[1:] if int(r.split(",")[0]) < self.iteration]  # a resume repeats some
        rows.append(f"{self.iteration},{mean:.6f}," + ",".join(f"{v:.4f}" for v in influence))
        write_whole(path, lambda f: f.write(("\n".join(rows) + "\n").encode()))
        size = self.config.image_size
        pictures = [to_image(x) for x in sample(self.ema, (16, 3, size, size), self.schedule)]
        save_png(self.out / f"samples_{self.iteration:07d}.png", tile([pictures[:8], pictures[8:]], 8, size, 2))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    d = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="the network: a name in configs/ or a path")
    parser.add_argument("--data", required=True, type=Path, help="folder of pictures, or an .npz of make_avatars.py")
    parser.add_argument("--out", required=True, type=Path, help="where weights, losses and samples go; resumes if used before")
    parser.add_argument("--init", type=Path, help="weights to begin with (ema.pt, a published checkpoint) unless --out resumes")
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=d.batch)
    parser.add_argument("--lr", type=float, default=d.lr)
    parser.add_argument("--warmup", type=int, default=d.warmup, help="iterations of linear warm-up")
    parser.add_argument("--decay", type=int, default=0, help="let the learning rate fall to zero over the last N iterations")
    parser.add_argument("--ema", type=float, default=d.ema)
    parser.add_argument("--weighting", choices=WEIGHTINGS, default=d.weighting, help="of the eps error by t: losses.py")
    parser.add_argument("--skip_drop", type=float, default=d.skip_drop)
    parser.add_argument("--twin", type=float, default=d.twin)
    parser.add_argument("--twin_clean", type=float, default=d.twin_clean)
    parser.add_argument("--transfer", type=float, default=d.transfer, help="weight of transfers; --data must be layers")
    parser.add_argument("--walks", type=float, default=d.walks, help="share of transfers that go on from the last iteration's")
    parser.add_argument("--same_shape", type=float, default=d.same_shape, help="share of transfers within one shape")
    parser.add_argument("--transfer_from", type=int, default=d.transfer_from, help="least t at which to transfer")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, with a faster norm if there is a C compiler")
    parser.add_argument("--t_power", type=float, default=d.t_power, help="above 1: low t more often")
    parser.add_argument("--flip", action="store_true", help="mirror half of the pictures")
    parser.add_argument("--seed", type=int, default=d.seed)
    parser.add_argument("--save_every", type=int, default=250, help="iterations between checkpoints")
    parser.add_argument("--report_every", type=int, default=1000, help="iterations between log entries and samples")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    parser.add_argument("--compile", action="store_true", help="torch.compile: minutes to start, then somewhat faster")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stderr)
    try:
        if args.threads:
            torch.set_num_threads(args.threads)
        config = load_config(args.config)
        settings = Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})
        data = load_data(args.data, config.image_size)
        args.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, settings, data, args.out, args.compile)
        if (args.out / "last.pt").exists():
            trainer.resume()
        elif args.init:
            trainer.start_from(args.init)
        with tqdm(total=args.iterations, initial=trainer.iteration, unit="it", smoothing=0.02) as bar:
            while trainer.iteration < args.iterations:
                loss = trainer.step(learning_rate(settings, trainer.iteration, args.iterations, args.decay))
                trainer.losses.append(loss)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()
                if trainer.iteration % args.report_every == 0 or trainer.iteration == args.iterations:
                    trainer.report()
                if trainer.iteration % args.save_every == 0 or trainer.iteration == args.iterations:
                    trainer.save()
    except DiffstyleError as error:
        log.error("error: %s", error)
        return error.exit_code
    except KeyboardInterrupt:
        trainer.save()
        log.error("interrupted at iteration %d; the same command goes on from there", trainer.iteration)
        return 130
    print(args.out / "ema.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
