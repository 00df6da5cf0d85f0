#!/usr/bin/env python3
"""Train an unconditional DDPM on a folder of images (or an .npz), for use with diffstyle.

    python scripts/train_ddpm.py --config avatars.yml --data data/avatars.npz --out runs/avatars

The loss is the usual eps-prediction. Two optional terms make the bottleneck h carry the content, without which the
method has nothing to inject (a small network happily sends everything through its skip connections):

--skip_drop P  for half of the samples, each skip connection is zeroed with probability P (never those of the
               outermost level, which carry the noise itself);
--twin P       for a share P of the samples h is encoded from a *twin*: the same picture in other colours with other
               noise. What the twin knows is the shape, so h learns shape; colours must come by the skips;
--twin_clean R the twin's timestep is t times a random factor in [1 - R, 1]: a cleaner twin is worth listening to.

What it writes to --out: ``ema.pt`` (the weights, loads with --model_path), ``last.pt`` (to resume from), ``loss.csv`` and
``samples_*.png``. Every draw comes from (seed, iteration), so a resumed run repeats an uninterrupted one exactly.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from diffstyle.diffusion import Schedule, ddim_sigma, ddim_step, linear_schedule, predict_x0
from diffstyle.errors import DiffstyleError, UsageError, WorkError
from diffstyle.files import write_whole
from diffstyle.images import load_image, save_png, tile, to_image
from diffstyle.model import ModelConfig
from diffstyle.models import build_unet
from diffstyle.models.hspace_unet import Features, HSpaceUNet
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config

log = logging.getLogger("train_ddpm")


@dataclass(frozen=True)
class Settings:
    """What determines the loss curve; a resumed run must repeat it."""

    batch: int = 16
    lr: float = 1e-3
    warmup: int = 200  # iterations of linear warm-up
    ema: float = 0.999  # decay of the averaged weights; shorter at the start
    weighting: str = "uniform"
    skip_drop: float = 0.0
    twin: float = 0.0
    twin_clean: float = 0.0
    flip: bool = False
    seed: int = 0


def generator(seed: int, iteration: int) -> torch.Generator:
    """All randomness of one iteration: nothing has to be saved for an exact resume."""
    return torch.Generator().manual_seed(seed * 1_000_003 + iteration)


def recolour(x: Tensor, g: torch.Generator) -> Tensor:
    """The twin's picture: every image's colours pushed through a random affine map that keeps only the shape.

    x (N, 3, H, W) in [-1, 1]. A random rotation/reflection of RGB space (QR of a Gaussian), a random contrast in
    [0.4, 1] and a random shift, so neither hue nor lightness can be trusted while every edge stays.
    """
    n = len(x)
    q, _ = torch.linalg.qr(torch.randn(n, 3, 3, generator=g))
    contrast = 0.4 + 0.6 * torch.rand(n, 1, 1, generator=g)
    shift = 0.8 * torch.rand(n, 3, 1, 1, generator=g) - 0.4
    return (torch.einsum("nij,njhw->nihw", q * contrast, x) + shift).clamp(-1, 1)


def drop_skips(f: Features, probability: float, g: torch.Generator) -> Features:
    """For half of the samples, zero each skip connection with this probability; those at full resolution are kept."""
    full = f.skips[0].shape[-1]
    spared = torch.rand(len(f.h), 1, 1, 1, generator=g) < 0.5
    skips = []
    for skip in f.skips:
        keep = (spared | (torch.rand(len(skip), 1, 1, 1, generator=g) >= probability)).to(skip)
        skips.append(skip if skip.shape[-1] == full else skip * keep)
    return f._replace(skips=tuple(skips))


def loss_weights(t: Tensor, abar: Tensor, weighting: str) -> Tensor:
    """Weights (N,) on the eps error: 1, or P2's 1 / (1 + SNR) with SNR = abar / (1 - abar), i.e. 1 - abar."""
    return 1 - abar[t] if weighting == "p2" else torch.ones(len(t))


def training_loss(unet: HSpaceUNet, images: Tensor, abar: Tensor, s: Settings, iteration: int) -> Tensor:
    """The loss of one iteration on uint8 images (N, 3, H, W)."""
    g = generator(s.seed, iteration)
    x0 = images[torch.randint(len(images), (s.batch,), generator=g)].float() / 127.5 - 1
    if s.flip:
        flipped = torch.rand(s.batch, 1, 1, 1, generator=g) < 0.5
        x0 = torch.where(flipped, x0.flip(3), x0)
    t = torch.randint(len(abar), (s.batch,), generator=g)
    eps = torch.randn(x0.shape, generator=g)

    def noised(x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a = abar[t, None, None, None]
        return (a.sqrt() * x + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)

    f = unet.encode(noised(x0, t, eps), t.float())
    twins = round(s.twin * s.batch)
    if twins:
        t_twin = (t * (1 - s.twin_clean * torch.rand(s.batch, generator=g))).long()
        twin = noised(recolour(x0, g), t_twin, torch.randn(x0.shape, generator=g))
        h_twin = unet.encode(twin[:twins], t_twin[:twins].float()).h
        f = f._replace(h=torch.cat([h_twin, f.h[twins:]]))
    if s.skip_drop:
        f = drop_skips(f, s.skip_drop, g)
    error = (unet.decode(f) - eps).square().mean((1, 2, 3))
    return (loss_weights(t, abar, s.weighting) * error).mean()


@torch.inference_mode()
def h_influence(unet: HSpaceUNet, images: Tensor, abar: Tensor) -> list[float]:
    """RMS change of P_t, in [-1, 1] units, when h is swapped for another image's at t = 400, 500 ... 900.

    The small fast number that says whether a network can show the method at all.
    """
    x0 = images[:32].float() / 127.5 - 1
    eps = torch.randn(x0.shape, generator=generator(0, 0))
    changes = []
    for t in range(400, 1000, 100):
        a = float(abar[t])
        x = math.sqrt(a) * x0 + math.sqrt(1 - a) * eps
        f = unet.encode(x, torch.full((len(x),), float(t)))
        swapped = f._replace(h=f.h.roll(1, 0))
        changes.append(
            (predict_x0(x, unet.decode(swapped), a) - predict_x0(x, unet.decode(f), a)).square().mean().sqrt().item()
        )
    return changes


@torch.inference_mode()
def sample(unet: HSpaceUNet, shape: tuple[int, ...], schedule: Schedule, steps: int = 100, seed: int = 1) -> Tensor:
    """Draw pictures (N, 3, H, W) from noise to look at: ancestral sampling (eta 1) with P_t clipped to [-1, 1].

    As published DDPM samplers do. Near t = 999 an error of eps is 160 times as large in P_t, so a small network without
    clipping drifts out of the range of pictures; inversion and regeneration of a given picture never meet that.
    """
    g = generator(seed, 0)
    x = torch.randn(shape, generator=g)
    grid = [int(i) for i in torch.linspace(0, len(schedule) - 1, steps)]
    for t, t_next in zip(reversed(grid), reversed([-1, *grid[:-1]]), strict=True):
        abar, abar_next = schedule(t), schedule(t_next)
        P = predict_x0(x, unet(x, torch.full((len(x),), float(t))), abar).clamp(-1, 1)
        eps = (x - math.sqrt(abar) * P) / math.sqrt(1 - abar)
        x = ddim_step(P, eps, abar_next, ddim_sigma(abar, abar_next, 1), torch.randn(shape, generator=g))
    return x


def learning_rate(s: Settings, iteration: int, until: int, decay: int) -> float:
    """Linear warm-up, constant, then linearly to zero over the last ``decay`` iterations before ``until``."""
    falling = (until - iteration) / decay if decay else 1.0
    return s.lr * min(1.0, (iteration + 1) / s.warmup, falling)


class Trainer:
    """Network, averaged network and optimiser, with everything that a resume needs."""

    def __init__(self, config: ModelConfig, settings: Settings, images: Tensor, out: Path, compiled: bool = False) -> None:
        torch.manual_seed(settings.seed)  # the initial weights
        self.config, self.settings, self.images, self.out = config, settings, images, out
        self.schedule = linear_schedule(config.beta_start, config.beta_end, config.timesteps)
        self.abar = torch.tensor(self.schedule.values)
        self.unet = build_unet(config.family, config.image_size, config.architecture).to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.unet).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.unet.parameters(), lr=settings.lr)
        self.iteration = 0
        self.losses: list[float] = []  # since the last entry of loss.csv
        if compiled:
            self.unet.encode, self.unet.decode = torch.compile(self.unet.encode), torch.compile(self.unet.decode)  # type: ignore[method-assign]

    def step(self, lr: float) -> float:
        """One iteration; returns its loss. Raises WorkError when the loss is not finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        loss = training_loss(self.unet, self.images, self.abar, self.settings, self.iteration)
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
        except Exception as error:  # torch.load has no common error
            raise UsageError(f"{path}: cannot be resumed ({str(error).splitlines()[0][:150]}); use another --out") from error
        now = asdict(self.settings)
        changed = [f"{k} {v} -> {now[k]}" for k, v in state["settings"].items() if v != now[k]]
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
        influence = h_influence(self.ema, self.images, self.abar)
        path = self.out / "loss.csv"
        header = "iteration,loss," + ",".join(f"h_influence_{t}" for t in range(400, 1000, 100))
        rows = path.read_text().splitlines() if path.exists() else [header]
        rows = rows[:1] + [r for r in rows[1:] if int(r.split(",")[0]) < self.iteration]  # a resume repeats some
        rows.append(f"{self.iteration},{mean:.6f}," + ",".join(f"{v:.4f}" for v in influence))
        write_whole(path, lambda f: f.write(("\n".join(rows) + "\n").encode()))
        size = self.config.image_size
        pictures = [to_image(x) for x in sample(self.ema, (16, 3, size, size), self.schedule)]
        save_png(self.out / f"samples_{self.iteration:07d}.png", tile([pictures[:8], pictures[8:]], 8, size, 2))


def load_images(path: Path, size: int) -> Tensor:
    """All training pictures as uint8 (N, 3, size, size), from an .npz with ``images`` (N, H, W, 3) or a folder tree."""
    if path.suffix == ".npz":
        try:
            array = np.load(path)["images"]
        except (OSError, KeyError, ValueError) as error:
            raise UsageError(f"--data {path}: no readable .npz with an array 'images' ({error})") from error
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
            raise UsageError(f"--data {path}: 'images' is {array.dtype} {array.shape}, it must be uint8 (N, H, W, 3)")
        images = torch.from_numpy(array).permute(0, 3, 1, 2)
        if images.shape[2:] != (size, size):
            images = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True).round().byte()
        return images.contiguous()
    known = Image.registered_extensions()
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in known)
    pictures = []
    for file in tqdm(files, desc="reading pictures", leave=False):
        try:
            pictures.append(((load_image(file, size) + 1) * 127.5).round().byte())
        except WorkError as error:
            log.warning("skipped %s", error)
    if not pictures:
        raise UsageError(f"--data {path}: no picture in it")
    return torch.stack(pictures)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    d = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="the network: a name in configs/ or a path")
    parser.add_argument("--data", required=True, type=Path, help="folder of pictures, or .npz with images (N, H, W, 3)")
    parser.add_argument("--out", required=True, type=Path, help="where weights, losses and samples go; resumes if used before")
    parser.add_argument("--init", type=Path, help="weights to begin with (ema.pt, a published checkpoint) unless --out resumes")
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=d.batch)
    parser.add_argument("--lr", type=float, default=d.lr)
    parser.add_argument("--warmup", type=int, default=d.warmup, help="iterations of linear warm-up")
    parser.add_argument("--decay", type=int, default=0, help="let the learning rate fall to zero over the last N iterations")
    parser.add_argument("--ema", type=float, default=d.ema)
    parser.add_argument("--weighting", choices=["uniform", "p2"], default=d.weighting, help="p2: 1 / (1 + SNR)")
    parser.add_argument("--skip_drop", type=float, default=d.skip_drop)
    parser.add_argument("--twin", type=float, default=d.twin)
    parser.add_argument("--twin_clean", type=float, default=d.twin_clean)
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
        images = load_images(args.data, config.image_size)
        args.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, settings, images, args.out, args.compile)
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
