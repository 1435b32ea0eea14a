"""Endpoints that start slowly: their share of new connections grows to its full size.

    1.0 ┤          ╭────
        │       ╭──╯         a line from FLOOR, beginning when it is new or has returned
    0.1 ┤ ╶────╯
        └─┴──────┴───▶ time
                seconds

Shares are relative: it is for the caller to begin only where another endpoint takes the rest.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from ..model import SocketAddress

# Source: Envoy's min_weight_percent.
FLOOR = 0.1


class SlowStart:
    """The endpoints of one Service port that start slowly.

    Args:
        seconds: Until the share is full; 0 for full shares at once.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        """May be changed."""
        self._began: dict[SocketAddress, float] = {}

    def __bool__(self) -> bool:
        """Whether an endpoint may have less than its full share."""
        return bool(self._began)

    def begin(self, endpoints: Iterable[SocketAddress], now: float) -> None:
        """Begin for endpoints that are new, or answer again; monotonic seconds."""
        if self.seconds:
            self._began.update(dict.fromkeys(endpoints, now))

    def keep(self, endpoints: Container[SocketAddress]) -> None:
        """Forget all other endpoints."""
        for endpoint in [e for e in self._began if e not in endpoints]:
            del self._began[endpoint]

    def shares(self, now: float) -> Mapping[SocketAddress, float]:
        """Return what endpoints have of their shares now, without those that have all of it."""
        passed = {endpoint: now - began for endpoint, began in self._began.items()}
        for endpoint in [e for e, seconds in passed.items() if seconds >= self.seconds]:
            del self._began[endpoint]
        return {e: max(FLOOR, passed[e] / self.seconds) for e in self._began}
