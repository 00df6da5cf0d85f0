# Sourced by the other scripts: `environment FILE` makes .venv if need be, installs a requirements file into it once
# per content of the file, and leaves $PYTHON pointing at its interpreter.
environment() {
  local venv="${DIFFSTYLE_VENV:-.venv}" stamp
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  stamp="$venv/.installed-$(cat requirements.txt "$1" | cksum | cut -d' ' -f1)"
  if [ ! -e "$stamp" ]; then
    echo "installing $1 into $venv (the first time takes minutes: PyTorch is large)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1"
    touch "$stamp"
  fi
  PYTHON="$venv/bin/python"
}
