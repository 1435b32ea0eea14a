"""Fuzzes all targets for a fixed total time: ``make fuzz FUZZ_S=600 TARGETS="yaml http"``.

Inputs that reach new code are kept in ``.fuzz``, and the next run starts with them. The run ends
with a table, and with status 1 if a target crashed; the input is in ``.fuzz/crashes``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / ".fuzz"
CORPUS = Path(__file__).parent / "corpus"
FUZZ_S = 600.0
# The timeout of an input in seconds; the slowest seed takes a tenth of a second.
_INPUT_S = 10
_MEMORY_MB = 1024
_INPUT_BYTES = 16 << 10
# Seconds to import and instrument the package and to replay known inputs on a busy machine.
_START_S = 300.0


@dataclass(frozen=True)
class Result:
    """The result of fuzzing one target."""

    target: str
    inputs: int
    new: int
    """The number of inputs that reached new code."""
    crash: str
    """The crashing input's file; ``no input`` if there is none; empty if the target didn't fail."""
    report: str
    """The last lines of the target's output."""


def fuzz(target: str, seconds: float) -> Result:
    """Fuzz a target in its own process for some seconds, and return the result."""
    crashes = FOUND / "crashes"
    found = FOUND / target
    for folder in (crashes, found):
        folder.mkdir(parents=True, exist_ok=True)
    prefix = f"{crashes}/{target}-"
    done = subprocess.run(
        [
            *("nice", "-n", "19", sys.executable, "-m", "tests.fuzz.one", target),
            f"-max_total_time={max(1, round(seconds))}",
            f"-timeout={_INPUT_S}",
            f"-rss_limit_mb={_MEMORY_MB}",
            f"-max_len={_INPUT_BYTES}",
            f"-artifact_prefix={prefix}",
            "-print_final_stats=1",
            *(str(found), str(CORPUS / target)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + _START_S + _INPUT_S,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    written = re.search(rf"Test unit written to ({re.escape(prefix)}\S+)", text)
    crash = written[1] if written else "no input" if done.returncode else ""
    figures = [_figure(text, name) for name in ("number_of_executed_units", "new_units_added")]
    return Result(target, *figures, crash, text[-4000:])


def _figure(text: str, name: str) -> int:
    found = re.search(rf"stat::{name}:\s+(\d+)", text)
    return int(found[1]) if found else 0


def main() -> int:
    """Fuzz the named targets, or by default all targets; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=FUZZ_S, help="in all")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    targets = arguments.targets or list(TARGETS)
    if unknown := set(targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(unknown)} (there are {', '.join(TARGETS)})")
    results = []
    for target in targets:
        result = fuzz(target, arguments.seconds / len(targets))
        results.append(result)
        if result.crash:
            sys.stdout.write(f"{result.report}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{'target':15}{'inputs':>12}{'new':>8}  crash\n")
    for one in results:
        row = f"{one.target:15}{one.inputs:12,}{one.new:8,}  {one.crash or 'none'}"
        sys.stdout.write(f"{row}\n")
    return 1 if any(one.crash for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
