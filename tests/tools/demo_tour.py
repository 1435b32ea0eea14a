"""Uses the README's first command as a new user does, and checks that it leaves nothing behind.

    make demo ──ready──▶ the page ──▶ a command that it prints ──▶ Ctrl-C ──▶ the machine as before

Rule 1: it runs as the first thing on a machine, so it needs the standard library alone.
Rule 2: it runs in a PID namespace of its own (``fresh_roots``): what is seen there is the demo's.

``python3 -m tests.tools.demo_tour``, in a clone. It prints what the demo does, then what is wrong.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

READY = "userspace-proxy demo: ready"
ANSWERS = 6
FIRST_LINE_S = 1.0
"""Within that time a reader sees what is going on."""


def tour(command: list[str]) -> Iterator[str]:
    """Use the demo; yield a line for each thing that isn't as it should be."""
    before = _traces()
    began = time.monotonic()
    # As in a terminal: Ctrl-C goes to each process of the group.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as demo:
        assert demo.stdout is not None
        try:
            first = next(_shown(demo.stdout))
            if (seconds := time.monotonic() - began) > FIRST_LINE_S:
                yield f"the first line came after {seconds:.1f} s: {first}"
            yield from _use(demo.stdout)
        finally:
            os.killpg(demo.pid, signal.SIGINT)
        ended = [*_shown(demo.stdout)]
    if "ending the demo …" not in ended:
        yield f"Ctrl-C ended it without its last line: {ended}"
    # make is ended by the same signal as its child.
    if demo.returncode not in (0, -signal.SIGINT):
        yield f"it exited with status {demo.returncode}"
    yield from _left(before)


def _use(lines: IO[str]) -> Iterator[str]:
    """Wait until the demo is ready, ask its page and a Service; yield what is wrong."""
    commands: dict[str, str] = {}
    for line in _shown(lines):
        if found := re.match(r"  (\S.*?)  +(\S.*)", line):
            commands[found[1]] = found[2]
        if line.startswith("  the proxy's log"):
            break
    else:
        yield "it ended before it was ready"
        return
    with urllib.request.urlopen(commands["status page"], timeout=10) as page:
        if "shop/web" not in (text := page.read().decode()):
            yield f"its page doesn't show the Service shop/web: {text[:200]}"
    words = shlex.split(commands["round robin"])
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    answers = re.findall(r"\bweb-\d\b", done.stdout)
    print(f"{commands['round robin']}: {' '.join(answers)}", flush=True)
    if done.returncode or len(answers) != ANSWERS or len({*answers}) < 2:
        yield f"{words}: exit {done.returncode}, {done.stdout}{done.stderr}"


def _shown(lines: IO[str]) -> Iterator[str]:
    """Yield the lines, without their ends, and print them."""
    for line in lines:
        print(line, end="", flush=True)
        yield line.rstrip()


def _traces() -> dict[str, set[str]]:
    """Return what a program could leave on a machine, by kind."""
    git = ["git", "status", "--porcelain"]
    while True:
        # Orphans are this process's children if it is the first of its namespace.
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                break
        except ChildProcessError:
            break
    return {
        "processes": {
            (folder / "cmdline").read_text().replace("\0", " ")
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit()
        },
        "links": {path.name for path in Path("/sys/class/net").iterdir()},
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").open()},
        "files": {
            str(path) for folder in ("/tmp", "/run", "/var/tmp") for path in Path(folder).iterdir()
        },
        "changes": {*subprocess.run(git, capture_output=True, text=True).stdout.splitlines()},
    }


def _left(before: dict[str, set[str]]) -> Iterator[str]:
    for kind, now in _traces().items():
        if left := now - before[kind]:
            yield f"it left {kind} behind: {sorted(left)}"


def main() -> int:
    """Make the tour; return 1 if something isn't as it should be."""
    wrong = [*tour(["make", "demo"])]
    for line in wrong:
        print(f"error: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
