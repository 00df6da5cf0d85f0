#!/usr/bin/env bash
# Every figure with the embedded model into results/figures (or --out of your own); arguments go to every script.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/environment.sh
environment requirements-dev.txt
for figure in h_operations correlation gamma omega t_edit style_mixing local_mixing art all_configs; do
  echo "== $figure"
  "$PYTHON" "scripts/figures/$figure.py" "$@"
done
