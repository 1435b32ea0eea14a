"""Admission control: how many descriptors the data plane may use.

A proxy that runs out of descriptors in ``accept`` either loops on the error or
closes clients that it could have served a moment later. So we count, stop taking
from the queue before the end, and let the kernel keep the clients waiting.

Rule 1: callbacks that wait are called when there is room, and a few times a second anyway:
nothing reports that descriptors which aren't ours were given back.
Rule 2: a few are kept for UDP flows, so that connections can't keep DNS from being answered.
Rule 3: when nothing has been given back for a moment it is a stall: then connections are
reset (``shares``), and as long as that goes on no client waits again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path

from ..log_limit import LogLimit

_log = logging.getLogger("userspace_proxy.dataplane")

# Kept for what is not ours: log files, API connections, status requests, the embedder's own.
_RESERVE = 64
# After a pause this many must be free, so that every single close doesn't wake all listeners.
_RESUME_ROOM = 16
# Seldom enough to cost nothing, often enough that clients don't notice the wait.
_RETRY_S = 0.25
# A proxy that is only busy gives descriptors back all the time.
_STALL_S = 0.5
# After connections were reset at the limit, the next ones are without such a wait.
_SHEDDING_S = 5.0
# Kept for UDP flows: a sixteenth.
_FLOWS_PART = 16
# A limit of 2^30 (containerd with LimitNOFILE=infinity) is none: memory would end first. With so
# many a worker holds 131,072 connections, in 1.1 GiB: two idle sockets of 3.8 KiB (measured: the
# slab's growth by 16,000 on loopback, Linux 6.18) and 1 KiB of ours (docs/benchmarks.md). It is
# also the fewest connections that kube-proxy has the kernel track: its conntrack.min.
DESCRIPTORS_MAX = 262_144


def bounded(limit: int) -> int:
    """Return a limit of open files, or :data:`DESCRIPTORS_MAX` where that is less."""
    return DESCRIPTORS_MAX if limit == resource.RLIM_INFINITY else min(limit, DESCRIPTORS_MAX)


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to the hard one, bounded; returns the limit in force.

    One above the bound is lowered to it, for this process and those that it starts.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = bounded(hard)
    if soft != wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Descriptors:
    """The descriptors of one data plane.

    Args:
        loop: Its timers are used.
        limit: How many may be used; None for what the process has left, less a reserve, and
            :data:`DESCRIPTORS_MAX` at the most.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int | None = None) -> None:
        if limit is None:
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            limit = max(_RESERVE, bounded(soft) - _open_descriptors() - _RESERVE)
        self.limit = limit
        self.in_use = 0
        self._flows = 0
        self._for_connections = 0
        """All but those that are kept for flows and aren't in use by them."""
        self._count_flows(0)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[Callable[[], None]] = []
        self._log_limit = LogLimit()
        self._full_since: float | None = None
        """When the first of the callbacks that wait came."""
        self._shedding_until = 0.0

    @property
    def is_accepting(self) -> bool:
        """False while a callback waits for descriptors to be given back."""
        return not self._waiting

    def has_room(self, count: int) -> bool:
        """Return whether so many more may be used by anything but flows."""
        return self.in_use + count <= self._for_connections

    def has_room_for_flow(self) -> bool:
        """Return whether one more UDP flow may have its descriptor."""
        return self.in_use < self.limit

    def is_stalled(self, now: float) -> bool:
        """Return whether callbacks have waited for too long, or did so a moment ago."""
        if now < self._shedding_until:
            return True
        return self._full_since is not None and now - self._full_since >= _STALL_S

    def shed(self, now: float) -> None:
        """Note that connections are being reset to make room."""
        self._shedding_until = now + _SHEDDING_S

    def take(self, count: int) -> None:
        """Note that so many more are in use."""
        self.in_use += count

    def give(self, count: int) -> None:
        """Note that so many are free again; calls those that wait when there is room."""
        self.in_use -= count
        if self._waiting and self.has_room(min(_RESUME_ROOM, self.limit // 4 + 1)):
            self._full_since = None
            self._resume()

    def take_for_flow(self) -> None:
        """Note that one more is in use by a UDP flow."""
        self._count_flows(1)
        self.take(1)

    def give_for_flow(self) -> None:
        """Note that a UDP flow has given its descriptor back."""
        self._count_flows(-1)
        self.give(1)

    def wait(self, resume: Callable[[], None], now: float) -> None:
        """Call back once, when there may be room again; a caller that finds none waits again."""
        if self._log_limit.take(now):
            _log.warning(
                "descriptor limit reached, accepting is paused",
                extra={"in_use": self.in_use, "limit": self.limit},
            )
        if self._full_since is None:
            self._full_since = now
        self._waiting.append(resume)
        if self._timer is None:
            self._timer = self._loop.call_later(_RETRY_S, self._resume)

    def close(self) -> None:
        """Call nothing any more."""
        self._waiting.clear()
        self._stop_timer()

    def _count_flows(self, more: int) -> None:
        # Worked out here: each connection asks for room twice.
        self._flows += more
        self._for_connections = self.limit - max(0, self.limit // _FLOWS_PART - self._flows)

    def _resume(self) -> None:
        self._stop_timer()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts, needs no paths
    except OSError:
        return _RESERVE if Path("/proc").exists() else 0
