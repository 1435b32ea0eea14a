"""Ejects endpoints temporarily after failed dials, so that clients are sent to other endpoints.

    in use ──failed──▶ ejected 5 s ──time──▶ one probe ──answered──▶ in use
                          ▲                     │
                          └──── 10, 20, 40, 60 s ◀──failed

Rule 1: a probe is one ordinary connection: no other client is sent to the endpoint until the dial
has succeeded or failed.
Rule 2: each client that dials a silent endpoint loses seconds, so an ejected silent endpoint is
dialled at most once every QUIET_S, even if no other endpoint is left (``is_quiet``).
Rule 3: a probe that never reports blocks the endpoint only for PROBE_S.
Rule 4: the ends of ejections are kept in a heap. Otherwise, each pick would check all dead
endpoints, of which there may be thousands, with some due at any moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass

from ..model import SocketAddress
from ..pacing import backoff_s

FIRST_S = 5.0
LONGEST_S = 60.0
# How long a probe blocks the endpoint: longer than a dial may last (1 s of silence), so that a late
# answer still counts.
PROBE_S = 3.0
# The pause between two dials of an ejected silent endpoint if no other endpoint is left. A
# recovered endpoint is found within a second, at the cost of one waiting client per second.
QUIET_S = 1.0


def lasts_s(times: int) -> float:
    """Return the duration of the n-th consecutive ejection without an answer in between."""
    return backoff_s(times, FIRST_S, LONGEST_S)


@dataclass(slots=True)
class _Ejection:
    until: float
    times: int = 1
    probe_until: float = 0.0
    is_silent: bool = False
    quiet_until: float = 0.0


class Ejections:
    """The ejected endpoints of one Service port.

    Args:
        on_change: Called with an endpoint, and with True when clients may no longer use it, or with
            False when they may use it again.
    """

    __slots__ = "_ends", "_on_change", "_out", "ejected"

    def __init__(self, on_change: Callable[[SocketAddress, bool], object] | None = None) -> None:
        self.ejected: dict[SocketAddress, _Ejection] = {}
        """The ejected endpoints, including endpoints due for a probe; read-only for callers."""
        self._on_change = on_change
        self._out: dict[SocketAddress, None] = {}
        self._ends: list[tuple[float, SocketAddress]] = []
        """A heap of the times at which members of ``_out`` may be due."""

    def __bool__(self) -> bool:
        return bool(self.ejected)

    def failed(self, endpoint: SocketAddress, now: float, *, is_silent: bool = False) -> bool:
        """Eject an endpoint after a failed dial, for longer after each failed probe.

        Args:
            now: Monotonic seconds.
            is_silent: Whether the endpoint didn't answer, as opposed to refusing.

        Returns:
            True if this failure begins or extends an ejection; False for a failure of an ejected
            endpoint before its next probe is due, for example if several dials were pending.
        """
        known = self.ejected.get(endpoint)
        begins = known is None
        if known is None:
            known = self.ejected[endpoint] = _Ejection(now + lasts_s(1))
            self._put_out(endpoint, known.until)
        known.is_silent = is_silent
        known.quiet_until = now + QUIET_S
        if begins or now < known.until:
            return begins
        known.times += 1
        known.until = now + lasts_s(known.times)
        self._put_out(endpoint, known.until)
        return True

    def answered(self, endpoint: SocketAddress) -> bool:
        """End an endpoint's ejection; return True if it was ejected."""
        is_ejected = self.ejected.pop(endpoint, None) is not None
        if not self.ejected:
            self._ends.clear()
        self._let_in(endpoint)
        return is_ejected

    def out(self, now: float) -> Collection[SocketAddress]:
        """Let clients use endpoints due for a probe; return the endpoints that none may use now.

        The collection isn't a copy: don't change or keep it.
        """
        while self._ends and now >= self._ends[0][0]:
            endpoint = heapq.heappop(self._ends)[1]
            known = self.ejected.get(endpoint)
            if known is not None and now >= max(known.until, known.probe_until):
                self._let_in(endpoint)
        return self._out.keys()

    def picked(self, endpoint: SocketAddress, now: float) -> None:
        """Record a connection to an endpoint; if a probe was due, the connection is the probe."""
        known = self.ejected.get(endpoint)
        if known is None:
            return
        known.quiet_until = now + QUIET_S
        if now >= known.until:
            known.probe_until = now + PROBE_S
            self._put_out(endpoint, known.probe_until)

    def is_quiet(self, endpoint: SocketAddress, now: float) -> bool:
        """Return whether a silent ejected endpoint was dialled, or failed, in the last QUIET_S."""
        known = self.ejected.get(endpoint)
        return known is not None and known.is_silent and now < known.quiet_until

    def keep(self, endpoints: Container[SocketAddress]) -> None:
        """Forget all endpoints but these, without calling ``on_change``."""
        for endpoint in [e for e in self.ejected if e not in endpoints]:
            del self.ejected[endpoint]
            self._out.pop(endpoint, None)

    def left_s(
        self, endpoints: Iterable[SocketAddress], now: float
    ) -> Mapping[SocketAddress, float]:
        """Return the remaining seconds of each ejection; 0 means due for a probe."""
        return {
            endpoint: max(0.0, self.ejected[endpoint].until - now)
            for endpoint in endpoints
            if endpoint in self.ejected
        }

    def _put_out(self, endpoint: SocketAddress, until: float) -> None:
        heapq.heappush(self._ends, (until, endpoint))
        if endpoint not in self._out:
            self._out[endpoint] = None
            if self._on_change is not None:
                self._on_change(endpoint, True)

    def _let_in(self, endpoint: SocketAddress) -> None:
        if endpoint in self._out:
            del self._out[endpoint]
            if self._on_change is not None:
                self._on_change(endpoint, False)
