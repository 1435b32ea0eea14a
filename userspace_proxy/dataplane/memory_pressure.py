"""Watches how close this process is to a memory limit, and sheds load before it is reached.

    90 % of a limit ──▶ no more connections than now; the largest holders are reset
    below 85 %      ──▶ as before

At a cgroup's limit the kernel kills the process, and all its connections with it.

Rule 1: usage is read only after :meth:`Memory.watch`, and only if there is a limit.
Rule 2: usage is read four times a second, up to a hundred times while connections are accepted, and
whenever stalled readers have filled a quarter of the free memory: 1,000 fill 100 MiB in 0.1 s.
Rule 3: affinity entries (``sessionAffinity``) are dropped before connections are reset.
Rule 4: connections are reset only while they hold more than a 64th of the limit (``spared``):
if the rest of the process uses nearly all memory, resetting the last connections wouldn't help.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..kernel.memory_limits import MemoryLimit
from ..log_limit import LogLimit
from .descriptors import Descriptors
from .reactor import LoopTimer

_log = logging.getLogger("userspace_proxy.dataplane")

# Memory counts as short from this share of a limit: the rest must hold everything that the kernel
# and Python allocate within a few milliseconds. The shortage ends at a lower mark, so that the
# state doesn't flap with each connection.
HIGH = 0.90
LOW = 0.85
_SPARED_PART = 64
# Seconds between exact readings (70 µs each, measured), and the minimum between estimates (8 µs).
_EVERY_S = 0.25
_AT_MOST_EVERY_S = 0.01
# Seconds between two searches for a limit, which may be set later, for example by resizing the pod.
_FIND_EVERY_S = 10.0
# How long a past shortage is still reported, so that pages don't flap while load is shed.
_RECENT_S = 10.0
_ROOM_PART = 4
_LEAST_BYTES = 64 * 1024
# The shortest pause after shedding: the kernel frees the memory of closed sockets a moment later.
_SETTLE_S = 0.05
# The pause after shedding, as a multiple of its duration, which leaves time for traffic: checking
# 100,000 connections takes a few tenths of a second.
_SHED_PAUSES = 4

# An option of mallopt(3).
_M_MMAP_THRESHOLD = -3
_MAPPED_BYTES = 32 * 1024

Shed = Callable[[int, int, float], int]
"""Caps the number of connections, and resets some. Takes the bytes to free, the bytes that
connections may keep, and monotonic seconds; returns the number of reset connections."""


class MemoryState(NamedTuple):
    """The memory in use at the nearest limit; all fields are 0 or false without a limit."""

    used_bytes: int = 0
    limit_bytes: int = 0
    is_short: bool = False
    """Whether accepting is paused, except to replace other connections."""
    was_short: bool = False
    """Whether memory is low, or was recently: a brief shortage may fall between two scrapes."""


class Memory:
    """Watches the memory of a data plane's process, and sheds load near a limit."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], descriptors: Descriptors
    ) -> None:
        self.due = math.inf
        """Monotonic seconds from which :meth:`look` reads again; infinity if nothing is watched."""
        self.state = MemoryState()
        self.counts_sockets = False
        """Whether the limit counts socket buffers in the kernel."""
        self.shed: Shed = lambda _excess, _spared, _now: 0
        self._clock = clock
        self._descriptors = descriptors
        self._limits: Sequence[MemoryLimit] = ()
        self._find: Callable[[], Sequence[MemoryLimit]] = tuple
        self._find_at = 0.0
        self._short_at = -math.inf
        """When memory was last short, in monotonic seconds."""
        self._shed_at = 0.0
        """Monotonic seconds from which load may be shed again; earlier if usage grows."""
        self._shed_used = 0
        """Bytes in use when load was last shed."""
        self._noted = 0
        """Bytes queued for readers since usage was last read."""
        self._look_after = math.inf
        """The number of queued bytes that causes the next reading."""
        self._ended = 0
        """Connections reset since the last log line."""
        self._log_limit = LogLimit()
        self._has_logged = False
        """Whether the beginning of the current shortage was logged."""
        self._timer = LoopTimer(loop, self._watch)

    @property
    def spared_bytes(self) -> int:
        """Bytes that connections may always hold."""
        return self.state.limit_bytes // _SPARED_PART

    def watch(self, find: Callable[[], Sequence[MemoryLimit]]) -> None:
        """Shed load before a limit is reached; ``find``, called every 10 s, returns the limits."""
        self.close()
        self._find, self._find_at = find, 0.0
        self._watch()

    def look(self) -> None:
        """Read usage if the last reading is long enough ago; connections may be reset."""
        now = self._clock()
        if now >= self.due:
            self._estimate(now)

    def note(self, count: int) -> None:
        """Record that ``count`` more bytes wait for a reader; connections may be reset."""
        self._noted += count
        if self._noted >= self._look_after:
            self._estimate(self._clock())

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self.due = self._look_after = math.inf
        self._timer.stop()

    def _watch(self) -> None:
        now = self._clock()
        if now >= self._find_at:
            self._find_at = now + _FIND_EVERY_S
            self._limits = self._find()
            if self._limits:
                _return_freed_memory()
        self._judge(now, [limit.used() for limit in self._limits])
        self._timer.start(_EVERY_S if self._limits else _FIND_EVERY_S)

    def _estimate(self, now: float) -> None:
        used = [limit.estimate() for limit in self._limits]
        if any(u >= x.limit * HIGH for u, x in zip(used, self._limits, strict=True)):
            # The estimate may include reclaimable file cache. Take an exact reading, which excludes
            # the cache, so that no connection is reset because of it.
            used = [limit.used() for limit in self._limits]
        self._judge(now, used)

    def _judge(self, now: float, used: Sequence[int]) -> None:
        if not self._limits:
            self.due = self._look_after = math.inf
            self._end(MemoryState())
            return
        self.due = now + _AT_MOST_EVERY_S
        usages = zip(used, self._limits, strict=True)
        nearest, limit = max(usages, key=lambda usage: usage[0] / max(1, usage[1].limit))
        self.counts_sockets = limit.counts_sockets
        self._noted = 0
        self._look_after = max(_LEAST_BYTES, (limit.limit * HIGH - nearest) // _ROOM_PART)
        mark = LOW if self.state.is_short else HIGH
        is_short = nearest >= limit.limit * mark
        if is_short:
            self._short_at = now
        was_short = now - self._short_at < _RECENT_S
        state = MemoryState(nearest, limit.limit, is_short, was_short)
        if not state.is_short:
            self._end(state)
            return
        if not self.state.is_short:
            self._begin(state, now)
        self.state = state
        is_growing = nearest >= limit.limit * HIGH and nearest > self._shed_used
        if now < self._shed_at and not is_growing:
            return
        self._shed_used = nearest
        ended = self.shed(nearest - int(limit.limit * LOW), self.spared_bytes, now)
        self._ended += ended
        after = self._clock()
        self._shed_at = after + max(_SETTLE_S, _SHED_PAUSES * (after - now))
        if not ended and nearest < limit.limit * HIGH:
            # Other parts of the process use the memory, so pausing accepts doesn't help: end the
            # pause.
            self._end(state._replace(is_short=False))

    def _begin(self, state: MemoryState, now: float) -> None:
        self._has_logged = self._log_limit.take(now)
        if self._has_logged:
            _log.warning(
                "memory limit nearly reached, pausing accepts and resetting connections",
                extra={"used_mib": state.used_bytes >> 20, "limit_mib": state.limit_bytes >> 20},
            )

    def _end(self, state: MemoryState) -> None:
        was_short, self.state = self.state.is_short, state
        if not was_short:
            return
        self._descriptors.hold(None)
        if self._has_logged:
            ended, self._ended = self._ended, 0
            _log.info(
                "accepting connections again after memory pressure",
                extra={
                    "used_mib": state.used_bytes >> 20,
                    "limit_mib": state.limit_bytes >> 20,
                    "connections_reset": ended,
                },
            )


def _return_freed_memory() -> None:
    """Make malloc return freed buffers of stalled readers to the kernel. Idempotent.

    By default glibc raises its mmap threshold to the size of a freed block, so the next buffers of
    that size stay with the process (measured: 50 of 100 MiB).
    """
    # C libraries other than glibc may lack this function, and the behaviour that it changes.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
