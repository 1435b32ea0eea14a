#!/bin/bash
# Compiles the data plane: the modules that have declarations (.pxd) beside them.
#
#   compile.sh PYTHON FROM TO     with a Python that has Cython, from the source in FROM to the
#                                 package in TO; both contain userspace_proxy
#
# Python prefers a compiled module to the source beside it. Checks stay on: an index or a None that
# the code overlooks raises an exception, and doesn't crash.
set -euo pipefail

python=$(readlink -f "$(dirname "$1")")/$(basename "$1")
to=$(readlink -f "$3")
# Setuptools would read the project's settings.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$2/userspace_proxy" "$work"
cd "$work"
find . -name '*.so' -delete
sources=$(find userspace_proxy -name '*.pxd' | sort | while read -r declarations; do
  module=${declarations%.pxd}
  ls "$module".pyx 2>/dev/null || echo "$module.py"
done)
export CFLAGS="-O2 -g0"
# shellcheck disable=SC2086 - one argument each
"$python" -m Cython.Build.Cythonize --inplace --parallel="$(nproc)" -3 \
  -X annotation_typing=False -X nonecheck=True $sources >log 2>&1 || { tail -n 40 log >&2; exit 1; }
find userspace_proxy -name '*.so' -exec cp --parents {} "$to" ';'
