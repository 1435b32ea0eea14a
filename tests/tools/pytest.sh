#!/usr/bin/env bash
# Runs a part of the tests in several processes. On a busy machine a deadline may pass that a test
# alone keeps, so tests that fail are run once more, one at a time: what fails then is an error.
# usage: [RUN="COMMAND…"] pytest.sh PART PYTEST-ARGUMENT…
set -uo pipefail
part=$1
shift
# A shell without job control starts background commands with SIGINT ignored; tests send it.
run=(env --default-signal=INT ${RUN:-.venv/bin/pytest} -o "cache_dir=.pytest_cache/$part" --dist=loadscope "$@")

"${run[@]}"
status=$?
# 1: tests have failed; anything else is no matter of luck.
[ "$status" -eq 1 ] || exit "$status"
echo "$part: running the failed tests again, one at a time"
exec "${run[@]}" -n 0 --last-failed --last-failed-no-failures=none
