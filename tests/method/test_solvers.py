"""Fewer evaluations: orders of convergence, exact events, the ddim limit, and how many evaluations everything costs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from gaussian import SCHEDULE, Gaussian, picture, relative
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from walks import invert, transfer

from diffstyle import solvers
from diffstyle.errors import UsageError
from diffstyle.hspace import Blend
from diffstyle.models import build_unet
from diffstyle.models.hspace_unet import HSpaceUNet
from diffstyle.runs.latents import LatentCache
from diffstyle.settings import Settings
from diffstyle.solvers import SOLVERS, Known, along, glide, weights
from diffstyle.steps import inversion_steps, thin_out, transfer_steps, warp

TIMESTEPS = st.integers(0, 999)
SMALL = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": []}


# ---- the polynomial ----------------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.lists(TIMESTEPS, min_size=1, max_size=4, unique=True), st.lists(TIMESTEPS, min_size=2, max_size=9, unique=True))
def test_weights_sum_a_polynomial_exactly(known: list[int], walk: list[int]) -> None:
    """For eps = any polynomial in warp(t) of the known points' degree, the walk's own sum comes out."""
    walk = sorted(walk)
    s = {t: math.sqrt((1 - SCHEDULE(t)) / SCHEDULE(t)) for t in walk}
    eps = [lambda t, p=p: (warp(t) / 20) ** p for p in range(len(known))]  # type: ignore[misc]
    for f in eps:
        w = weights(SCHEDULE, walk, known)
        direct = sum((s[b] - s[a]) * f(a) for a, b in zip(walk[:-1], walk[1:], strict=True))
        size = sum(abs(x * f(t)) for x, t in zip(w, known, strict=True))
        assert sum(x * f(t) for x, t in zip(w, known, strict=True)) == pytest.approx(direct, abs=1e-9 * (1 + size), rel=1e-9)


def test_a_glide_of_no_step_is_nothing() -> None:
    x = picture()
    assert glide(x, (7,), [], SCHEDULE) is x
    constant = Known(20, torch.zeros_like(x))
    torch.testing.assert_close(glide(x, (20, 10, -1), [constant], SCHEDULE), x / math.sqrt(SCHEDULE(20)))


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("ab2", 2), ("ab3", 3), ("abm2", 3), ("abm3", 4)])
def test_orders_of_convergence(name: str, order: int) -> None:
    """Against the 1000-step walk the error falls with the evaluations as the method's order says, up to the first steps."""
    unet, x = Gaussian(), picture()
    exact = invert(unet, x, inversion_steps(1000), SCHEDULE).x_T
    start = transfer(unet, exact, {}, transfer_steps(1000, t_edit=1000), SCHEDULE, Blend())
    errors = []
    for nfe in (16, 64):
        up = invert(unet, x, thin_out(inversion_steps(1000), nfe), SCHEDULE, solver=SOLVERS[name]).x_T
        plan = thin_out(transfer_steps(1000, t_edit=1000), nfe)
        down = transfer(unet, exact, {}, plan, SCHEDULE, Blend(), solver=SOLVERS[name])
        errors.append((relative(up, exact), relative(down, start)))
    for coarse, fine in zip(*errors, strict=True):
        assert math.log(coarse / fine, 4) > order - 0.6, (name, coarse, fine)


# ---- events ------------------------------------------------------------------------------------------------------------


def test_every_solver_is_ddim_when_every_step_is_evaluated() -> None:
    unet, style, content = Gaussian(), picture(2), picture(2, seed=1)
    settings = Settings(gamma=0.4, n_inv=120, n_gen=100, t_boost=200, solver="abm3", nfe=120)
    kept = settings.kept()
    x = invert(unet, style, settings.inversion_plan(), SCHEDULE).x_T
    h = invert(unet, content, settings.inversion_plan(), SCHEDULE, kept).h
    for solver in SOLVERS.values():
        quick = invert(unet, content, settings.inversion_walk(), SCHEDULE, kept, solver=solver)
        assert sorted(quick.h) == sorted(h)
        for t in kept:
            torch.testing.assert_close(quick.h[t], h[t], rtol=1e-10, atol=1e-10)
        both = [
            walk(unet, x, h, plan, noise=noise(x))
            for walk, plan in ((ddim, settings.transfer_plan()), (fast(solver), settings.transfer_walk()))
        ]
        torch.testing.assert_close(both[1], both[0], rtol=1e-9, atol=1e-9)


def ddim(unet: HSpaceUNet, x: Tensor, h: dict[int, Tensor], plan: Any, noise: Any, omega: float = 0.0) -> Tensor:
    return transfer(unet, x, h, plan, SCHEDULE, Blend(0.4), noise)


def fast(solver: Any) -> Any:
    def walk(unet: HSpaceUNet, x: Tensor, h: dict[int, Tensor], plan: Any, noise: Any, omega: float = 0.0) -> Tensor:
        return transfer(unet, x, h, plan, SCHEDULE, Blend(0.4), noise, solver=solver)

    return walk


def noise(x: Tensor, drawn: list[Tensor] | None = None) -> Any:
    generator = torch.Generator().manual_seed(5)

    def draw() -> Tensor:
        z = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        if drawn is not None:
            drawn.append(z)
        return z

    return draw


@pytest.mark.parametrize("nfe", [4, 24, 100, 400])
@pytest.mark.parametrize(("n_gen", "t_boost", "omega", "variant"), [
    (1000, 0, 0.0, "official"), (1000, 200, 0.0, "official"), (1000, 200, 0.3, "official"), (250, 100, 0.3, "paper"),
    (50, 200, 0.0, "official"),
])  # fmt: skip
def test_events_stay_as_they_are(nfe: int, n_gen: int, t_boost: int, omega: float, variant: str) -> None:
    settings = Settings(n_gen=n_gen, t_boost=t_boost, omega=omega, variant=variant, solver="abm3", nfe=nfe, dt_lambda=0.99)
    reference, thin = settings.transfer_plan(), settings.transfer_walk()
    events = [s for s in reference if s.h_from is not None or s.eta > 0]
    assert [replace(s, then=()) for s in thin if s.event] == events  # the very steps: t, t_next, strength, noise
    assert len(thin) <= len(events) + nfe
    walked = [reference[0].t]  # nothing is left out or walked twice
    for step in thin:
        assert step.t == walked[-1]
        walked += [step.t_next, *step.then]
    assert walked == [s.t for s in reference] + [-1]


@pytest.mark.parametrize("solver", ["heun", "abm2", "abm3"])
@pytest.mark.parametrize("omega", [0.0, 0.3])
@pytest.mark.parametrize("t_boost", [0, 200])
def test_events_are_as_strong(solver: str, omega: float, t_boost: int) -> None:
    """The whole transfer comes near the 1000-step one, much nearer than plain Euler over the same evaluations."""
    unet, x, content = Gaussian(), picture(2) * 2, picture(2, seed=1)
    settings = Settings(n_gen=1000, n_inv=50, omega=omega, t_boost=t_boost)
    h = invert(unet, content, settings.inversion_plan(), SCHEDULE, settings.kept()).h
    draws: list[list[Tensor]] = [[], [], []]
    full = ddim(unet, x, h, settings.transfer_plan(), noise(x, draws[0]), omega)
    thin = thin_out(settings.transfer_plan(), 24)
    quick = fast(SOLVERS[solver])(unet, x, h, thin, noise(x, draws[1]), omega)
    euler = fast(SOLVERS["euler"])(unet, x, h, thin, noise(x, draws[2]), omega)
    plain = ddim(unet, x, h, transfer_steps(1000, t_edit=1000), None)
    assert relative(quick, full) < (0.03 if t_boost else 0.01) < relative(plain, full)
    assert relative(quick, full) < relative(euler, full) / 3
    assert len(draws[0]) == len(draws[1]) == (10 if t_boost else 1)  # at t = 0 with sigma 0
    assert all(torch.equal(a, b) for a, b in zip(*draws[:2], strict=True))


@pytest.mark.parametrize(
    ("solver", "omega", "share"), [("abm3", 0.0, 0.5), ("abm2", 0.0, 0.6), ("ab3", 0.0, 1.0), ("abm3", 0.3, 1.0)]
)
def test_part_of_the_change_after_an_injection_comes_at_once(
    solver: str, omega: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that is left of the one without; all of it where nothing is corrected, or the network saw all (omega)."""
    unet, x, content = Gaussian(), picture(2) * 2, picture(2, seed=1)
    settings = Settings(n_gen=1000, n_inv=50, omega=omega)
    h = invert(unet, content, settings.inversion_plan(), SCHEDULE, settings.kept()).h
    full = ddim(unet, x, h, settings.transfer_plan(), None, omega)
    errors = []
    for at_once in (solvers.AT_ONCE, 0.0):
        monkeypatch.setattr(solvers, "AT_ONCE", at_once)
        quick = fast(SOLVERS[solver])(unet, x, h, thin_out(settings.transfer_plan(), 24), None, omega)
        errors.append(relative(quick, full))
    assert errors[0] == errors[1] if share == 1 else errors[0] < share * errors[1]


def test_the_part_along() -> None:
    a, b = picture(2, seed=3), picture(2, seed=4)
    b[1] = 0
    part = along(a, b)
    assert torch.equal(part[1], b[1])
    torch.testing.assert_close(((a - part) * b).sum((1, 2, 3)), torch.zeros(2, dtype=a.dtype), atol=1e-9, rtol=0)
    torch.testing.assert_close(along(part, b), part)
    torch.testing.assert_close(along(7 * b, b), 7 * b)


def test_h_in_between_is_that_of_the_long_walk() -> None:
    unet, x = Gaussian(), picture(2)
    settings = Settings(n_inv=1000, solver="abm3", nfe=24)
    kept = settings.kept()
    full = invert(unet, x, settings.inversion_plan(), SCHEDULE, kept)
    quick = invert(unet, x, settings.inversion_walk(), SCHEDULE, kept, solver=SOLVERS["abm3"])
    assert relative(quick.x_T, full.x_T) < 1e-3
    assert sorted(quick.h) == kept
    assert max(relative(quick.h[t], full.h[t]) for t in kept) < 1e-3


# ---- what it costs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("omega", "encodes", "decodes"), [(0.0, 50, 80), (0.3, 80, 110)])
def test_transfer_of_50_steps(omega: float, encodes: int, decodes: int) -> None:
    unet, settings = Gaussian(), Settings(n_gen=50, n_inv=50, omega=omega)
    h = invert(unet, picture(), settings.inversion_plan(), SCHEDULE, settings.kept()).h
    unet.encodes = unet.decodes = 0
    plan = settings.transfer_plan()
    transfer(unet, picture(), h, plan, SCHEDULE, Blend(0.3))
    assert (unet.encodes, unet.decodes) == (encodes, decodes)
    assert sum(step.evaluations for step in plan) == settings.transfer_evaluations() == encodes


@pytest.mark.parametrize("solver", ["ddim", "abm3"])
@pytest.mark.parametrize("n_inv", [40, 50, 1000])
def test_inversion_stops_at_the_last_thing_read(solver: str, n_inv: int) -> None:
    unet, settings = Gaussian(), Settings(n_inv=n_inv, n_gen=1000, solver=solver)
    kept = settings.kept()

    def walk(keep: list[int], latent: bool) -> tuple[int, int, Any]:
        unet.encodes = unet.decodes = 0
        if solver == "ddim":
            found = invert(unet, picture(), settings.inversion_plan(), SCHEDULE, keep, latent=latent)
        else:
            plan = settings.inversion_walk()
            found = invert(unet, picture(), plan, SCHEDULE, keep, latent=latent, solver=SOLVERS[solver])
        return unet.encodes, unet.decodes, found

    style, content, both = walk([], True), walk(kept, False), walk(kept, True)
    assert torch.equal(style[2].x_T, both[2].x_T)  # what is kept on the way changes nothing
    assert all(torch.equal(content[2].h[t], both[2].h[t]) for t in kept)
    assert style[0] == style[1] == both[1] == settings.inversion_evaluations() <= n_inv - 1
    assert content[1] == settings.inversion_evaluations(latent=False)
    if solver == "ddim":
        assert style[0] == n_inv - 1
        assert content[0] - 1 == content[1] == [s.t for s in settings.inversion_plan()].index(kept[-1])


def test_the_default_budget_is_fifteen_times_smaller() -> None:
    """Two inversions and a transfer, an encode counted as a quarter of an evaluation (as in the DDPM and our model)."""
    cost = {}
    for solver in ("ddim", "abm3"):
        unet, settings = Gaussian(), Settings(n_inv=1000, n_gen=1000, solver=solver)
        if solver == "ddim":
            h = invert(unet, picture(), settings.inversion_plan(), SCHEDULE, settings.kept(), latent=False).h
            invert(unet, picture(), settings.inversion_plan(), SCHEDULE)
            transfer(unet, picture(), h, settings.transfer_plan(), SCHEDULE, Blend(0.3))
        else:
            s, plan = SOLVERS[solver], settings.inversion_walk()
            h = invert(unet, picture(), plan, SCHEDULE, settings.kept(), latent=False, solver=s).h
            invert(unet, picture(), plan, SCHEDULE, solver=s)
            transfer(unet, picture(), h, settings.transfer_walk(), SCHEDULE, Blend(0.3), solver=s)
        cost[solver] = unet.encodes / 4 + unet.decodes * 3 / 4
    assert cost["ddim"] > 15 * cost["abm3"]


@pytest.mark.parametrize(("field", "value"), [("solver", "magic"), ("nfe", 0), ("nfe", 10**6)])
def test_settings_refuse(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--{field}"):
        Settings(**{field: value}).check()


# ---- what it stores ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_inv", [50, 1000])
def test_cache_holds_only_what_is_read(tmp_path: Any, n_inv: int) -> None:
    """<= 7 MB a content at any n_inv for an h of 512 x 8 x 8 in fp32, <= 1 MB a style of 256 x 256."""
    cache, settings = LatentCache(tmp_path, {"n_inv": n_inv}), Settings(n_inv=n_inv)
    cache.put_h("content", {t: torch.zeros(512, 8, 8) for t in settings.kept()})
    cache.put_x_T("style", torch.zeros(3, 256, 256))
    assert cache.path("content", "h").stat().st_size <= 7e6
    assert cache.path("style", "xT").stat().st_size <= 1e6
    assert len(list(tmp_path.iterdir())) == 2


# ---- on a GPU ----------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("solver", ["ddim", "abm3"])
def test_the_loops_never_wait_for_the_gpu(solver: str) -> None:
    unet = build_unet("ddpm", 16, SMALL).cuda().eval()
    x, settings = torch.randn(2, 3, 16, 16, device="cuda"), Settings(n_inv=50, n_gen=50, solver=solver)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        if solver == "ddim":
            found = invert(unet, x, settings.inversion_plan(), SCHEDULE, settings.kept())
            transfer(unet, found.x_T, found.h, settings.transfer_plan(), SCHEDULE, Blend(0.3))
        else:
            plan = settings.inversion_walk()
            found = invert(unet, x, plan, SCHEDULE, settings.kept(), solver=SOLVERS[solver])
            transfer(unet, x, found.h, settings.transfer_walk(), SCHEDULE, Blend(0.3), solver=SOLVERS[solver])
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_and_cpu_agree() -> None:
    unet = build_unet("ddpm", 16, SMALL).eval()
    x, plan = torch.rand(1, 3, 16, 16) * 2 - 1, thin_out(inversion_steps(1000), 24)
    on_cpu = invert(unet, x, plan, SCHEDULE, solver=SOLVERS["abm3"]).x_T
    on_gpu = invert(unet.cuda(), x.cuda(), plan, SCHEDULE, solver=SOLVERS["abm3"]).x_T.cpu()
    assert relative(on_gpu, on_cpu) < 1e-2
