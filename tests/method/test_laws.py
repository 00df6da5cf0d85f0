"""Laws of the method: closed forms, limits and invariances that hold for any network."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from walks import invert, transfer

from diffstyle.diffusion import ddim_sigma, ddim_step, linear_schedule, predict_x0
from diffstyle.hspace import Blend, match_norm, norm, slerp
from diffstyle.masks import build_mask
from diffstyle.noise import OneStream, pair_noise
from diffstyle.sampling import calibrate, decode_both
from diffstyle.steps import Step, event_timesteps, inversion_steps, kept_timesteps, nearest, timestep_grid, transfer_steps
from golden_models import FAMILIES, golden_model

SCHEDULE = linear_schedule()


def maps(seed: int, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 6, 8, 8, generator=torch.Generator().manual_seed(seed))


# ---- diffusion ---------------------------------------------------------------------------------------------------


def test_schedule_matches_its_definition() -> None:
    product = 1.0
    for t in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        assert SCHEDULE(t) == pytest.approx(product, rel=1e-5)
    assert SCHEDULE(-1) == 1.0
    assert len(SCHEDULE) == 1000


def test_ddim_step_of_the_true_noise_keeps_x0() -> None:
    x0, eps = maps(0), maps(1)
    a, b = SCHEDULE(700), SCHEDULE(300)
    x = math.sqrt(a) * x0 + math.sqrt(1 - a) * eps
    torch.testing.assert_close(predict_x0(x, eps, a), x0, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ddim_step(x0, eps, b), math.sqrt(b) * x0 + math.sqrt(1 - b) * eps)


def test_eta_one_keeps_the_marginal_variance() -> None:
    """sigma^2 plus the direction's square is 1 - abar_next at any eta, and eta 1 is DDPM's posterior variance."""
    a, b = SCHEDULE(200), SCHEDULE(180)
    sigma = ddim_sigma(a, b, 1.0)
    beta = 1 - a / b
    assert sigma**2 == pytest.approx(beta * (1 - b) / (1 - a))
    noisy = ddim_step(torch.zeros(1), torch.ones(1), b, sigma, torch.zeros(1))
    assert noisy.item() ** 2 + sigma**2 == pytest.approx(1 - b)
    assert ddim_sigma(SCHEDULE(0), SCHEDULE(-1), 1.0) == 0.0


# ---- h-space -----------------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.integers(0, 50))
def test_slerp_keeps_the_norm(gamma: float, seed: int) -> None:
    h = maps(seed)
    content = match_norm(maps(seed + 1000) * 7, h)
    torch.testing.assert_close(norm(content), norm(h))
    torch.testing.assert_close(norm(slerp(h, content, gamma)), norm(h), rtol=1e-5, atol=0)


def test_slerp_ends_and_angle() -> None:
    h, content = maps(0), match_norm(maps(1), maps(0))
    torch.testing.assert_close(slerp(h, content, 0.0), h)
    torch.testing.assert_close(slerp(h, content, 1.0), content)

    def angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.acos((a * b).flatten(1).sum(1) / (norm(a) * norm(b)).flatten())

    torch.testing.assert_close(angle(h, slerp(h, content, 0.3)), 0.3 * angle(h, content), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_parallel_and_zero_maps_give_no_nan(gamma: float) -> None:
    h = maps(0)
    torch.testing.assert_close(Blend(gamma)(h, h.clone()), h)
    torch.testing.assert_close(Blend(gamma)(h, 3 * h), h)
    for a, b in ((h, -h), (h, torch.zeros_like(h)), (torch.zeros_like(h), h)):
        assert Blend(gamma)(a, b).isfinite().all()


@given(st.integers(0, 20), st.floats(0, 1), st.booleans())
def test_outside_the_mask_h_is_untouched(seed: int, gamma: float, match: bool) -> None:
    h, content = maps(seed), maps(seed + 100)
    mask = build_mask("box", (8, 8))
    assert mask is not None
    mixed = Blend(gamma, mask=mask, match_masked=match)(h, content)
    assert torch.equal(mixed[:, :, :4], h[:, :, :4])
    assert torch.equal(mixed[..., 5:], h[..., 5:])
    if gamma > 0.1:
        assert (mixed - h)[:, :, 4:7, 3:5].abs().min() >= 0
        assert not torch.equal(mixed, h)


def test_mask_of_ones_with_matched_norms_is_no_mask() -> None:
    h, content = maps(0), maps(1)
    torch.testing.assert_close(Blend(0.4, mask=torch.ones(1, 1, 8, 8), match_masked=True)(h, content), Blend(0.4)(h, content))


def test_calibration_identities() -> None:
    """With eps_h = eps nothing moves; omega 1 undoes an injection up to the change of spread."""
    x, eps = maps(0), maps(1)
    abar = SCHEDULE(600)
    torch.testing.assert_close(calibrate(x, eps, eps, abar, 0.3), x, rtol=1e-4, atol=1e-5)
    eps_h = eps + 1e-3 * maps(2)
    moved = [(calibrate(x, eps, eps_h, abar, omega) - x).abs().mean().item() for omega in (0.001, 0.5, 1.0)]
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 0.2 * moved[0]


# ---- steps -------------------------------------------------------------------------------------------------------


def test_timestep_grid_is_the_official_one() -> None:
    assert timestep_grid(50)[:6] == [0, 20, 40, 61, 81, 101]
    assert timestep_grid(50)[-3:] == [958, 978, 999]
    assert timestep_grid(1000) == list(range(1000))


@given(st.integers(2, 1000), st.integers(1, 999))
def test_timestep_grid_is_increasing(n: int, t_0: int) -> None:
    if n > t_0 + 1:
        with pytest.raises(ValueError, match="do not fit"):
            timestep_grid(n, t_0)
        return
    grid = timestep_grid(n, t_0)
    assert grid[0] == 0 and grid[-1] == t_0 and len(set(grid)) == n and grid == sorted(grid)


@pytest.mark.parametrize("n_gen", [50, 100, 200, 250, 500, 1000])
def test_thirty_injections_at_every_n_gen(n_gen: int) -> None:
    assert sum(step.h_from is not None for step in transfer_steps(n_gen, t_edit=400)) == 30
    assert sum(step.h_from is not None for step in transfer_steps(n_gen, t_edit=500)) == 25
    assert sum(step.eta == 1 for step in transfer_steps(n_gen, t_boost=200)) == 10


def test_official_injections_at_50_and_1000() -> None:
    official = [t for t in timestep_grid(50) if t >= 400]
    for n_gen in (50, 1000):
        assert sorted(step.t for step in transfer_steps(n_gen, t_edit=400) if step.h_from is not None) == official


@given(st.integers(2, 1000), st.integers(0, 1000), st.integers(0, 999), st.sampled_from([-1, 0, 2, 50, 100]), st.booleans())
def test_every_plan_walks_down_to_the_clean_image(n: int, t_edit: int, t_boost: int, replace: int, paper: bool) -> None:
    steps = transfer_steps(n, t_edit, t_boost, content_replace_step=replace, boost_every_step=paper)
    assert [s.t for s in steps] == sorted({s.t for s in steps}, reverse=True)
    assert [s.t_next for s in steps] == [*[s.t for s in steps][1:], -1]
    assert len(steps) == n
    events = event_timesteps(n, replace)
    assert sum(s.h_from is not None for s in steps) <= sum(t >= t_edit for t in events)
    if paper:
        assert all((s.eta == 1) == (s.t <= t_boost) for s in steps)


def test_policy_of_calibration_and_dt_lambda() -> None:
    steps = {s.t: s for s in transfer_steps(50, dt_lambda=0.9985)}
    assert steps[978].dt_lambda == 0.9985 and steps[937].dt_lambda == 1.0
    steps = {s.t: s for s in transfer_steps(50, omega=0.3, dt_lambda=0.9985)}
    assert steps[978].omega == 0.3 and steps[978].dt_lambda == 1.0
    assert not steps[387].omega  # nothing is evaluated twice below t_edit


def test_nearest_prefers_the_larger() -> None:
    assert nearest(5, [0, 10]) == 10
    assert nearest(4, [0, 10]) == 0
    assert nearest(999, [0, 978]) == 978
    assert nearest(-3, [0, 978]) == 0
    assert kept_timesteps([999, 400], 50) == [407, 978]
    assert len(kept_timesteps(event_timesteps(1000), 1000)) == 50


# ---- networks and loops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_decode_of_encode_is_forward_and_leaves_features_alone(family: str) -> None:
    unet = golden_model(family).unet
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([10.0, 700.0])
    with torch.inference_mode():
        f = unet.encode(x, t)
        before = [part.clone() for part in (f.h, *f.skips, f.temb)]
        first, again = unet.decode(f), unet.decode(f)
        assert torch.equal(first, unet(x, t)) and torch.equal(first, again)
        assert all(torch.equal(a, b) for a, b in zip(before, (f.h, *f.skips, f.temb), strict=True))
        eps, eps_h = decode_both(unet, f, 2 * f.h)
        torch.testing.assert_close(eps, first, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(eps_h, unet.decode(f._replace(h=2 * f.h)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gamma_zero_is_plain_ddim(family: str) -> None:
    model = golden_model(family)
    x_T = torch.randn(1, 3, 32, 32)
    walk = transfer_steps(10, content_replace_step=10, kept=timestep_grid(10)[:-1])
    h = invert(model.unet, x_T.clamp(-1, 1), inversion_steps(10), SCHEDULE, timestep_grid(10)[:-1]).h
    plain = transfer(model.unet, x_T, {}, [Step(s.t, s.t_next) for s in walk], SCHEDULE, Blend())
    ours = transfer(model.unet, x_T, h, walk, SCHEDULE, Blend(gamma=0.0))
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))
    assert not torch.allclose(transfer(model.unet, x_T, h, walk, SCHEDULE, Blend(gamma=0.5)), plain, rtol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_its_singles(family: str) -> None:
    """To 1e-5 over an evaluation and over a short walk (a long one amplifies any rounding, see test_parity)."""
    unet = golden_model(family).unet
    x = torch.randn(3, 3, 32, 32)
    steps = inversion_steps(1000)[:5]
    with torch.inference_mode():
        together = invert(unet, x, steps, SCHEDULE, [0, 4])
        for i in range(3):
            alone = invert(unet, x[i : i + 1], steps, SCHEDULE, [0, 4])
            for a, b in ((together.x_T, alone.x_T), (together.h[4], alone.h[4])):
                assert (a[i] - b[0]).abs().max() <= 1e-5 * b.abs().max()


def test_evaluations_are_not_wasted() -> None:
    """n_gen 50, t_edit 400: 50 encodes and 80 decodes; 30 more evaluations with omega; n_inv - 1 in an inversion."""
    model = golden_model("ddpm")
    counts = {"encode": 0, "decode": 0}

    class Counting(type(model.unet)):  # type: ignore[misc]
        def encode(self, x: torch.Tensor, t: torch.Tensor) -> object:
            counts["encode"] += len(x)
            return super().encode(x, t)

        def decode(self, f: object) -> torch.Tensor:
            counts["decode"] += len(f.h)  # type: ignore[attr-defined]
            return super().decode(f)

    unet = Counting(32, 32, (1, 1, 2), 1, (16,)).eval()
    x = torch.zeros(1, 3, 32, 32)
    h = invert(unet, x, inversion_steps(50), SCHEDULE, timestep_grid(50)[:-1]).h
    assert counts == {"encode": 49, "decode": 49}
    for omega, encodes, decodes in ((0.0, 50, 80), (0.3, 80, 110)):
        counts.update(encode=0, decode=0)
        transfer(unet, x, h, transfer_steps(50, omega=omega, kept=list(h)), SCHEDULE, Blend(0.3))
        assert counts == {"encode": encodes, "decode": decodes}


# ---- noise and masks ---------------------------------------------------------------------------------------------


def test_pair_noise_does_not_depend_on_the_batch() -> None:
    pairs = [("a", "s"), ("b", "s"), ("a", "r")]
    together = pair_noise(7, pairs, (3, 4, 4))
    first, second = together(), together()
    for i, pair in enumerate(pairs):
        alone = pair_noise(7, [pair], (3, 4, 4))
        assert torch.equal(alone()[0], first[i]) and torch.equal(alone()[0], second[i])
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    assert not torch.equal(pair_noise(8, pairs, (3, 4, 4))(), first)


def test_official_noise_is_one_stream() -> None:
    stream = torch.Generator().manual_seed(5)
    raw = [torch.randn(1, 3, 4, 4, generator=stream)[0] for _ in range(12)]
    batch = OneStream(torch.Generator().manual_seed(5), (3, 4, 4), 2, calibrated=False).batch([0, 2])
    assert torch.equal(batch(), torch.stack([raw[0], raw[4]])) and torch.equal(batch(), torch.stack([raw[1], raw[5]]))
    calibrated = OneStream(torch.Generator().manual_seed(5), (3, 4, 4), 2, calibrated=True).batch([1])
    assert torch.equal(calibrated()[0], raw[5]) and torch.equal(calibrated()[0], raw[7])


def test_masks() -> None:
    box = build_mask("box", (8, 8))
    assert box is not None and box.sum() == 6 and box[0, 0, 4:7, 3:5].all()
    half = build_mask("0,0,0.5,1", (4, 5))
    assert half is not None
    torch.testing.assert_close(half[0, 0, 0], torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]))
    assert build_mask("", (4, 4)) is None
