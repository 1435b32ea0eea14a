"""Dials of one Service port after failed ones: a bounded number in each turn of the event loop.

    a dial fails ──▶ queue ──▶ REDIALS in this turn of the loop, after all other events
                       ▲                 │ others, and those that fail again
                       └─────────────────┘

So other Services get their turns while all endpoints of one fail. The first dial of a client isn't
counted: there are at most as many as connections are accepted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .reactor import Reactor

# A failed dial costs 0.1 to 0.2 ms, so these take up to 6 ms of a turn; a client's fail-over to the
# last of its 16 endpoints still fits into one turn.
REDIALS = 32


class Redials:
    """The clients of one Service port that are to be dialled again, in order."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_scheduled = False

    def add(self, dial: Callable[[], None]) -> None:
        """Dial for a client in this turn of the loop, or in a later one."""
        self._waiting.append(dial)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.run_soon(self._run)

    def _run(self) -> None:
        try:
            for _ in range(REDIALS):
                if not self._waiting:
                    return
                self._waiting.popleft()()
        finally:
            self._is_scheduled = False
            if self._waiting:
                self._schedule()
