"""Detects worker processes whose event loop has stopped iterating.

    worker ── a heartbeat every BEAT_S ──▶ eventfd ◀── a check every LOOK_S ── control process

Rule 1: each check without a heartbeat charges the worker LOOK_S if the worker sleeps or is stopped,
but only its CPU time if it runs, or waits for a CPU or a disk: on a busy machine, or with a CPU
limit, a worker is late but isn't hung.
Rule 2: charges depend on the number of checks, not on the time between them: a worker isn't charged
while the control process itself is late or stopped.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

# The seconds between heartbeats; with reports, an idle worker wakes up less than twice a second.
BEAT_S = 0.6
# The seconds between two checks of a worker. With HUNG_S, a worker that hangs is killed after 0.4
# to 1.25 s. HAProxy's watchdog takes 2 s.
LOOK_S = 0.25
# The charge at which a running worker is considered hung.
HUNG_S = 1.0
# The charge at which a starting worker is considered hung: it imports modules, perhaps from a cold
# disk.
HUNG_IN_START_S = 10.0

# The states in which only CPU time is charged, because the process may be waiting: R runs or waits
# for a CPU; D waits for a disk, where killing has no effect (proc_pid_stat(5)).
_WAITS_OR_RUNS = "RD"
# The share of LOOK_S that is charged if hidepid (proc(5)) hides the process state, because waiting
# can't be distinguished from hanging without it.
_SHARE_WHEN_HIDDEN = 1 / 8
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Watchdog:
    """The watchdog of one worker process; owns an eventfd, of which the worker has a copy."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._beats = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._cpu_s = 0.0
        """The worker's CPU time at the last check."""
        self._charged_s = 0.0
        """Seconds charged since the last heartbeat."""

    def fileno(self) -> int:
        """Return the descriptor to pass to the worker."""
        return self._beats

    def look(self, pid: int) -> float:
        """Check a process, every LOOK_S; return the seconds charged since its last heartbeat."""
        charge_s = self._charge(pid)
        try:
            os.eventfd_read(self._beats)
        except BlockingIOError:
            self._charged_s += charge_s
        else:
            self._charged_s = 0.0
        return self._charged_s

    def close(self) -> None:
        """Close the eventfd. Idempotent."""
        if self._beats >= 0:
            os.close(self._beats)
            self._beats = -1

    def _charge(self, pid: int) -> float:
        """Record a process's CPU time; return the charge of a check without a heartbeat."""
        try:
            # The process name before these fields may contain spaces and parentheses, so split the
            # line at the last parenthesis.
            fields = (self._proc / f"{pid}/stat").read_text("latin-1").rpartition(")")[2].split()
        except OSError:
            return LOOK_S * _SHARE_WHEN_HIDDEN
        cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        used_s, self._cpu_s = cpu_s - self._cpu_s, cpu_s
        return used_s if fields[0] in _WAITS_OR_RUNS else LOOK_S


class Heart:
    """The heartbeat of a worker, which its event loop sends; owns the worker's eventfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop, beats: int) -> None:
        self._loop = loop
        self._beats = beats
        self._beat()

    def close(self) -> None:
        self._timer.cancel()
        os.close(self._beats)

    def _beat(self) -> None:
        os.eventfd_write(self._beats, 1)
        self._timer = self._loop.call_later(BEAT_S, self._beat)
