"""Records the tests that failed once and passed when they were run again.

    pytest.sh ──failed first──▶ ledger ◀──report── make test, its last lines

Run it as ``python -m tests.tools.second_tries note PART`` after a part's first run, and as
``… report`` at the end of a run, which fails if more than ``ALLOWED`` tests are listed.

Rule 1: each second try is a line of the ledger; the goal is an empty ledger.
Rule 2: the ledger covers one run: ``make test`` starts with an empty ledger.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(".pytest_cache")
LEDGER = "second-tries"
ALLOWED = 2
"""The maximum in one run: more are caused by the tests or the product, not by the machine."""


def failed_tests(part: str) -> list[str]:
    """Return the sorted IDs of a part's tests that failed in pytest's last run.

    Args:
        part: The part's name, and its folder in the cache.
    """
    found = CACHE / part / "v" / "cache" / "lastfailed"
    return sorted(json.loads(found.read_text())) if found.is_file() else []


def judge(tests: Sequence[str]) -> tuple[list[str], bool]:
    """Return the lines of a report, and whether the run may pass.

    Args:
        tests: The entries of the ledger, each with a part and a test's ID.
    """
    if not tests:
        return ["no test needed a second try"], True
    lines = ["needed a second try:", *(f"  {test}" for test in tests)]
    if len(tests) > ALLOWED:
        lines.append(f"error: {len(tests)} tests needed a second try; at most {ALLOWED} may")
    return lines, len(tests) <= ALLOWED


def main(words: Sequence[str]) -> int:
    """Run ``note`` or ``report``; return the exit status."""
    ledger = CACHE / LEDGER
    match list(words):
        case ["note", part]:
            with ledger.open("a") as lines:
                lines.writelines(f"{part}: {test}\n" for test in failed_tests(part))
            return 0
        case ["report"]:
            tests = ledger.read_text().splitlines() if ledger.is_file() else []
            report, is_good = judge(tests)
            sys.stdout.write("\n".join([*report, ""]))
            return 0 if is_good else 1
    sys.stderr.write("usage: python -m tests.tools.second_tries note PART | report\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
