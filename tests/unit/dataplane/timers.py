"""Timers of an event loop that fire when the test advances the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """A handle with the interface of asyncio.TimerHandle."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class TimerLoop:
    """The timers of an event loop, and its clock.

    Args:
        loop: Provides everything else; None if nothing else is needed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.now = 1000.0
        self._loop = loop
        self._timers: list[Timer] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)

    def clock(self) -> float:
        """Return monotonic seconds."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self._timers.append(Timer(self.now + delay, callback))
        return self._timers[-1]

    @property
    def waiting(self) -> int:
        """How many timers are pending."""
        return sum(not timer.is_cancelled for timer in self._timers)

    def jump(self, seconds: float) -> None:
        """Advance the time without running anything, then fire each due timer once."""
        self.now += seconds
        due = [timer for timer in self._timers if timer.when <= self.now]
        self._timers = [timer for timer in self._timers if timer.when > self.now]
        for timer in due:
            if not timer.is_cancelled:
                timer.callback()

    def advance(self, seconds: float) -> None:
        """Advance the time; fire due timers in order, each at its own time."""
        end = self.now + seconds
        while due := [t for t in self._timers if not t.is_cancelled and t.when <= end]:
            first = min(due, key=lambda timer: timer.when)
            self._timers.remove(first)
            self.now = max(self.now, first.when)
            first.callback()
        self.now = end
