"""Uses the README's first command like a new user, and checks that it leaves nothing behind.

    make demo ──ready──▶ the page ──▶ a command that it prints ──▶ Ctrl-C ──▶ the machine as before

Rule 1: it runs before anything is installed, so it needs only the standard library.
Rule 2: it runs in its own PID namespace (``fresh_roots``) with only the demo's processes.
Rule 3: all waits have one deadline, after which running processes are reported.

``python3 -m tests.tools.demo_tour``, in a clone. It prints the demo's output, then the problems.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

LAST_LINE = "ending the demo …"
ANSWERS = 6
FIRST_LINE_S = 1.0
"""Seconds until a user must see progress."""
DEADLINE_S = 600.0
"""The deadline of the whole tour in seconds; installing takes two minutes on slow machines."""


class _Demo:
    """A running demo; its output is printed, and kept line by line.

    Args:
        command: The command, started as in a terminal: Ctrl-C signals each process of its group.
    """

    def __init__(self, command: Sequence[str], deadline_s: float) -> None:
        self.ends_at = time.monotonic() + deadline_s
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        # Read in a thread, because a process that the demo leaves behind may hold the pipe open.
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(line, end="", flush=True)
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def lines(self, *, until_exit: bool = False) -> Iterator[str]:
        """Yield lines as they arrive.

        Args:
            until_exit: Stop soon after the demo exits, even if another process has its output open.

        Raises:
            TimeoutError: The deadline has passed.
        """
        while True:
            left_s = self.ends_at - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            has_ended = until_exit and self.process.poll() is not None
            try:
                line = self._lines.get(timeout=min(left_s, 1.0))
            except queue.Empty:
                if has_ended:
                    return
                continue
            if line is None:
                return
            yield line


def tour(command: Sequence[str], deadline_s: float = DEADLINE_S) -> Iterator[str]:
    """Use the demo; yield a line for each problem."""
    before = _traces()
    began = time.monotonic()
    demo = _Demo(command, deadline_s)
    try:
        first = next(demo.lines(), "")
        if (seconds := time.monotonic() - began) > FIRST_LINE_S:
            yield f"the first line came after {seconds:.1f} s: {first}"
        yield from _use(demo)
        os.killpg(demo.process.pid, signal.SIGINT)
        ended = [*demo.lines(until_exit=True)]
        # make also prints the signal that terminated it.
        told = [line for line in ended if line and not line.startswith("make")]
        if told[-1:] != [LAST_LINE]:
            yield f"after Ctrl-C, {LAST_LINE!r} isn't its last line: {ended}"
        if demo.process.wait(30) not in (0, -signal.SIGINT):
            yield f"it exited with status {demo.process.returncode}"
    except TimeoutError:
        yield f"it had not ended after {deadline_s:.0f} s"
    yield from _left(before)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(demo.process.pid, signal.SIGKILL)


def _use(demo: _Demo) -> Iterator[str]:
    """Wait until the demo is ready, request its page and dial a Service; yield problems."""
    commands: dict[str, str] = {}
    for line in demo.lines():
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


def _traces() -> dict[str, set[str]]:
    """Return the traces that a program can leave on a machine, by kind."""
    git = ["git", "status", "--porcelain"]
    with contextlib.suppress(ChildProcessError):
        # This process adopts orphans if it is the first process of its namespace.
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    return {
        "processes": {*_processes()},
        "links": {path.name for path in Path("/sys/class/net").iterdir()},
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").open()},
        "files": {
            str(path) for folder in ("/tmp", "/run", "/var/tmp") for path in Path(folder).iterdir()
        },
        "changes": {
            *subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
        },
    }


def _processes() -> Iterator[str]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            # A process may exit while its entry is read.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield f"{folder.name} {(folder / 'cmdline').read_text().replace(chr(0), ' ')}"


def _left(before: dict[str, set[str]]) -> Iterator[str]:
    for kind, now in _traces().items():
        if left := now - before[kind]:
            yield f"it left {kind} behind: {sorted(left)}"


def main() -> int:
    """Run the tour; return 1 if there is a problem."""
    wrong = [*tour(["make", "demo"])]
    for line in wrong:
        print(f"error: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
