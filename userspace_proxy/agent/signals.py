"""Defines the effect of each signal on the agent.

    SIGTERM, SIGINT             stop: drain, remove rules, exit 0
    either signal again         exit at once with 128 + its number; kernel state stays
    again within 0.3 s          only a log line
    SIGUSR1                     exit 0 at once; workers serve until the next start
    SIGHUP, SIGUSR2             only a log line

SIGHUP reloads nothing: the agent follows manifests, kubeconfig, tokens and certificates while it
runs, and reads flags and the configuration file only when it starts.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from ..log_fields import FieldLogger

_log = FieldLogger("userspace_proxy.agent")

_STOP = (signal.SIGTERM, signal.SIGINT)
# The ignored signals. By default they terminate the process; `cli.commands` ignores them until this
# module handles them.
_IGNORED = (signal.SIGHUP, signal.SIGUSR2)
# Signals within this time count as one request: timeout(1) and some supervisors signal the child
# and then its process group, 1 ms apart. A person takes longer to press Ctrl-C again.
_SAME_REQUEST_S = 0.3
# The number of consecutive timers that measure this time. On a busy machine, one timer can be late
# by more than the whole time; a signal that arrives meanwhile is handled before the next timer.
_STEPS = 3


def stop_on_signal(
    loop: asyncio.AbstractEventLoop,
    arrived: list[int],
    *,
    leave: Callable[[], object],
    end: Callable[[int], object],
    later: Callable[..., object] | None = None,
) -> asyncio.Event:
    """Handle the signals of this process from now on.

    Args:
        loop: The main thread's loop.
        arrived: Receives the number of each SIGTERM and SIGINT immediately, even while the loop is
            busy.
        leave: Called upon SIGUSR1.
        end: Called with the exit status upon a second signal, unless it belongs to the same
            request.
        later: Calls a function after a number of seconds; None: the loop's ``call_later``.

    Returns:
        An event that the first SIGTERM or SIGINT sets.
    """
    stop = asyncio.Event()
    steps = 0

    def take_step() -> None:
        nonlocal steps
        steps += 1
        if steps <= _STEPS:
            (later or loop.call_later)(_SAME_REQUEST_S / _STEPS, take_step)

    def stop_or_end(number: signal.Signals) -> None:
        if not stop.is_set():
            stop.set()
            take_step()
            return
        if steps <= _STEPS:
            _log.info("repeated signal ignored: %(signal)s", extra={"signal": number.name})
            return
        _log.error(
            "second signal (%(signal)s), exiting now: rules stay until the next start or cleanup",
            extra={"signal": number.name},
        )
        # Flush the log, because atexit handlers aren't run.
        logging.shutdown()
        end(128 + number)

    for number in _STOP:
        loop.add_signal_handler(number, stop_or_end, number)
        # Replace the loop's empty handler: the loop receives signals through its wakeup descriptor.
        signal.signal(number, lambda number, _frame: arrived.append(number))
        signal.siginterrupt(number, False)
    loop.add_signal_handler(signal.SIGUSR1, leave)
    for number in _IGNORED:
        loop.add_signal_handler(number, _ignore, number)
    # A process that takes the node back starts with these signals blocked (`after_hand_over`), so
    # unblock them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
    return stop


def _ignore(number: signal.Signals) -> None:
    _log.info("signal ignored: %(signal)s", extra={"signal": number.name})
