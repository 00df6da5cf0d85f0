#!/usr/bin/env bash
# The one test command: a venv of its own, linters, types, the whole suite with coverage. Extra arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
environment requirements-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m mypy
"$PYTHON" -m pytest --cov=diffstyle --cov=models --cov-report=term:skip-covered --cov-fail-under=95 "$@"
