#!/usr/bin/env bash
# All that README, docs/explore.md, benchmarks/README.md and pretrained/README.md show and say of the embedded model, made anew:
# for other weights. Two at a time, each on one thread, into results/embedded: NAME.log holds what NAME printed, and its pictures
# and CSVs go where the documents have them. What is timed runs last, alone. Some hours on two cores, most of them for the
# solvers' exact walks; QUICK=1 looks whether it runs, in a few minutes, and changes no document; ONLY="teaser solvers" makes these
# alone, likewise.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
environment requirements-dev.txt
export PYTHON out=results/embedded avatars=test_images/avatars
export pairs=100 few=4 images=100 steps=50 moves=10 repeat=20 figures="" limits=""
if [ -n "${QUICK:-}" ]; then
  pairs=12 few=1 images=2 steps=4 moves=1 repeat=1 figures="--n_contents 1 --n_styles 1 --n_inv 4 --n_gen 4"
  limits="--n_inv_step 4 --n_gen_step 4"
fi
jobs="attributes intervals notebook reconstruction quickstart teaser"
[ -n "${QUICK:-}" ] || jobs="solvers $jobs" # it knows no quick form: its yardstick is 1,000 steps
mkdir -p "$out"

quickstart() { # the grid, also pretrained/quickstart_grid.png
  bash scripts/quickstart.sh --save_dir "$out/quickstart" --cache_dir "$out/latents" --overwrite $limits "$@"
}
one_pair() { quickstart --content_dir $avatars/contents/007.png --style_dir $avatars/styles/017.png "$@"; }
teaser() { # README's first picture, pretrained/teaser.png
  "$PYTHON" scripts/figures/fig7_gamma.py --content_dir $avatars/contents/010.png --style_dir $avatars/styles/021.png \
    --values 0,0.2,0.4,0.6 --cell 128 --out "$out/teaser" $figures
}
intervals() { # t_edit and t_boost by Asyrp's rule, and the teaser's pair with them from t_0 999, ten timesteps for injections, beside t_edit 200 and 100
  cp pretrained/avatars64.pt "$out/" # what is found is written beside the weights
  "$PYTHON" scripts/intervals.py --model_path "$out/avatars64.pt" --n_images $images --out "$out/intervals"
  local found="import json; r = json.load(open('$out/avatars64.intervals.json')); print(r['t_edit'], r['t_boost'])"
  read -r t_edit t_boost < <("$PYTHON" -c "$found")
  one_pair --save_dir "$out/intervals/pair" --t_0 999 --content_replace_step 10 --sweep "t_edit=$t_edit,200,100" --sweep "t_boost=0,$t_boost"
}
attributes() { # README's table, pretrained/README.md's two tables and picture
  "$PYTHON" benchmarks/attributes.py --pairs $pairs --gammas 0 0.5 1 --omegas 0.2 --omega_gamma 1 --t_edit 100 \
    --content_replace_step 4 --t_0 300 --n_inv $steps --n_gen $steps --out "$out/attributes"
}
reconstruction() { "$PYTHON" benchmarks/reconstruction.py --n $((few * 6)) --steps $steps; }
solvers() { # where and how often they ask the model, then benchmarks/README.md's first table and its picture
  "$PYTHON" scripts/search_grid.py
  "$PYTHON" scripts/make_avatars.py --n 64 --seed 3 --out "$out/others"
  "$PYTHON" scripts/measure_budgets.py --images "$out/others"
  "$PYTHON" benchmarks/solvers.py --pairs 32 --batch_size 16 --cases gamma=0.4 gamma=0.4,omega=0.3 \
    --solvers abm3 --nfe 16 18 20 23 24 26 28 36 40 --ddim 50 --out "$out/solvers"
}
notebook() { # its pictures as notebook_N.png
  "$PYTHON" - <<'PY'
import base64, os, nbformat
from nbclient import NotebookClient

notebook = nbformat.read("scripts/quickstart.ipynb", as_version=4)
NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": "scripts"}}).execute()
outputs = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
for i, output in enumerate(outputs):
    with open(f"{os.environ['out']}/notebook_{i}.png", "wb") as file:
        file.write(base64.b64decode(output["data"]["image/png"]))
PY
}
speed() { "$PYTHON" benchmarks/speed.py --networks avatars --repeat $repeat --out "$out/speed"; } # benchmarks/README.md's second table
explore() { # docs/explore.md's seconds and picture
  for solver in ddim abm3; do
    PYTHONPATH=tests "$PYTHON" benchmarks/explore.py --moves $moves --solver $solver --screenshot "$out/explore.jpg"
  done
}
make_one() {
  SECONDS=0
  (set -euo pipefail && "$1") > "$out/$1.log" 2>&1 || { echo "$1: FAILED, see $out/$1.log"; return 1; }
  echo "$1: made in $SECONDS s"
}
export -f quickstart one_pair teaser intervals attributes reconstruction solvers notebook make_one

[ -n "${ONLY:-}" ] || OMP_NUM_THREADS=1 bash scripts/figures/all.sh --out "$out/figures" $figures
printf '%s\n' ${ONLY:-$jobs} |
  OMP_NUM_THREADS=1 xargs -P "${JOBS:-2}" -I{} bash -c 'make_one {}'
[ -n "${ONLY:-}" ] || for name in speed explore; do make_one $name; done
[ -z "${QUICK:-}${ONLY:-}" ] || exit 0

cp "$out/quickstart/grid.png" pretrained/quickstart_grid.png
cp "$out/teaser/fig7_gamma.png" pretrained/teaser.png
cp "$out/avatars64.intervals.json" pretrained/
cp "$out/attributes/attributes.png" pretrained/
cp "$out/attributes/attributes.csv" "$out/solvers/solvers.csv" benchmarks/results/
cp "$out/solvers/solvers.png" benchmarks/
cp "$out/explore.jpg" docs/
