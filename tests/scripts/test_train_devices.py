"""The trainer on other devices and in several processes, as far as a CPU can tell; and on a GPU where there is one."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import train_ddpm
import training.device
from test_train import TINY, layers, pictures  # type: ignore[import-not-found]  # pytest finds it
from train_ddpm import Trainer
from training.data import Layers, Pictures
from training.device import Draws, Place, computing, has_room
from training.losses import Settings, plain_loss
from training.transfers import Walks, transfer_loss

from batch_tools import end_or_kill, equal, start_two_ranks, two_ranks, wait
from diffstyle.diffusion import linear_schedule
from diffstyle.errors import WorkError
from diffstyle.models import build_unet
from diffstyle.runs.workers import ALONE, Share
from diffstyle.zoo.config import load_config
from golden_models import relative

pytestmark = pytest.mark.usefixtures("few_steps_a_sample")
# Groups of eight channels: in groups of one, as 32 channels otherwise are, a bias before a norm has no effect, and Adam makes
# steps of its gradient's rounding.
CONFIG = TINY.replace("attn_resolutions: []", "attn_resolutions: [], norm_groups: 4")
TERMS = ["--twin", "0.4", "--twin_clean", "0.5", "--skip_drop", "0.5", "--flip", "--uneven", "0.1", "--warmup", "0"]


def files(root: Path) -> list[str]:
    """A config, pictures and layers in ``root``; the command line up to --data and --out."""
    (root / "tiny.yml").write_text(CONFIG)
    np.savez(root / "pictures.npz", images=pictures(32))
    np.savez(root / "layers.npz", **layers())  # type: ignore[arg-type]
    return ["--config", f"{root}/tiny.yml", "--threads", "1"]


def last(out: Path) -> Any:
    return torch.load(out / "last.pt", weights_only=True)


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference of two sets of weights."""
    return max(float((a[k] - b[k]).abs().max()) for k in a)


# ---- several processes -------------------------------------------------------------------------------------------


def test_the_shares_of_a_batch_have_its_gradient() -> None:
    """Up to rounding, on average; with three twins among eight pictures, which is two for the one and one for the other."""
    data = Pictures(torch.from_numpy(pictures()).permute(0, 3, 1, 2))
    unet = build_unet("ddpm", 8, {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "norm_groups": 4})
    abar = torch.tensor(linear_schedule().values)
    s = Settings(batch=8, twin=0.4, twin_clean=0.5, skip_drop=0.5, flip=True, uneven=0.1, weighting="p2")

    def gradient(share: Share) -> torch.Tensor:
        unet.zero_grad()
        plain_loss(unet, data, abar, s, Draws(0, 0, Place(share=share))).backward()
        return torch.cat([p.grad.flatten() for p in unet.parameters() if p.grad is not None])

    whole, *parts = map(gradient, (ALONE, Share(0, 2, True), Share(1, 2, True)))
    assert relative(sum(parts) / 2, whole) < 1e-5 < 0.1 < relative(parts[0], whole)  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_processes_make_the_weights_of_one(tmp_path: Path) -> None:
    """A resume in two, too. Only the first writes. Adam's steps make more of the rounding than the gradient has of it."""
    argv = [*files(tmp_path), "--data", f"{tmp_path}/pictures.npz", "--batch", "8", "--report_every", "4", *TERMS]
    argv += ["--device", "cpu", "--iterations"]
    assert train_ddpm.main([*argv, "0", "--out", f"{tmp_path}/begin"]) == 0
    assert train_ddpm.main([*argv, "8", "--out", f"{tmp_path}/one"]) == 0
    for iterations in ("4", "8"):
        log = tmp_path / "log"
        assert two_ranks([*argv, iterations, "--out", f"{tmp_path}/two"], log, "scripts/train_ddpm.py") == [0, 0], log.read_text()
    assert log.read_text().count("ema.pt") == 2  # a line a run
    begin, one, two = (last(tmp_path / name) for name in ("begin", "one", "two"))
    moved = distance(one["model"], begin["model"])
    assert moved > 5e-3
    for part in ("model", "ema"):
        assert 0 < distance(one[part], two[part]) < 1e-2 * moved
    table, other = (np.loadtxt(tmp_path / name / "loss.csv", delimiter=",", skiprows=1) for name in ("one", "two"))
    assert len(table) == 2 and np.allclose(table, other, rtol=1e-3)


@pytest.mark.slow
def test_a_signal_to_one_process_ends_both_at_the_same_iteration(tmp_path: Path) -> None:
    argv = [*files(tmp_path), "--data", f"{tmp_path}/pictures.npz", "--batch", "2", "--save_every", "1", "--iterations"]
    first, second = start_two_ranks([*argv, "100000", "--out", f"{tmp_path}/out"], tmp_path / "log", "scripts/train_ddpm.py")
    while not (tmp_path / "out" / "last.pt").exists():
        assert wait(first, 0.05) is None, (tmp_path / "log").read_text()
    assert end_or_kill(second, 0, iter([signal.SIGTERM]), patience=60)[0] == wait(first, 60) == 143
    iteration = last(tmp_path / "out")["iteration"]
    assert (tmp_path / "log").read_text().count(f"saved at iteration {iteration};") == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [("--batch 3", "error: --batch 3: 2 processes share it, use a multiple of 2"), ("--transfer 1", "error: --transfer: ")],
)
def test_what_several_processes_cannot_do(
    flags: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    argv = [*files(tmp_path), "--data", f"{tmp_path}/layers.npz", "--out", f"{tmp_path}/out", *flags.split()]
    assert train_ddpm.main(argv) == 2
    text = capsys.readouterr().err
    assert text.startswith(said) and text.count("\n") == 1 and not (tmp_path / "out").exists()


def test_processes_draw_what_one_draws() -> None:
    whole, parts = Draws(3, 5), [Draws(3, 5, Place(share=Share(i, 3, True))) for i in range(3)]
    for draw in (lambda g, n: g.rand(n, 2), lambda g, n: g.randn(n, 3, 4), lambda g, n: g.randint(5, 90, n)):
        rows = torch.stack([draw(g, 4) for g in parts], 1)  # type: ignore[no-untyped-call]
        assert torch.equal(rows.flatten(0, 1), draw(whole, 12))  # type: ignore[no-untyped-call]


def test_the_end_of_another_process_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("[gloo] Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_reduce", broken)
    place = Place(share=Share(0, 2, True))
    for call in (lambda: place.anywhere(False), lambda: place.average([torch.zeros(2)])):
        with pytest.raises(WorkError, match="another process of this run has ended"):
            call()


# ---- devices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True], ids=["pinned", "kept"])
@pytest.mark.parametrize("kind", ["pictures", "layers", "transfers"])
def test_a_step_mixes_no_devices_and_waits_for_none(kind: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device "meta", whose tensors have no numbers: to look at one, or to compute with one of the CPU's, is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which "meta" has not
    monkeypatch.setattr(training.data, "has_room", lambda device, n_bytes: kept)
    meta = torch.device("meta")
    unet = build_unet("ddpm", 8, {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [4]}).to(meta)
    data: Any = Pictures(torch.zeros(9, 3, 8, 8, dtype=torch.uint8))
    if kind != "pictures":
        data = Layers(*map(torch.from_numpy, layers().values()))
    data.keep_on(meta)
    assert all(x.device == (meta if kept else training.device.CPU) for x in vars(data).values())
    abar = torch.tensor(linear_schedule().values)
    s = Settings(batch=8, twin=0.5, twin_clean=0.5, skip_drop=0.5, flip=True, uneven=0.1, transfer=1)
    for iteration in range(2):
        g = Draws(0, iteration, Place(meta))
        if kind == "transfers":
            walks = Walks(2, 8, meta)
            loss = transfer_loss(unet, data, abar, s, g, walks)
            assert walks.x.device == meta and walks.t.device.type == "cpu"
        else:
            loss = plain_loss(unet, data, abar, s, g)
        loss.backward()
        assert loss.device == meta and all(p.grad is not None and p.grad.device == meta for p in unet.parameters())


def test_pictures_stay_on_a_gpu_that_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.device, "free_memory", lambda device: 4000)
    assert has_room(torch.device("cuda"), 3000) and not has_room(torch.device("cuda"), 3001)
    assert not has_room(torch.device("cpu"), 1)  # they are there already


def test_what_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own number among those of the machine, a fast way for gradients, and algorithms that repeat themselves."""
    told: list[object] = []
    share = Share(3, 4, True, 1, 2)
    monkeypatch.setattr(
        training.device, "pick_device", lambda name, local: torch.device(name if name == "cpu" else f"cuda:{local}")
    )
    monkeypatch.setattr(training.device, "pick_precision", lambda *words: told.append(words))
    monkeypatch.setattr(training.device, "join", lambda *words: told.append(words))
    monkeypatch.setattr(training.device, "leave", told.append)
    device = torch.device("cuda:1")
    try:
        with computing("auto", "bf16", share) as place:
            assert place == Place(device, share) and torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert told == [("bf16", device), (share, device, "cpu:gloo,cuda:nccl"), share]
    with computing("cpu", "fp32", ALONE):
        assert not torch.are_deterministic_algorithms_enabled()


def test_a_loss_may_be_known_late_but_never_saved_unknown(tmp_path: Path) -> None:
    files(tmp_path)
    data = Pictures(torch.from_numpy(pictures()).permute(0, 3, 1, 2))
    trainer = Trainer(load_config(tmp_path / "tiny.yml"), Settings(), data, tmp_path / "out")
    trainer.iteration, trainer.running = 8, deque([lambda: torch.tensor(0.5), lambda: torch.tensor(0.25)])
    assert trainer.settle(1) == 0.5 and trainer.losses == [0.5]
    trainer.iteration = 9
    trainer.running.append(lambda: torch.tensor(math.nan))
    with pytest.raises(WorkError, match="iteration 8: the loss is nan; resume with a lower --lr"):
        trainer.save()
    assert trainer.losses == [0.5, 0.25] and not (tmp_path / "out").exists()


def test_the_old_name_of_bf16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a flag, and in a last.pt."""
    argv = [*files(tmp_path), "--data", f"{tmp_path}/pictures.npz", "--out", f"{tmp_path}/out", "--iterations"]
    assert train_ddpm.main([*argv, "1", "--bf16"]) == 0
    state = last(tmp_path / "out")
    assert state["settings"].pop("precision") == "bf16"
    torch.save({**state, "settings": {**state["settings"], "bf16": True}}, tmp_path / "out/last.pt")
    assert train_ddpm.main([*argv, "2", "--precision", "bf16"]) == 0
    assert "resuming with other settings" not in caplog.text
    assert train_ddpm.main([*argv, "3"]) == 0
    assert "resuming with other settings: precision bf16 -> fp32" in caplog.text


# ---- a GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("kind", ["plain", "transfers"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_as_the_cpu_and_resumes_exactly(kind: str, precision: str, tmp_path: Path) -> None:
    data, terms = ("pictures.npz", TERMS) if kind == "plain" else ("layers.npz", ["--transfer", "1", "--flip"])
    argv = [*files(tmp_path), "--data", f"{tmp_path}/{data}", "--batch", "8", "--precision", precision, *terms]
    try:
        for device, out, iterations in (
            ("cpu", "cpu", "0"), ("cpu", "cpu", "4"), ("cuda", "whole", "4"), ("cuda", "parts", "2"), ("cuda", "parts", "4"),
        ):  # fmt: skip
            assert train_ddpm.main([*argv, "--device", device, "--out", f"{tmp_path}/{out}", "--iterations", iterations]) == 0
            if iterations == "0":
                begin = last(tmp_path / out)["model"]
    finally:
        torch.use_deterministic_algorithms(False)
    on_cpu, whole, parts = (torch.load(tmp_path / name / "ema.pt", weights_only=True) for name in ("cpu", "whole", "parts"))
    assert equal(whole, parts) and all(x.device.type == "cpu" for x in whole.values())
    assert distance(whole, on_cpu) < (0.01 if precision == "fp32" else 0.5) * distance(on_cpu, begin)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_two_gpus_make_the_weights_of_one(tmp_path: Path) -> None:
    argv = [*files(tmp_path), "--data", f"{tmp_path}/pictures.npz", "--batch", "8", *TERMS, "--iterations", "4", "--out"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start, out in ((torchrun, "two"), ([], "one")):
        assert subprocess.run([sys.executable, *start, train_ddpm.__file__, *argv, f"{tmp_path}/{out}"]).returncode == 0
    one, two = (last(tmp_path / name)["model"] for name in ("one", "two"))
    assert distance(one, two) < 1e-4
