"""Admission control: how many descriptors the data plane may use.

A proxy that runs out of descriptors in ``accept`` either loops on the error or
closes clients that it could have served a moment later. So we count, stop taking
from the queue before the end, and let the kernel keep the clients waiting.

Rule 1: whoever waits is called when there is room, and a few times a second all the
same: nobody tells us when descriptors that aren't ours are given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger("userspace_proxy.dataplane")

# Kept for what is not ours: log files, API connections, status requests, the embedder's own.
_RESERVE = 64
# After a pause this many must be free, so that every single close doesn't wake all listeners.
_RESUME_ROOM = 16
# Seldom enough to cost nothing, often enough that nobody notices the wait.
_RETRY_S = 0.25
# One line a minute is enough for what lasts.
_LOG_EVERY_S = 60.0


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to the hard one; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Descriptors:
    """The descriptors of one data plane.

    Args:
        loop: Its timers are used.
        limit: How many may be used; None for what the process has left, less a reserve.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int | None = None) -> None:
        if limit is None:
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            limit = max(_RESERVE, soft - _open_descriptors() - _RESERVE)
        self.limit = limit
        self.in_use = 0
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[Callable[[], None]] = []
        self._logged_at = -_LOG_EVERY_S

    @property
    def is_accepting(self) -> bool:
        """False while somebody waits for descriptors to be given back."""
        return not self._waiting

    def has_room(self, count: int) -> bool:
        """Tell whether so many more may be used."""
        return self.in_use + count <= self.limit

    def take(self, count: int) -> None:
        """Note that so many more are in use."""
        self.in_use += count

    def give(self, count: int) -> None:
        """Note that so many are free again; calls those who wait when there is room."""
        self.in_use -= count
        if self._waiting and self.has_room(min(_RESUME_ROOM, self.limit // 4 + 1)):
            self._resume()

    def wait(self, resume: Callable[[], None], now: float) -> None:
        """Call back once, when there may be room again; who finds none waits again."""
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            _log.warning(
                "descriptor limit reached, accepting is paused",
                extra={"in_use": self.in_use, "limit": self.limit},
            )
        self._waiting.append(resume)
        if self._timer is None:
            self._timer = self._loop.call_later(_RETRY_S, self._resume)

    def close(self) -> None:
        """Call nobody any more."""
        self._waiting.clear()
        self._stop_timer()

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
