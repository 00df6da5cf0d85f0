"""Networks that predict x0 or v, other schedules, and the check that a network predicts what its config says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffstyle.diffusion import PREDICTIONS, SCHEDULES, Schedule, linear_schedule, make_schedule, predict_x0, to_eps
from diffstyle.errors import UsageError, WorkError
from diffstyle.hspace import Blend
from diffstyle.model import EpsOf, ModelConfig
from diffstyle.models import build_unet
from diffstyle.models.hspace_unet import Features, HSpaceUNet
from diffstyle.sampling import invert, transfer
from diffstyle.settings import Settings
from diffstyle.zoo.checkpoints import load_model
from diffstyle.zoo.config import load_config
from diffstyle.zoo.prediction import check_prediction, classify

SMALL = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": []}
CONFIG = ModelConfig("tiny", "CUSTOM", "CUSTOM", 16, "ddpm", SMALL)


class Gaussian(HSpaceUNet):
    """The exact network for pictures whose pixels are independent, N(mean, 1/4): what x_t says of x0, as any prediction.

    h shifts the mean, so that an injection changes something.
    """

    def __init__(self, schedule: Schedule, prediction: str) -> None:
        super().__init__()
        self.abar = torch.tensor(schedule.values, dtype=torch.float64)
        self.prediction = prediction

    def encode(self, x: Tensor, t: Tensor) -> Features:
        return Features(x.mean((2, 3), keepdim=True).repeat(1, 1, 2, 2) * 0.1, (x, t.reshape(-1, 1, 1, 1)), t[:, None])

    def decode(self, f: Features) -> Tensor:
        x, t = f.skips
        abar = self.abar[t.long()].to(x)
        mean = f.h.mean((2, 3), keepdim=True)
        x0 = mean + abar.sqrt() / 4 / (abar / 4 + 1 - abar) * (x - abar.sqrt() * mean)
        eps = (x - abar.sqrt() * x0) / (1 - abar).sqrt()
        return {"eps": eps, "x0": x0, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x0}[self.prediction]


def as_eps(prediction: str, schedule: Schedule) -> HSpaceUNet:
    unet = Gaussian(schedule, prediction)
    return unet if prediction == "eps" else EpsOf(unet, prediction, schedule)


# ---- laws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abar", [0.9999, 0.5, 4e-5])
def test_every_prediction_means_the_same_noise(abar: float) -> None:
    x0, eps = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    x = abar**0.5 * x0 + (1 - abar) ** 0.5 * eps
    outputs = {"eps": eps, "x0": x0, "v": abar**0.5 * eps - (1 - abar) ** 0.5 * x0}
    assert set(outputs) == set(PREDICTIONS)
    for prediction, output in outputs.items():
        a, b = to_eps(prediction, abar)
        torch.testing.assert_close(a * x + b * output, eps, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(predict_x0(x, a * x + b * output, abar), x0, rtol=1e-7, atol=1e-7)
    assert to_eps("eps", abar) == (0, 1)  # an eps network's numbers are its own


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_three_parametrisations_of_one_network_walk_the_same_way(kind: str, prediction: str) -> None:
    """Inversion, injection with calibration, and back, in fp64: only the rounding of the coefficients differs."""
    schedule = make_schedule(kind, 1e-4, 0.02, 1000)
    settings = Settings(n_inv=20, n_gen=20, content_replace_step=10, t_0=900, t_edit=300, omega=0.3)
    content, style = torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    results = []
    for unet in (as_eps("eps", schedule), as_eps(prediction, schedule)):
        walk, kept = settings.inversion_walk(), settings.kept()
        h = {t: part for _, _, met in invert(unet, content, walk, schedule, kept) for t, part in met.items()}
        *_, (_, x_T, _) = invert(unet, style, walk, schedule)
        *_, (_, x, _) = transfer(unet, x_T, h, settings.transfer_walk(), schedule, Blend(gamma=0.5))
        results.append((x_T, x))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (results[0][1] - style).abs().max() > 0.01  # the injection did something


def test_the_wrapped_network_keeps_the_contract() -> None:
    """One encode feeds several decodes, stacked ones too, and is left as it was; h is the inner network's."""
    schedule = linear_schedule()
    unet = EpsOf(build_unet("ddpm", 16, SMALL).eval(), "v", schedule)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 900.0])
    with torch.inference_mode():
        f = unet.encode(x, t)
        before = [part.clone() for part in (f.h, *f.skips, f.temb)]
        eps = unet.decode(f)
        twice = Features(torch.cat([f.h, f.h]), tuple(torch.cat([s, s]) for s in f.skips), torch.cat([f.temb, f.temb]))
        torch.testing.assert_close(unet.decode(twice), torch.cat([eps, eps]), rtol=1e-5, atol=1e-5)
        assert all(torch.equal(a, b) for a, b in zip(before, (f.h, *f.skips, f.temb), strict=True))
        assert torch.equal(f.h, unet.unet.encode(x, t).h)
        for i, abar in enumerate((schedule(3), schedule(900))):
            expected = (1 - abar) ** 0.5 * x[i] + abar**0.5 * unet.unet(x, t)[i]
            torch.testing.assert_close(eps[i], expected, rtol=1e-4, atol=1e-5)


# ---- schedules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("steps", [1000, 400])
def test_schedules_are_diffusers_own(kind: str, steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(num_train_timesteps=steps, beta_start=1e-4, beta_end=0.02, beta_schedule=kind)
    ours = torch.tensor(make_schedule(kind, 1e-4, 0.02, steps).values)
    torch.testing.assert_close(ours, theirs.alphas_cumprod, rtol=2e-5, atol=1e-9)
    if kind == "squaredcos_cap_v2":
        assert make_schedule("cosine", 0.5, 0.5, steps) == make_schedule(kind, 1e-4, 0.02, steps)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_fall_and_never_reach_nothing(kind: str) -> None:
    values = make_schedule(kind, 1e-4, 0.02, 1000).values
    assert all(0 < later < earlier < 1 for earlier, later in zip(values, values[1:], strict=False))
    assert values[-1] < 0.01


def test_configs_say_schedule_and_prediction(tmp_path: Path) -> None:
    text = "data: {image_size: 16}\nmodel: {type: ddpm, ch: 32, ch_mult: [1, 2], attn_resolutions: []}\ndiffusion: {%s}\n"
    for inside, said in (("prediction: w", "prediction is 'w', it must be one of eps, x0, v"),
                         ("beta_schedule: sigmoid", "beta_schedule is 'sigmoid', it must be one of linear, scaled_linear"),
                         ):  # fmt: skip
        (tmp_path / "m.yml").write_text(text % inside)
        with pytest.raises(UsageError, match=said):
            load_config(tmp_path / "m.yml")
    (tmp_path / "m.yml").write_text(text % "prediction: v, beta_schedule: cosine, num_diffusion_timesteps: 400")
    config = load_config(tmp_path / "m.yml")
    assert (config.prediction, config.beta_schedule, config.timesteps) == ("v", "cosine", 400)
    torch.save(build_unet(config.family, 16, config.architecture).state_dict(), tmp_path / "m.pt")
    model = load_model(config, tmp_path / "m.pt", precision="bf16")
    assert isinstance(model.unet, EpsOf)
    assert model.unet.table.dtype == torch.float32
    assert model.unet(torch.randn(1, 3, 16, 16), torch.tensor([399.0])).dtype == torch.float32
    assert model.schedule == make_schedule("cosine", 0, 0, 400)


# ---- does it predict what it says? -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("truth", PREDICTIONS)
@pytest.mark.parametrize("said", PREDICTIONS)
def test_a_wrong_prediction_is_refused(kind: str, truth: str, said: str) -> None:
    schedule = make_schedule(kind, 1e-4, 0.02, 1000)
    config = dataclasses.replace(CONFIG, image_size=64, prediction=said)
    unet = Smoothing(schedule, truth)
    if said == truth:
        check_prediction(unet, config, schedule, torch.device("cpu"), Path("m.pt"))
        return
    with pytest.raises(WorkError, match=f"m.pt: the network predicts {truth}, the config says {said}: write prediction: {truth}"):
        check_prediction(unet, config, schedule, torch.device("cpu"), Path("m.pt"))
    assert unet.calls == 1


class Smoothing(HSpaceUNet):
    """A crude network: x0 is what a blur leaves of a picture, and nothing of pure noise."""

    def __init__(self, schedule: Schedule, prediction: str) -> None:
        super().__init__()
        self.abar, self.prediction, self.calls = torch.tensor(schedule.values), prediction, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        abar = self.abar[t.long()][:, None, None, None]
        x0 = torch.nn.functional.avg_pool2d(x / abar.sqrt(), 9, 1, 4, count_include_pad=False).clamp(-1, 1)
        eps = (x - abar.sqrt() * x0) / (1 - abar).sqrt()
        return {"eps": eps, "x0": x0, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x0}[self.prediction]


def test_the_embedded_model_is_recognised_and_random_ones_pass(tmp_path: Path) -> None:
    avatars = load_config("avatars")
    load_model(avatars)
    for wrong in ("x0", "v"):
        with pytest.raises(WorkError, match=f"predicts eps, the config says {wrong}"):
            load_model(dataclasses.replace(avatars, prediction=wrong))
    torch.save(build_unet("ddpm", 16, SMALL).state_dict(), tmp_path / "m.pt")
    for prediction in PREDICTIONS:
        load_model(dataclasses.replace(CONFIG, prediction=prediction), tmp_path / "m.pt")


@pytest.mark.parametrize(("values", "expected"), [
    ((0.07, 0.97, 1.0), "eps"), ((0.98, 0.06, 0.09), "x0"), ((-0.04, 0.97, -0.08), "v"), ((0.1, 0.97, 0.6), ""),
    ((0.0, 0.0, 0.0), ""), ((float("nan"),) * 3, ""),
])  # fmt: skip
def test_what_correlations_tell(values: Any, expected: str) -> None:
    assert classify(*values) == expected
