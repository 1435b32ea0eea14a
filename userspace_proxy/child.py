"""Starts and ends child processes that run a function of this package."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

# The running program's file, even if an upgrade has removed or replaced the file.
RUNNING_INTERPRETER = "/proc/self/exe"
RESTARTED = "USERSPACE_PROXY_RESTARTED"
"""The environment variable of a control process that its first process has started again."""
# The program of a child, which uses this process's module path: with ``-m``, a child with this
# process's privileges would import modules from the current directory first.
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
        entry: ``package.module:function``. The function receives the descriptor of the child's end
            and the arguments, and returns the exit status.
        arguments: Further arguments.
        prefix: A command that runs the interpreter, such as ``nsenter``.
        stderr: The child's standard error; None for this process's standard error.
        has_own_session: Whether signals from the terminal (Ctrl-C) don't reach the child.

    Returns:
        The child, and this process's end of the socket pair, which the caller closes.

    Raises:
        OSError: No process or no socket is available.
    """
    module, _, function = entry.partition(":")
    program = _PROGRAM.format(module=module, function=function)
    if prefix or _is_in_place():
        executable, interpreter, environment = None, [*prefix, sys.executable, "-I"], None
    else:
        executable = RUNNING_INTERPRETER
        interpreter, environment = running_interpreter()
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [
                    *(*interpreter, "-c", program, os.pathsep.join(sys.path)),
                    *map(str, (theirs.fileno(), *arguments)),
                ],
                executable=executable,
                env=environment,
                stdin=subprocess.DEVNULL,
                # Send its output to the log, because standard output belongs to this process.
                stdout=2,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
                start_new_session=has_own_session,
            )
    except BaseException:
        ours.close()
        raise
    return process, ours


def running_interpreter() -> tuple[list[str], dict[str, str]]:
    """Return the first words of a command for the running interpreter, and its environment.

    It then finds only its standard library, even if the virtual environment is broken.
    """
    # Without PYTHONHOME the interpreter would search for its library relative to its file or
    # virtual environment, which may be gone.
    home = f"{sys.base_prefix}{os.pathsep}{sys.base_exec_prefix}"
    others = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    return [sys.executable, "-s", "-S", "-P"], {**others, "PYTHONHOME": home}


def _is_in_place() -> bool:
    """Return whether the interpreter's file is still the running one."""
    try:
        return Path(sys.executable).samefile(RUNNING_INTERPRETER)
    except OSError:
        return False


def end_child(process: subprocess.Popen[bytes], within_s: float) -> int:
    """Wait for a child to end, or kill it at the deadline; return its exit status."""
    try:
        return process.wait(max(0.0, within_s))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
