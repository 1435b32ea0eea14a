"""Runs a command, and prints its duration so far once a minute.

Without output for minutes, a user would assume that the command hangs. This module runs before
anything is installed, so it needs only the standard library.

``python3 tests/tools/progress.py COMMAND…``
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

EVERY_S = 60.0


def run(command: Sequence[str], every_s: float = EVERY_S) -> int:
    """Run a command to its end; return its exit status, or 128 plus the signal that ended it.

    Ctrl-C reaches the command directly, because both processes are in one process group. SIGTERM is
    sent to all descendants, because a shell that gets it doesn't wait for its child.
    """
    began = time.monotonic()
    # The descriptors of make's job server are inherited.
    child = subprocess.Popen(command, close_fds=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _terminate(child.pid))
    while True:
        try:
            status = child.wait(every_s)
        except subprocess.TimeoutExpired:
            minutes, seconds = divmod(int(time.monotonic() - began), 60)
            sys.stdout.write(f" [{minutes}:{seconds:02}] ")
            sys.stdout.flush()
        else:
            return status if status >= 0 else 128 - status


def _terminate(pid: int) -> None:
    """Send SIGTERM to a process and its descendants, the oldest first.

    A shell whose child exits before the shell gets the signal would run its next command."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError):
                found += map(int, task.read_text().split())
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
