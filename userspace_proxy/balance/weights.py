"""Computes each endpoint's share of new connections: its weight, reduced during slow start.

During slow start an endpoint's share grows to its full size:

    1.0 ┤          ╭────
        │       ╭──╯         linear, at least FLOOR; starts when the endpoint is new or returns
    0.1 ┤ ╶────╯
        └─┴──────┴───▶ time
                seconds

Shares are relative: the caller begins slow start only if other endpoints can take the rest.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType
from typing import cast

from ..model import DEFAULT_WEIGHT, SocketAddress

# The factor at the start of slow start. Source: Envoy's min_weight_percent.
FLOOR = 0.1
# The number of steps of a slow start; each step costs a pass over all endpoints.
_STEPS = 50
# Cost: nearly all Service ports have no weights, and share this empty mapping.
_NO_WEIGHTS: Mapping[SocketAddress, int] = MappingProxyType({})
_NO_SHARES: Mapping[SocketAddress, float] = MappingProxyType({})
_NONE_BEGAN = cast("dict[SocketAddress, float]", _NO_SHARES)


class SlowStart:
    """The endpoints of one Service port in slow start.

    Args:
        seconds: The duration of slow start; 0 for none.
    """

    __slots__ = "_began", "seconds"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._began = _NONE_BEGAN

    def __bool__(self) -> bool:
        """Whether an endpoint may have less than its full share."""
        return bool(self._began)

    def change(self, seconds: float, now: float) -> None:
        """Change the duration; endpoints with a full share keep it."""
        if seconds != self.seconds:
            self.shares(now)
            self.seconds = seconds

    def begin(self, endpoints: Iterable[SocketAddress], now: float) -> None:
        """Begin slow start of new or recovered endpoints; ``now`` is in monotonic seconds."""
        if self.seconds:
            self._began = {**self._began, **dict.fromkeys(endpoints, now)}

    def keep(self, endpoints: Container[SocketAddress]) -> None:
        """Forget all other endpoints."""
        for endpoint in [e for e in self._began if e not in endpoints]:
            del self._began[endpoint]

    def shares(self, now: float) -> Mapping[SocketAddress, float]:
        """Return the factors, below 1, of endpoints in slow start; forget the other endpoints."""
        passed = {endpoint: now - began for endpoint, began in self._began.items()}
        for endpoint in [e for e, seconds in passed.items() if seconds >= self.seconds]:
            del self._began[endpoint]
        return {e: max(FLOOR, passed[e] / self.seconds) for e in self._began}


class Weights:
    """The current weights of one Service port's endpoints, which its strategies share.

    Args:
        configured: Endpoints without an entry have the default weight.
        slow_start_s: The duration of slow start in seconds; 0 for none.
    """

    __slots__ = "_configured", "_due", "_shares", "_slow_start", "version"

    def __init__(
        self,
        configured: Mapping[SocketAddress, int] | None = None,
        slow_start_s: float = 0.0,
    ) -> None:
        self._configured: Mapping[SocketAddress, int] = configured or _NO_WEIGHTS
        self._slow_start = SlowStart(slow_start_s)
        self._shares: Mapping[SocketAddress, float] = _NO_SHARES
        self._due = 0.0
        """Monotonic seconds at which the shares grow next."""
        self.version = 0
        """Incremented whenever a weight may have changed."""

    def __bool__(self) -> bool:
        """Whether weights may differ, now or later."""
        return bool(self._configured) or self.may_grow

    @property
    def may_grow(self) -> bool:
        """Whether endpoints may be in slow start, so that :meth:`grow` must be called."""
        return self._slow_start.seconds > 0

    def configure(
        self,
        configured: Mapping[SocketAddress, int],
        slow_start_s: float = 0.0,
        now: float = 0.0,
    ) -> None:
        """Replace the constructor's arguments; ``now`` is in monotonic seconds."""
        self._slow_start.change(slow_start_s, now)
        if self._shares and not slow_start_s:
            self._slow_start.keep(())
            self._look(0.0)
        if configured != self._configured:
            self._configured = configured
            self.version += 1

    def begin(self, endpoints: Iterable[SocketAddress], now: float) -> None:
        """Begin slow start of new or recovered endpoints; ``now`` is in monotonic seconds."""
        self._slow_start.begin(endpoints, now)
        self._look(now)

    def keep(self, endpoints: Container[SocketAddress]) -> None:
        """Forget the slow start of all other endpoints."""
        self._slow_start.keep(endpoints)

    def grow(self, now: float) -> None:
        """Advance slow starts; call before each choice if ``may_grow``."""
        if self._shares and now >= self._due:
            self._look(now)

    def of(self, endpoint: SocketAddress) -> float:
        """Return an endpoint's current weight, which is more than 0."""
        weight = self._configured.get(endpoint, DEFAULT_WEIGHT)
        return weight * self._shares.get(endpoint, 1.0) if self._shares else weight

    def _look(self, now: float) -> None:
        if self._slow_start or self._shares:
            self._shares = self._slow_start.shares(now)
            self._due = now + self._slow_start.seconds / _STEPS
            self.version += 1
