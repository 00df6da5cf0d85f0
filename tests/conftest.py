"""What the whole suite needs before it starts."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """A suite in the background inherits an ignored SIGINT, under nohup SIGHUP (which main.py respects); some tests send one.

    What tests write need not outlive a power cut: nobody waits for the disk.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    pytest.MonkeyPatch().setattr(os, "fsync", lambda _: None)


@pytest.fixture
def few_steps_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples that the trainer draws to be looked at are most of the time of a short training."""
    import train_ddpm
    from training.watch import sample

    monkeypatch.setattr(train_ddpm, "sample", partial(sample, steps=4))


SHARED = ("test_report.py", "test_checkpoints.py", "test_page.py", "test_package.py")  # costly fixtures of a module
FIRST = ("test_golden_", "test_fp64", "test_torchrun", "test_kill", "test_full_size")  # the longest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share the suite: what shares a costly fixture or cache stays together, and no long test comes last."""
    for item in items:
        module, name = item.path.name, item.name
        if item.get_closest_marker("others"):
            continue  # long ones, each for itself
        if module in SHARED:
            item.add_marker(pytest.mark.xdist_group(module))
        elif "test_fp64" in name and "trained-adm" in name:
            item.add_marker(pytest.mark.xdist_group("fp64"))
        elif name.startswith("test_golden_"):  # the inverted pictures of a family
            family = name.split("[")[1].split("-")[0].strip("]")
            item.add_marker(pytest.mark.xdist_group(f"golden-{family}{'-by-command' * ('command_line' in name)}"))
    items.sort(key=lambda item: not item.name.startswith(FIRST))  # scripts/test.sh has xdist keep the order
