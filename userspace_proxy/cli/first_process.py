"""Runs as a container's first process: starts the control process, and restarts a killed one.

    first process ──▶ control process ──▶ workers

When the first process of a PID namespace exits, the kernel kills its other processes. If that were
the control process, its crash or OOM kill would break all connections of the node. With a separate
first process, workers continue, and the next control process adopts them (ADR 0026).

Rule 1: signals are passed to the control process, whose exit status is the container's. A control
process killed by a signal, such as the OOM killer's SIGKILL, is restarted, unless it was told to
stop.
Rule 2: this process only waits for signals, so that it has no reason to fail.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from ..child import RESTARTED
from ..clocks import Clocks
from ..pacing import backoff_s

_STOP = (signal.SIGTERM, signal.SIGINT)
_WAITED = (signal.SIGCHLD, *_STOP, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# A control process killed before this age may have failed at startup: consecutive early ends double
# the delay before the restart, which is otherwise immediate.
_SOUND_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


def run_as_first(command: list[str]) -> int:
    """Run a command until it exits or is stopped, restarting it if killed; return its status.

    Call this while only the main thread is running.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    early = 0
    while True:
        began = Clocks.monotonic()
        child = os.posix_spawn(command[0], command, os.environ, setsigmask=())
        status, is_stopping = _follow(child)
        if status >= 0:
            return status
        if is_stopping:
            return 128 - status
        os.environ[RESTARTED] = "1"
        early = early + 1 if Clocks.monotonic() - began < _SOUND_S else 1
        _complain(f"error: the control process exited (signal {-status}), restarting it")
        pause_s = backoff_s(early - 1, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        if (stop := signal.sigtimedwait(_STOP, pause_s)) is not None:
            return 128 + stop.si_signo


def _follow(child: int) -> tuple[int, bool]:
    """Forward signals to a child until it exits.

    Returns:
        The exit status, negative for a signal, and whether a stop was requested.
    """
    is_stopping = False
    while True:
        number = signal.sigwait(_WAITED)
        if number != signal.SIGCHLD:
            is_stopping = is_stopping or number in _STOP
            os.kill(child, number)
        elif (status := _reap(child)) is not None:
            return status, is_stopping


def _reap(child: int) -> int | None:
    """Reap exited processes, even orphaned workers; return the child's status if it has exited."""
    found = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                found = os.waitstatus_to_exitcode(ended[1])
    except ChildProcessError:
        pass
    return found


def _complain(line: str) -> None:
    # Drop the line if stderr has no room: a stalled reader of the log mustn't block this process.
    if select.select([], [2], [], 0)[1]:
        print(line, file=sys.stderr, flush=True)
