"""Limits the number of descriptors that the data plane uses.

A proxy that runs out of descriptors in ``accept`` either loops on the error or closes clients that
it could serve a moment later. This proxy counts its descriptors, stops accepting before the limit,
and leaves clients waiting in the kernel's queue.

Rule 1: waiting callbacks are called when there is room, and a few times a second anyway: no event
reports that other code has closed descriptors.
Rule 2: a few descriptors are reserved for UDP flows, so that TCP connections can't block DNS.
Rule 3: if no descriptor is released for half a second, connections are reset (``shares``); further
resets within some seconds don't wait.
Rule 4: while memory is low (``memory_pressure``), a lower limit may apply to connections; the
other rules stay the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import resource
from collections.abc import Callable
from pathlib import Path

from ..linux import bounded
from ..log_limit import LogLimit
from .reactor import LoopTimer

_log = logging.getLogger("userspace_proxy.dataplane")

DESCRIPTORS = 2
"""Descriptors of one connection: the client's socket and the endpoint's."""
# Descriptors for other code: log files, API connections, status requests, the embedding program.
_RESERVE = 64
# The number of free descriptors that ends a pause, so that not every close wakes all listeners.
_RESUME_ROOM = 16
# Seconds between two calls of waiting callbacks: too long to cost anything, too short for clients
# to notice the wait.
_RETRY_S = 0.25
# A pause this long without a released descriptor is a stall; a busy proxy releases many.
_STALL_S = 0.5
# Waits further apart belong to different pauses: in a pause, callbacks wait again every _RETRY_S.
_PAUSE_GAP_S = 1.0
# How long after a reset at the descriptor limit further resets don't wait for a stall.
_SHEDDING_S = 5.0
# A sixteenth of the descriptors is reserved for UDP flows.
_FLOWS_PART = 16


class Descriptors:
    """The descriptors of one data plane.

    By default the limit is the process's unused descriptors, less a reserve, but at most
    :data:`~userspace_proxy.linux.DESCRIPTORS_MAX`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int | None = None) -> None:
        if limit is None:
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            limit = max(_RESERVE, bounded(soft) - _open_descriptors() - _RESERVE)
        self.limit = limit
        self.in_use = 0
        self._flows = 0
        self._held: int | None = None
        """The maximum of ``in_use`` for new connections while memory is low; otherwise None."""
        self.for_connections = 0
        """The maximum of ``in_use`` for new connections; flows may use the rest."""
        self._count_flows(0)
        self._timer = LoopTimer(loop, self._resume)
        self._waiting: list[Callable[[], None]] = []
        self._log_limit = LogLimit()
        self._full_since: float | None = None
        """When the current pause began, in monotonic seconds; None without a pause."""
        self._waited_at = -math.inf
        """When the last waiting callback was added, in monotonic seconds."""
        self._shedding_until = 0.0

    @property
    def is_accepting(self) -> bool:
        """Whether no callback waits for descriptors."""
        return not self._waiting

    def has_room(self, count: int) -> bool:
        """Return whether ``count`` more descriptors are free for uses other than flows."""
        return self.in_use + count <= self.for_connections

    def is_stalled(self, now: float) -> bool:
        """Return whether a pause has lasted for _STALL_S, or :meth:`shed` was called recently."""
        if now < self._shedding_until:
            return True
        is_paused = now - self._waited_at <= _PAUSE_GAP_S
        return is_paused and self._full_since is not None and now - self._full_since >= _STALL_S

    def shed(self, now: float) -> None:
        """Record that connections are being reset to make room."""
        self._shedding_until = now + _SHEDDING_S

    def take(self, count: int) -> None:
        """Count ``count`` more descriptors as in use."""
        self.in_use += count

    def give(self, count: int) -> None:
        """Count ``count`` descriptors as free; end a pause once enough are free."""
        self.in_use -= count
        # ``_waiting`` may be empty (the timer's callbacks found room); the pause must end anyway.
        if self._full_since is not None and self.has_room(min(_RESUME_ROOM, self.limit // 4 + 1)):
            self._full_since = None
            self._resume()

    def take_for_flow(self) -> None:
        """Count a UDP flow's descriptor as in use."""
        self._count_flows(1)
        self.take(1)

    def give_for_flow(self) -> None:
        """Count a UDP flow's descriptor as free."""
        self._count_flows(-1)
        self.give(1)

    def hold(self, more: int | None) -> None:
        """Cap connections' descriptors at ``more`` above the number in use; None removes the cap.

        The usual limit still applies if it is lower. None also calls the waiting callbacks.
        """
        self._held = None if more is None else self.in_use + more
        self._count_flows(0)
        if more is None:
            self._full_since = None
            self._resume()

    def wait(self, resume: Callable[[], None], now: float) -> None:
        """Call ``resume`` once when there may be room; without room, it must call this again."""
        # While memory is low, don't log the pause: ``memory_pressure`` logs its reason.
        if self._held is None and self._log_limit.take(now):
            text = "descriptor limit reached, pausing accepts"
            if self.has_room(DESCRIPTORS):
                text = "out of descriptors or memory, delaying accepts or dials"
            _log.warning(text, extra={"in_use": self.in_use, "limit": self.limit})
        if self._full_since is None or now - self._waited_at > _PAUSE_GAP_S:
            # A new pause begins: the previous pause ended without a released descriptor.
            self._full_since = now
        self._waited_at = now
        self._waiting.append(resume)
        self._timer.start(_RETRY_S)

    def close(self) -> None:
        """Stop calling waiting callbacks."""
        self._waiting.clear()
        self._timer.stop()

    def _count_flows(self, more: int) -> None:
        # Cost: the limit for connections is cached, because each connection reads it twice.
        self._flows += more
        most = self.limit - max(0, self.limit // _FLOWS_PART - self._flows)
        self.for_connections = most if self._held is None else min(most, self._held)

    def _resume(self) -> None:
        self._timer.stop()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts, needs no paths
    except OSError:
        return _RESERVE if Path("/proc").exists() else 0
