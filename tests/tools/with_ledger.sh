#!/usr/bin/env bash
# Runs a command with an empty ledger of second tries, and prints the ledger as the last lines.
# usage: with_ledger.sh COMMAND…
set -uo pipefail
mkdir -p .pytest_cache
rm -f .pytest_cache/second-tries
"$@"
status=$?
.venv/bin/python -m tests.tools.second_tries report || status=1
exit "$status"
