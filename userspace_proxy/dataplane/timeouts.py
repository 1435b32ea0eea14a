"""Deadlines of equal length, such as for dials."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

# The shortest timer: uvloop rounds to milliseconds, and a timer of 0 makes the loop spin.
_SHORTEST_S = 0.001


class Timeouts:
    """Calls ``expired`` for each item that isn't stopped within ``after_s`` seconds.

    All deadlines are equally long, so the oldest is due next: a deadline costs a dictionary entry,
    and one timer of the loop serves all.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        after_s: float,
        expired: Callable[[Any], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._after_s = after_s
        self._expired = expired
        self._due: dict[Any, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, item: object) -> bool:
        return item in self._due

    def start(self, item: Any, now: float) -> None:
        """Start the deadline of an item that has none."""
        self._due[item] = now + self._after_s
        if self._timer is None:
            self._timer = self._loop.call_later(self._after_s, self._fire)

    def stop(self, item: Any) -> None:
        """Stop an item's deadline. Idempotent."""
        self._due.pop(item, None)

    def close(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        now = self._clock()
        try:
            for item, due in self._expiring(now):
                # Another item's callback may have stopped or restarted this one.
                if self._due.get(item) == due:
                    del self._due[item]
                    self._expired(item)
        finally:
            # Only here: a deadline started meanwhile may be much later than the next one.
            self._timer = None
            if self._due:
                due = next(iter(self._due.values()))
                self._timer = self._loop.call_later(max(_SHORTEST_S, due - now), self._fire)

    def _expiring(self, now: float) -> list[tuple[Any, float]]:
        """Return all due items at once because finding a dictionary's head is slow."""
        items: list[tuple[Any, float]] = []
        for item, due in self._due.items():
            if due > now:
                break
            items.append((item, due))
        return items
