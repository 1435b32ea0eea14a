"""Dials again after failed dials, for a bounded time in each turn of the event loop.

    a dial fails ──▶ queue of its Service port ──▶ one of each port in turn, until REDIALS or
                       ▲                           TURN_S in this turn of the loop, after all
                       │                           other events
                       │                                 │ all others, and failed redials
                       └─────────────────────────────────┘

Other clients are served in time even while all endpoints of some Service ports fail. First dials
aren't counted, because the rate of accepting bounds them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

from .reactor import Reactor

# The maximum number of redials per turn. A failed dial costs 0.07 to 0.2 ms; a client's fail-over
# to the last of its 16 endpoints fits into one or two turns.
REDIALS = 32
# How long other events wait for redials. A single redial may take longer: a choice by
# ``source-hash`` among 10,000 endpoints takes up to 4 ms.
TURN_S = 0.002


class Redials:
    """The clients of all Service ports that wait for a redial."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._waiting: dict[Hashable, deque[Callable[[], None]]] = {}
        """Queues by Service port, in the order of their turns; none is empty."""
        self._is_scheduled = False

    def add(self, port: Hashable, dial: Callable[[], None]) -> None:
        """Dial for a client of a Service port in this or a later turn of the loop."""
        self._waiting.setdefault(port, deque()).append(dial)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.run_soon(self._run)

    def _run(self) -> None:
        clock = self._reactor.clock
        until = clock() + TURN_S
        try:
            for _ in range(REDIALS):
                if not self._waiting:
                    return
                self._take()()
                if clock() >= until:
                    return
        finally:
            self._is_scheduled = False
            if self._waiting:
                self._schedule()

    def _take(self) -> Callable[[], None]:
        port = next(iter(self._waiting))
        dials = self._waiting.pop(port)
        dial = dials.popleft()
        if dials:
            self._waiting[port] = dials
        return dial
