# Sourced by quickstart.sh and test.sh: make a virtual environment and install into it.
# VENV names another folder; PYTHON another interpreter (3.11 or newer).

make_env() { # make_env REQUIREMENTS_FILE
  local venv=${VENV:-.venv} python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2
    return 1
  }
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  export PATH="$PWD/$venv/bin:$PATH"
  [[ "$venv" = /* ]] && export PATH="$venv/bin:$PATH"
  local stamp="$venv/.installed-$(cat requirements*.txt setup.cfg setup.py | cksum | cut -d' ' -f1)-$1"
  if [ ! -e "$stamp" ]; then
    echo "installing $1 into $venv ..."
    python -m pip install --quiet --disable-pip-version-check -r "$1"
    python -m pip install --quiet --disable-pip-version-check --no-deps -e .
    touch "$stamp"
  fi
}
