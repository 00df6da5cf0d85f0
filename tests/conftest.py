"""What the whole suite needs before it starts."""

from __future__ import annotations

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """A suite started in the background inherits an ignored SIGINT (which main.py respects); some tests send one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share the suite. What has a costly module-wide fixture or cache stays together; the long ones go first."""
    for item in items:
        name = item.nodeid.split("::")[0]
        if name.endswith("test_parity.py"):
            family = next((f for f in ("adm", "ddpm") if f in item.name), "none")
            item.add_marker(pytest.mark.xdist_group(f"parity-{family}"))
        elif name.endswith(("test_report.py", "test_checkpoints.py")):
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: "test_parity" not in item.nodeid)
