#!/bin/sh
# Make the environment of the real OneFlow in the folder $1: it wants Python 3.10, which is looked for here.
set -eu
folder=$1
here=$(dirname "$0")

works() { # a shim of pyenv may stand for a version that is not there
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 10))' > /dev/null 2>&1
}

find_python() {
  for candidate in "${PYTHON310:-}" python3.10 python3 python \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10*/bin/python "$(uv python find 3.10 2> /dev/null || true)"; do
    if [ -n "$candidate" ] && works "$candidate"; then
      echo "$candidate"
      return
    fi
  done
}

python=$(find_python)
if [ -z "$python" ]; then
  echo "OneFlow 0.9.0 runs under Python 3.10, and there is none here (looked for in PATH, pyenv and uv). Get one by" >&2
  echo "  uv python install 3.10        or  pyenv install 3.10" >&2
  echo "  apt-get install python3.10-venv   (where the distribution has it)" >&2
  echo "or name it: make test-oneflow PYTHON310=/path/to/python3.10" >&2
  exit 1
fi
echo "OneFlow's environment: $folder, of $python"
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
touch "$folder/.ready"
