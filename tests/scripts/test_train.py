"""The trainer: it learns, an interrupted run repeats an uninterrupted one, what it writes loads with --model_path."""

from __future__ import annotations

from pathlib import Path

import loss_curve
import numpy as np
import pytest
import torch
import train_ddpm
from PIL import Image
from train_ddpm import Trainer, learning_rate
from training.data import Layers, Pictures, load_data
from training.device import Draws
from training.losses import Settings, draw_noise, drop_skips, loss_weights, recolour
from training.transfers import Walks, transfer_loss
from training.watch import sample

import diffstyle
from diffstyle.diffusion import linear_schedule
from diffstyle.models import build_unet
from diffstyle.models.hspace_unet import Features
from diffstyle.zoo.config import load_config

pytestmark = pytest.mark.usefixtures("few_steps_a_sample")
TINY = """
data: {dataset: CUSTOM, image_size: 8}
model: {type: ddpm, ch: 32, ch_mult: [1, 1], num_res_blocks: 1, attn_resolutions: []}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(TINY)
    return path


def pictures(n: int = 64) -> np.ndarray:
    """Two-coloured 8x8 pictures, uint8 (n, 8, 8, 3)."""
    rng = np.random.default_rng(0)
    images = np.repeat(rng.integers(0, 256, (n, 1, 1, 3), dtype=np.uint8), 8, 1).repeat(8, 2)
    images[:, 2:6, 2:6] = 255 - images[:, 2:6, 2:6]
    return images


def layers(n: int = 16) -> dict[str, np.ndarray]:
    """Shapes for Layers: a square of random place on a ground, its corner pixel always black; 8x8, 50 colourings."""
    rng = np.random.default_rng(1)
    weights = np.zeros((n, 8, 8, 4), np.uint8)
    weights[..., 0] = 255
    for one in weights:
        y, x = rng.integers(0, 5, 2)
        one[y : y + 4, x : x + 4] = (0, 255, 0, 0)
    constant = np.full((n, 8, 8, 3), 0, np.uint8)
    weights[:, 0, 0] = 0
    return {"constant": constant, "weights": weights, "colours": rng.integers(0, 256, (50, 4, 3), dtype=np.uint8)}


def command(config: Path, out: Path, data: Path, *extra: str) -> list[str]:
    return ["--config", str(config), "--data", str(data), "--out", str(out), "--threads", "1", *extra]


def test_the_loss_falls(config: Path, tmp_path: Path) -> None:
    data = Pictures(torch.from_numpy(pictures()).permute(0, 3, 1, 2))
    trainer = Trainer(load_config(config), Settings(batch=16, lr=3e-3, warmup=20), data, tmp_path)
    losses = [trainer.step(3e-3) for _ in range(150)]
    assert losses[0] > 0.8
    assert np.mean(losses[-30:]) < 0.25


def test_resume_repeats_an_uninterrupted_run(config: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, images=pictures())
    common = ["--batch", "4", "--report_every", "3", "--save_every", "3", "--twin", "0.5", "--skip_drop", "0.5"]
    common += ["--twin_clean", "0.5", "--flip", "--weighting", "p2", "--iterations"]
    assert train_ddpm.main(command(config, tmp_path / "whole", data, *common, "9")) == 0
    assert train_ddpm.main(command(config, tmp_path / "parts", data, *common, "3")) == 0
    assert train_ddpm.main(command(config, tmp_path / "parts", data, *common, "9")) == 0
    whole, parts = (tmp_path / name for name in ("whole", "parts"))
    assert (whole / "loss.csv").read_text() == (parts / "loss.csv").read_text()
    assert len((whole / "loss.csv").read_text().splitlines()) == 4
    a, b = (torch.load(p / "ema.pt", weights_only=True) for p in (whole, parts))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert (whole / "samples_0000009.png").exists()
    model = diffstyle.load(config, whole / "ema.pt", device="cpu")
    x = torch.zeros(1, 3, 8, 8)
    assert diffstyle.stylize(model, x, x, n_inv=3, n_gen=3, content_replace_step=3).shape == (1, 1, 3, 8, 8)


def test_init_begins_with_given_weights(config: Path, tmp_path: Path) -> None:
    data, weights = tmp_path / "data.npz", tmp_path / "w.pt"
    np.savez(data, images=pictures(4))
    given = build_unet("ddpm", 8, {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": []}).state_dict()
    torch.save(given, weights)
    assert train_ddpm.main(command(config, tmp_path / "out", data, "--init", str(weights), "--iterations", "0")) == 0
    trainer = Trainer(load_config(config), Settings(), Pictures(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), tmp_path)
    trainer.start_from(weights)
    assert all(torch.equal(trainer.ema.state_dict()[k], v) for k, v in given.items())


def test_folder_of_pictures(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    for i, array in enumerate(pictures(3)):
        Image.fromarray(array).resize((20, 30)).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    assert len(load_data(tmp_path / "folder", 8)) == 3


def test_transfers_need_layers(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, images=pictures(4))
    assert train_ddpm.main(command(config, tmp_path / "out", data, "--transfer", "1")) == 2
    assert capsys.readouterr().err.startswith("error: --transfer needs")


def test_learning_rate() -> None:
    s = Settings(lr=1.0, warmup=10)
    assert learning_rate(s, 0, 100, 0) == pytest.approx(0.1)
    assert learning_rate(s, 50, 100, 20) == 1.0
    assert learning_rate(s, 90, 100, 20) == pytest.approx(0.5)
    assert learning_rate(Settings(lr=1.0, warmup=0), 0, 100, 0) == 1.0


def test_twins_keep_the_edges_and_lose_the_colours() -> None:
    x = torch.from_numpy(pictures(16)).permute(0, 3, 1, 2).float() / 127.5 - 1
    twin = recolour(x, Draws(0, 0))
    assert twin.abs().max() <= 1 and (twin - x).abs().mean() > 0.2
    flat = (x - x[..., :1, :1]).abs().sum(1) == 0  # where the picture equals its corner
    assert ((twin - twin[..., :1, :1]).abs().sum(1)[flat] < 1e-5).all()


def test_skips_are_dropped_for_half_of_the_samples_and_never_at_full_resolution() -> None:
    unet = build_unet("ddpm", 8, {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1})
    with torch.inference_mode():
        f = unet.encode(torch.randn(200, 3, 8, 8), torch.zeros(200))
        dropped = drop_skips(f, 1.0, Draws(0, 0))
    for before, after in zip(f.skips, dropped.skips, strict=True):
        zero = (after.flatten(1) == 0).all(1)
        assert zero.sum() == 0 if before.shape[-1] == 8 else 60 < zero.sum() < 140
        assert torch.equal(after[~zero], before[~zero])


class Oracle(torch.nn.Module):
    """Knows the one clean picture."""

    def __init__(self, x0: torch.Tensor) -> None:
        super().__init__()
        self.x0 = x0

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        abar = torch.tensor(linear_schedule().values)[int(t[0])]
        return (x - abar.sqrt() * self.x0) / (1 - abar).sqrt()


def test_samples_are_the_pictures_that_the_network_knows_clipped() -> None:
    x0 = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert x0.abs().max() > 2
    found = sample(Oracle(x0), (2, 3, 8, 8), linear_schedule(), steps=20)  # type: ignore[arg-type]
    assert torch.allclose(found, x0.clamp(-1, 1), atol=1e-4)


def test_loss_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "loss.csv"
    table.write_text("iteration,loss,h_influence_400\n50,0.5,\n100,0.25,0.1\n")
    assert loss_curve.main([str(table), "--out", str(tmp_path / "loss.png")]) == 0
    assert Image.open(tmp_path / "loss.png").size == (1000, 360)
    table.write_text("iteration,loss,h_influence_400,psnr_quickstart\n50,0.5,,\n100,0.25,0.1,14.5\n")
    assert loss_curve.main([str(table), "--out", str(tmp_path / "loss.png")]) == 0
    assert Image.open(tmp_path / "loss.png").size == (1500, 360)
    table.write_text("something else\n1\n")
    assert loss_curve.main([str(table), "--out", str(tmp_path / "other.png")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {table}: not a loss.csv (")


# ---- layers and transfers


def test_layers_paint_any_shape_in_any_colours() -> None:
    arrays = layers()
    data = Layers(*map(torch.from_numpy, arrays.values()))
    x = data.paint(torch.tensor([3, 5]), torch.tensor([7, 7]))
    drawn = ((x + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    for picture, shape in zip(drawn, (3, 5), strict=True):
        inside = arrays["weights"][shape, ..., 1] == 255
        assert (picture[inside] == arrays["colours"][7, 1]).all()
        assert (picture[0, 0] == 0).all()
        ground = ~inside
        ground[0, 0] = False
        assert (picture[ground] == arrays["colours"][7, 0]).all()


def test_resume_of_transfers(config: Path, tmp_path: Path) -> None:
    data = tmp_path / "layers.npz"
    arrays = layers()
    np.savez(data, constant=arrays["constant"], weights=arrays["weights"], colours=arrays["colours"])
    common = ["--batch", "4", "--transfer", "1", "--weighting", "root", "--flip", "--bf16", "--iterations"]
    assert train_ddpm.main(command(config, tmp_path / "whole", data, *common, "4")) == 0
    assert train_ddpm.main(command(config, tmp_path / "parts", data, *common, "2")) == 0
    assert train_ddpm.main(command(config, tmp_path / "parts", data, *common, "4")) == 0
    a, b = (torch.load(tmp_path / name / "ema.pt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_transfer_asks_for_the_partners_shape_in_ones_own_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target of the second decode, rebuilt from x_t alone: P_t(target) must be a known shape in the sample's colours."""
    import training.transfers

    data = Layers(*map(torch.from_numpy, layers().values()))
    abar = torch.tensor(linear_schedule().values)
    unet = build_unet("ddpm", 8, {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1})
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    shown: list[torch.Tensor] = []
    encode = unet.encode

    def watched_error(eps: torch.Tensor, target: torch.Tensor, a: torch.Tensor, weighting: str) -> torch.Tensor:
        seen.append((target, a))
        return eps.sum() * 0

    def watched_encode(x: torch.Tensor, t: torch.Tensor) -> Features:
        shown.append(x)
        return encode(x, t)

    monkeypatch.setattr(training.transfers, "weighted_error", watched_error)
    monkeypatch.setattr(unet, "encode", watched_encode)
    s = Settings(batch=8, transfer=1, transfer_from=0, same_shape=0)
    transfer_loss(unet, data, abar, s, Draws(0, 3), Walks(0, 8))
    (eps, a), (target, _) = seen
    x = shown[0]
    clean, wanted = ((x - (1 - a).sqrt() * e) / a.sqrt() for e in (eps, target))
    judged = [i for i in range(8) if a[i] > 0.01]  # above, x_t in fp32 no longer tells the picture
    assert len(judged) >= 2
    for i in judged:
        own, ground, foreign = clean[i].flatten(1).T, wanted[i, :, 7, 7], clean[i ^ 1, :, 7, 7]
        nearest = torch.cdist(wanted[i].flatten(1).T, own).min(1).values
        assert nearest.max() < 1e-3  # no colour but one's own
        as_ground = (wanted[i] - ground[:, None, None]).abs().sum(0) < 1e-2
        assert torch.equal(as_ground, (clean[i ^ 1] - foreign[:, None, None]).abs().sum(0) < 1e-2)


def test_walks_step_as_the_method_does_and_begin_anew_at_their_end() -> None:
    data = Layers(*map(torch.from_numpy, layers().values()))
    abar = torch.tensor(linear_schedule().values)
    walks, g = Walks(3, 8), Draws(0, 0)
    walks.begin(data, abar, Settings(), g)
    assert ((walks.t >= 200) & (walks.t < 700)).all()
    walks.share[:] = torch.tensor([1.0, 1.0, 0.0])  # the last one injects nowhere
    before, t = walks.x.clone(), walks.t.clone()
    S, T = (data.paint(shapes, walks.colours) for shapes in (walks.style, walks.content))
    a, a_next = abar[t, None, None, None], abar[t - 20, None, None, None]
    eps, eps_h = ((before - a.sqrt() * picture) / (1 - a).sqrt() for picture in (S, T))
    walks.advance(eps, eps_h, abar, g)
    P = torch.cat([T[:2], S[2:]])
    assert torch.allclose(walks.x, a_next.sqrt() * P + (1 - a_next).sqrt() * eps, atol=1e-4)
    assert torch.equal(walks.t, t - 20)

    walks.t[1] = 99
    kept = walks.x.clone()
    walks.begin(data, abar, Settings(), g)
    assert torch.equal(walks.x[::2], kept[::2]) and not torch.equal(walks.x[1], kept[1])
    assert walks.t[1] >= 200


def test_loss_weights() -> None:
    a = torch.tensor([0.99, 0.5, 0.04, 4e-5])
    assert loss_weights(a, "uniform").tolist() == [1, 1, 1, 1]
    assert torch.allclose(loss_weights(a, "p2"), 1 - a)
    assert torch.allclose(loss_weights(a, "root"), torch.tensor([0.1, 0.5**0.5, 0.96 / 0.2, 60.0]), rtol=1e-4)


def test_uneven_noise_differs_in_gain_and_tint_as_much_as_it_should() -> None:
    x0 = torch.zeros(400, 3, 32, 32)
    even = draw_noise(x0, Settings(), Draws(0, 0))
    assert torch.equal(even, torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)))

    eps = draw_noise(x0, Settings(uneven=0.1), Draws(0, 0))
    gain = (eps - eps.mean((2, 3), keepdim=True)).flatten(1).std(1)
    assert gain.std().item() == pytest.approx(0.1, rel=0.15)
    tint = eps.mean((2, 3)).std().item()  # the tint itself, the mean of 16 blots and of 1,024 pixels of noise
    assert tint == pytest.approx((0.1**2 + 0.1**2 / 16 + 1 / 1024) ** 0.5, rel=0.1)
