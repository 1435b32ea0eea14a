"""What each signal does to the agent.

    SIGTERM, SIGINT             stop in good order: rules away, drain, exit 0
    the second of either        exit at once with 128 + its number; what is in the kernel stays
    SIGHUP, SIGUSR1, SIGUSR2    nothing but a log line

SIGHUP reloads nothing: manifests, kubeconfig, tokens and certificates are followed while the
agent runs, and flags and the configuration file count from the next start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

_log = logging.getLogger("userspace_proxy.agent")

_STOP = (signal.SIGTERM, signal.SIGINT)
# Their default is to end the process.
_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def stop_on_signal(
    loop: asyncio.AbstractEventLoop, *, end: Callable[[int], object] = os._exit
) -> asyncio.Event:
    """Handle the signals of this process from now on.

    Args:
        loop: Runs in the main thread.
        end: Called with the exit status at the second signal.

    Returns:
        What the first SIGTERM or SIGINT sets.
    """
    stop = asyncio.Event()

    def stop_or_end(number: signal.Signals) -> None:
        if not stop.is_set():
            stop.set()
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
