#!/usr/bin/env bash
# Makes the virtual environment, or brings it up to date: what the lock file names, and
# all packages of this checkout as editable installs. Without a lock file it stays empty.
# usage: venv.sh PYTHON VENV [LOCKFILE]
set -euo pipefail
python=$1 venv=$2 lock=${3:-}

# Only what the tests need is built from source.
case $lock in *-dev.lock) part=build ;; *) part=venv ;; esac
PYTHON=$python "$(dirname "$0")/prepare.sh" "$part"
# Some tests run it as a user without privileges.
umask 022
# One whose Python has gone, as after an upgrade of the distribution, is made anew.
"$venv/bin/python" -c '' 2>/dev/null || rm -rf "$venv"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || { rm -rf "$venv"; exit 1; }
[ -n "$lock" ] || exit 0
echo "installing $(grep -c '==' "$lock") pinned packages into $venv …"
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --require-hashes -r "$lock"
"${pip[@]}" install --no-deps --no-build-isolation \
  --editable . --editable ./kubectl-userspace-proxy --editable ./pytest-userspace-proxy
