"""Runs a command and writes the time into its output whenever it was silent for long.

    ............. [3:30] ..... [4:15] building kubectl v1.36.3 ... [5:00] 62 s

Rule 1: the command's output, of both kinds, passes to standard output, and its exit status is this
one's. It ends with the command, not with what that has left behind.
Rule 2: it runs before anything is installed, so it needs the standard library alone.

``python3 tests/tools/progress.py COMMAND…``
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

SILENT_S = 30.0
"""A reader who sees nothing for a minute thinks that it hangs."""


def run(command: Sequence[str], silent_s: float = SILENT_S) -> int:
    """Run a command until it ends; return its exit status, 128 and the signal if one ended it.

    Ctrl-C reaches the command by itself, because both are in one process group. SIGTERM is passed
    on to all its descendants: a shell doesn't wait for its own child then. If nothing takes the
    output any more, they are terminated, too.

    Args:
        silent_s: After how many seconds of silence, again and again, the time is written.
    """
    began = time.monotonic()
    output, end = _terminal_like(1) if os.isatty(1) else os.pipe()
    # The other descriptors are those of make's job server.
    child = subprocess.Popen(command, stdout=end, stderr=end, close_fds=False)
    os.close(end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _terminate(child.pid))
    ended = os.pidfd_open(child.pid)
    try:
        while True:
            ready, _, _ = select.select([output, ended], [], [], silent_s)
            if not ready:
                minutes, seconds = divmod(int(time.monotonic() - began), 60)
                _write_out(f" [{minutes}:{seconds:02}] ".encode())
            elif output in ready and (part := _read(output)):
                _write_out(part)
            # A terminal's other end fails where a pipe's ends.
            elif output in ready or ended in ready:
                break
    except BrokenPipeError:
        _terminate(child.pid)
        # What Python still holds for the output is lost, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    finally:
        os.close(output)
        os.close(ended)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _terminal_like(descriptor: int) -> tuple[int, int]:
    """Return both ends of a new terminal of the same size as one."""
    output, end = pty.openpty()
    size = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(end, termios.TIOCSWINSZ, size)
    # The outer terminal processes the output.
    attributes = termios.tcgetattr(end)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(end, termios.TCSANOW, attributes)
    return output, end


def _terminate(pid: int) -> None:
    """Send SIGTERM to a process and its descendants, the oldest first.

    A shell whose child ends before it has its own signal goes on with its next command.
    """
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError):
                found += map(int, task.read_text().split())
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGTERM)


def _read(descriptor: int) -> bytes:
    with contextlib.suppress(OSError):
        return os.read(descriptor, 1 << 16)
    return b""


def _write_out(part: bytes) -> None:
    sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
