#!/usr/bin/env bash
# Every figure and table with the embedded model into results/figures (or --out of your own); arguments go to every script.
# JOBS scripts at a time (default 2, each on one thread of a CPU); JOBS=1 for large models on a GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/environment.sh
environment requirements-dev.txt
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" PYTHON
make_one() {
  name="$1"
  shift
  SECONDS=0
  "$PYTHON" "scripts/figures/$name.py" "$@" 2>&1 | sed "s/^/$name: /" || return
  echo "$name: made in $SECONDS s"
}
export -f make_one
printf '%s\0' table1 fig7_gamma user_study fig8_calibration fig10_art fig11_t_edit walls local_mixing fig5_blends \
  fig3_operations fig12_baseline fig9_datasets fig4_correlation |
  xargs -0 -P "${JOBS:-2}" -I{} bash -o pipefail -c 'make_one "$@"' _ {} "$@"
