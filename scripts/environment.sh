# Sourced by the other scripts: `environment FILE` makes .venv if need be, installs a requirements file into it once
# per content of the file, and leaves $PYTHON pointing at its interpreter. Versions are those of constraints.txt while
# that is there and they can be had, else the newest; a file that DIFFSTYLE_CONSTRAINTS names is binding.
environment() {
  local venv="${DIFFSTYLE_VENV:-.venv}" constraints="${DIFFSTYLE_CONSTRAINTS:-constraints.txt}"
  local files=(requirements.txt "$1") install stamp
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1")
  [ ! -e "$constraints" ] || files+=("$constraints")
  stamp="$venv/.installed-$(cat "${files[@]}" | cksum | cut -d' ' -f1)"
  if [ ! -e "$stamp" ]; then
    echo "installing $1 into $venv (the first time takes minutes: PyTorch is large)"
    if [ -n "${DIFFSTYLE_CONSTRAINTS:-}" ]; then
      "${install[@]}" -c "$constraints"
    elif [ ! -e "$constraints" ] || ! "${install[@]}" -c "$constraints"; then
      [ ! -e "$constraints" ] || echo "not all versions of $constraints can be had here: taking the newest instead" >&2
      "${install[@]}"
    fi
    touch "$stamp"
  fi
  PYTHON="$venv/bin/python"
}
