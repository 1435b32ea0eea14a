#!/usr/bin/env bash
# Runs a part of the tests in several processes. Failed tests are rerun one at a time, and listed in a
# ledger, which `make test` prints at its end. A second failure, or too many entries, is an error.
# usage: [RUN="COMMAND…"] pytest.sh PART PYTEST-ARGUMENT…
set -uo pipefail
part=$1
shift
python=.venv/bin/python
# A shell without job control starts background commands with SIGINT ignored, but tests send SIGINT.
run=(env --default-signal=INT ${RUN:-.venv/bin/pytest} -o "cache_dir=.pytest_cache/$part" "$@")

# Without compiled tests, each process would compile them all, because all collect them at once.
compgen -G "tests/__pycache__/conftest.*-pytest-*.pyc" >/dev/null ||
  "${run[@]}" -n 0 --collect-only --quiet >/dev/null

"${run[@]}" --cache-clear
status=$?
# Status 1 means failed tests; other statuses aren't caused by chance.
[ "$status" -eq 1 ] || exit "$status"
"$python" -m tests.tools.second_tries note "$part"
echo "$part: running the failed tests again, one at a time"
exec "${run[@]}" -n 0 --last-failed --last-failed-no-failures=none
