"""Runs the matrix: ``python -m tests.reliability [--rows=PATTERN] [--jobs=N]``, ``make faults``.

It writes docs/reliability.md unless only some rows are selected.
"""
# ruff: noqa: T201 - a program for a terminal.

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import describe_host, load_average
from tests import loopback
from userspace_proxy.errors import UserspaceProxyError

from .matrix import GROUPS, ROWS
from .measuring import Measured, measure
from .report import line_of, page_of, verdict_of
from .row import Row

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
TRIES = 2
"""The number of tries, as in ``make test``, because a row may miss a deadline on a busy machine."""

_ERRORS = (
    AssertionError,
    OSError,
    RuntimeError,
    UserspaceProxyError,
    subprocess.SubprocessError,
)
_TURNS: Mapping[str, AbstractContextManager[object]] = {
    group.name: threading.Lock() if group.is_serial else contextlib.nullcontext()
    for group in GROUPS
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the selected rows; return 0 if all were measured, and are within their limits."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--rows", default="*", metavar="PATTERN", help="names, as a shell pattern")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="rows at the same time")
    options = parser.parse_args(argv)
    rows = [row for row in ROWS if fnmatch.fnmatch(row.name, options.rows)]
    if not rows:
        print(f"error: no row matches {options.rows!r}", file=sys.stderr)
        return 2
    loopback.enter()
    machine = {**describe_host(), "load average before (1 and 5 minutes)": load_average()}
    began = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(_run, rows))
    results = [measured for measured in runs if measured]
    unmeasured = [row.name for row, measured in zip(rows, runs, strict=True) if not measured]
    machine["rows at the same time"] = str(options.jobs)
    machine["duration"] = f"{(time.monotonic() - began) / 60:.0f} minutes"
    if len(rows) == len(ROWS):
        PAGE.write_text(page_of(results, machine, unmeasured), encoding="utf-8")
        print(f"written: {PAGE}")
    return int(bool(unmeasured) or any(measured.problems() for measured in results))


def _run(row: Row) -> Measured | None:
    """Return a row's results, or None if it couldn't be measured."""
    measured = None
    for tried in range(1, TRIES + 1):
        try:
            with _TURNS[row.group], tempfile.TemporaryDirectory(prefix="faults-") as folder:
                measured = replace(measure(row, Path(folder)), is_second_try=tried > 1)
        except _ERRORS:
            print(f"{row.name}: not measured\n{traceback.format_exc()}", flush=True)
            continue
        again = bool(measured.problems()) and tried < TRIES
        print(f"{row.name}: {verdict_of(measured)}{', once more' if again else ''}")
        if not again:
            break
    if measured:
        print(f"{row.name}: {' | '.join(line_of(measured)[1:-1])}", flush=True)
    return measured


if __name__ == "__main__":
    sys.exit(main())
