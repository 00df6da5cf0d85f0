#!/usr/bin/env bash
# The one test command: a venv of its own, linters, types, the whole suite with coverage. Extra arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
environment requirements-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# sys.monitoring counts lines at 1.05 times the time of the Python code that is counted; the tracer of before 3.12 at 1.9.
if "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then export COVERAGE_CORE="${COVERAGE_CORE:-sysmon}"; fi
# Two processes of half the cores each: small networks gain little from more threads.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(( ($(getconf _NPROCESSORS_ONLN) + 1) / 2 ))}"
"$PYTHON" -m pytest --numprocesses=2 --dist=loadgroup --no-loadscope-reorder --cov=diffstyle --cov=models --cov-report=term:skip-covered --cov-fail-under=95 "$@"
