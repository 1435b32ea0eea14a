"""The first process of a container: starts the control process, and again if it is killed.

    first process ──▶ control process ──▶ workers

With the first process of a PID namespace the kernel ends all others. If that were the control
process, a crash or a lack of memory would end every connection of the node. With this one workers
continue, and the next control process adopts them (ADR 0026).

Rule 1: signals go to the control process, and its exit status is the container's. It is started
again only if a signal ended it that didn't come from here: SIGKILL by the kernel, SIGSEGV.
Rule 2: it does so little that there is no reason for it to end; it waits for nothing but signals.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from ..clocks import Clocks
from ..pacing import backoff_s

_STOP = (signal.SIGTERM, signal.SIGINT)
_WAITED = (signal.SIGCHLD, *_STOP, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# A control process that ends sooner may die of its start. After the second one in a row there is a
# pause, which doubles with each; the first one costs clients nothing.
_SOUND_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


def run_as_first(command: list[str]) -> int:
    """Run a command until it ends by itself or is stopped; return its exit status.

    Only the main thread may run.
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
        early = early + 1 if Clocks.monotonic() - began < _SOUND_S else 1
        _complain(f"error: the control process ended by signal {-status} and is started again")
        pause_s = backoff_s(early - 1, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        if (stop := signal.sigtimedwait(_STOP, pause_s)) is not None:
            return 128 + stop.si_signo


def _follow(child: int) -> tuple[int, bool]:
    """Pass signals on to a child until it ends.

    Returns:
        Its exit status, below 0 for a signal; and whether it was to stop.
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
    """Reap what has ended, also orphaned workers; return the child's status if it has."""
    found = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                found = os.waitstatus_to_exitcode(ended[1])
    except ChildProcessError:
        pass
    return found


def _complain(line: str) -> None:
    # A reader of the log that stalls must not stop this process.
    if select.select([], [2], [], 0)[1]:
        print(line, file=sys.stderr, flush=True)
