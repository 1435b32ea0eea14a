"""Starts and ends child processes that run a function of this package, and starts them again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

# Isolated, with this process's module path: ``-m`` would search the current directory first, and a
# child begins with this process's privileges.
_PROGRAM = """\
import os, sys
sys.path[:] = sys.argv[1].split(os.pathsep)
from {module} import {function}
sys.exit({function}(*map(int, sys.argv[2:])))
"""


def start_child(
    entry: str,
    *arguments: int,
    prefix: Sequence[str] = (),
    stderr: IO[bytes] | None = None,
    has_own_session: bool = False,
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a child with a connected Unix stream socket to this process.

    Args:
        entry: ``package.module:function``. It gets the descriptor of the child's end, then the
            arguments, and returns the exit status.
        arguments: Further arguments.
        prefix: A command that executes the interpreter, such as ``nsenter``.
        stderr: The child's standard error; by default this process's.
        has_own_session: Whether signals from the terminal (Ctrl-C) don't reach the child.

    Returns:
        The child, and this process's end, which the caller closes.

    Raises:
        OSError: No process or no socket is available.
    """
    module, _, function = entry.partition(":")
    program = _PROGRAM.format(module=module, function=function)
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [
                    *(*prefix, sys.executable, "-I", "-c", program, os.pathsep.join(sys.path)),
                    *map(str, (theirs.fileno(), *arguments)),
                ],
                stdin=subprocess.DEVNULL,
                # Standard output is this process's own: what a child prints belongs in the log.
                stdout=2,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
                start_new_session=has_own_session,
            )
    except BaseException:
        ours.close()
        raise
    return process, ours


def end_child(process: subprocess.Popen[bytes], within_s: float) -> int:
    """Wait for a child that is to end, or kill it at the deadline; return its exit status."""
    try:
        return process.wait(max(0.0, within_s))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def pause_before_start(failures: int, first_s: float, longest_s: float) -> float:
    """Return how long to wait before a child that failed is started again.

    Nothing after one failure; ``first_s`` after two in a row, and twice as long after each further
    one, up to ``longest_s``.
    """
    if failures < 2:
        return 0.0
    # A power with a larger exponent may overflow.
    return min(first_s * 2.0 ** min(failures - 2, 100), longest_s)
