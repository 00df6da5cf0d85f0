#!/usr/bin/env bash
# The one test command: a venv of its own, linters, types, the suite; with arguments, which go to pytest, a part of it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
environment requirements-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# Two processes of half the cores each: small networks gain little from more threads.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(( ($(getconf _NPROCESSORS_ONLN) + 1) / 2 ))}"
pytest=(pytest --numprocesses=2 --dist=loadgroup --no-loadscope-reorder --durations=15)
if [ $# -gt 0 ]; then exec "$PYTHON" -m "${pytest[@]}" "$@"; fi
# Where lines can be counted at 1.05 times the suite's time (sys.monitoring); before Python 3.12 it would be 1.4 times.
count=()
if "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then
  export COVERAGE_CORE="${COVERAGE_CORE:-sysmon}"
  count=(--cov=diffstyle --cov=models --cov-report=term:skip-covered --cov-fail-under=95)
fi
"$PYTHON" -m "${pytest[@]}" -m "not others" "${count[@]}"
