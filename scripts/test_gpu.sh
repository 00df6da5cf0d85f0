#!/usr/bin/env bash
# All tests that need a CUDA GPU. Without one they would be skipped, so it says so and fails. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
environment requirements-dev.txt
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "error: no CUDA GPU is visible to PyTorch here; these tests need one (scripts/test.sh runs all others)" >&2
  exit 1
fi
"$PYTHON" -m pytest -m gpu "$@"
