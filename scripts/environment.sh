# Sourced by the other scripts: `environment FILE` makes .venv if need be, installs a requirements file into it once
# per content of the file, and leaves $PYTHON pointing at its interpreter. Versions are those of constraints.txt (or of
# the file that DIFFSTYLE_CONSTRAINTS names) while that is there and can be had, else the newest.
environment() {
  local venv="${DIFFSTYLE_VENV:-.venv}" constraints="${DIFFSTYLE_CONSTRAINTS:-constraints.txt}" stamp
  local files=(requirements.txt "$1") install
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1")
  [ ! -e "$constraints" ] || files+=("$constraints")
  stamp="$venv/.installed-$(cat "${files[@]}" | cksum | cut -d' ' -f1)"
  if [ ! -e "$stamp" ]; then
    echo "installing $1 into $venv (the first time takes minutes: PyTorch is large)"
    if [ ! -e "$constraints" ]; then
      "${install[@]}"
    elif ! "${install[@]}" -c "$constraints"; then
      echo "the versions in $constraints cannot be had here, taking the newest instead" >&2
      "${install[@]}"
    fi
    touch "$stamp"
  fi
  PYTHON="$venv/bin/python"
}
