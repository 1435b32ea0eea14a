#!/usr/bin/env bash
# Makes the virtual environment, or brings it up to date: what the lock file names, and
# both packages of this checkout as editable installs. Without a lock file it stays empty.
# usage: venv.sh PYTHON VENV [LOCKFILE]
set -euo pipefail
python=$1 venv=$2 lock=${3:-}

fail() { echo "error: $*" >&2; exit 1; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "$python is missing or not Python 3.11 or newer (name another: make PYTHON=/path/to/python3)"
if [ ! -x "$venv/bin/python" ]; then
  "$python" -m venv "$venv" >/dev/null 2>&1 ||
    { rm -rf "$venv"; fail "$python cannot make virtual environments (on Debian: apt-get install python3-venv)"; }
fi
[ -n "$lock" ] || exit 0
echo "installing $(grep -c '==' "$lock") pinned packages into $venv …"
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --require-hashes -r "$lock"
"${pip[@]}" install --no-deps --no-build-isolation --editable . --editable ./pytest-userspace-proxy
