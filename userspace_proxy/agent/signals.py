"""What each signal does to the agent.

    SIGTERM, SIGINT             stop in good order: rules away, drain, exit 0
    either again                exit at once with 128 + its number; what is in the kernel stays
    either again within 0.3 s   nothing but a log line
    SIGHUP, SIGUSR1, SIGUSR2    nothing but a log line

SIGHUP reloads nothing: manifests, kubeconfig, tokens and certificates are followed while the
agent runs, and flags and the configuration file count from the next start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable

_log = logging.getLogger("userspace_proxy.agent")

_STOP = (signal.SIGTERM, signal.SIGINT)
# Their default is to end the process; `cli.commands` ignores them until they are handled here.
_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# timeout(1) signals its child and then the child's process group, 1 ms apart, and so do some
# supervisors: that is one request. A person needs longer to press Ctrl-C again.
_SAME_REQUEST_S = 0.3


def stop_on_signal(
    loop: asyncio.AbstractEventLoop,
    *,
    end: Callable[[int], object] = os._exit,
    clock: Callable[[], float] = time.monotonic,
) -> asyncio.Event:
    """Handle the signals of this process from now on.

    Args:
        loop: Runs in the main thread.
        end: Called with the exit status when a second signal asks for it.
        clock: Monotonic seconds; called once for each SIGTERM or SIGINT.

    Returns:
        What the first SIGTERM or SIGINT sets.
    """
    stop = asyncio.Event()
    first_at = 0.0

    def stop_or_end(number: signal.Signals) -> None:
        nonlocal first_at
        now = clock()
        if not stop.is_set():
            first_at = now
            stop.set()
            return
        if now - first_at < _SAME_REQUEST_S:
            _log.info("signal repeated at once, ignored", extra={"signal": number.name})
            return
        _log.error(
            "second signal, exiting at once: rules stay until the next start, or until cleanup",
            extra={"signal": number.name},
        )
        # Flushes the handlers; atexit, which would do that, isn't run.
        logging.shutdown()
        end(128 + number)

    for number in _STOP:
        loop.add_signal_handler(number, stop_or_end, number)
    for number in _IGNORED:
        loop.add_signal_handler(number, _ignore, number)
    return stop


def _ignore(number: signal.Signals) -> None:
    _log.info("signal ignored", extra={"signal": number.name})
