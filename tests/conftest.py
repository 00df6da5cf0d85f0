"""What the whole suite needs before it starts."""

from __future__ import annotations

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """A suite started in the background inherits an ignored SIGINT (which main.py respects); some tests send one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


SHARED = ("test_report.py", "test_checkpoints.py", "test_page.py", "test_package.py")  # costly fixtures of a module
FIRST = ("test_golden_results", "test_torchrun", "test_it_runs_and_draws", "test_kill")  # the longest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share the suite: what shares a costly fixture or cache stays together, and no long test comes last."""
    for item in items:
        module, name = item.path.name, item.name
        if module in SHARED:
            item.add_marker(pytest.mark.xdist_group(module))
        elif "test_fp64" in name and "trained-adm" in name:
            item.add_marker(pytest.mark.xdist_group("fp64"))
        elif "command_line[" in name:
            item.add_marker(pytest.mark.xdist_group(f"command-line-{name.split('[')[1].split('-')[0]}"))
    items.sort(key=lambda item: not item.name.startswith(FIRST))
