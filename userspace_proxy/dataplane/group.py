"""The endpoints of one Service port as the traffic sees them: choice and counters."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence

from ..balance import Balancer
from ..model import SocketAddress
from .counters import Books
from .sockets import SHORTAGES

_log = logging.getLogger("userspace_proxy.dataplane")

# One line a minute and Service port is enough for what lasts.
_LOG_EVERY_S = 60.0


class EndpointGroup(Books):
    """One balancer with its counters; listeners hand their clients to it.

    Connections keep their group for life, so the counters of an endpoint that has
    left the plan go on until its last connection ends, and then stay in the sums.

    Args:
        label: Name for logs, as ``shop/web:http``.
        endpoints: Usable endpoints in plan order.
        affinity_timeout_s: Seconds of ClientIP affinity; None for none.
        start: Position of the first turn.
    """

    def __init__(
        self,
        label: str,
        endpoints: Sequence[SocketAddress] = (),
        *,
        affinity_timeout_s: float | None = None,
        start: int = 0,
    ) -> None:
        super().__init__()
        self.label = label
        self.balancer = Balancer(endpoints, affinity_timeout_s=affinity_timeout_s, start=start)
        self.on_removed: list[Callable[[frozenset[SocketAddress]], None]] = []
        """Called with the endpoints that an update took away."""
        self.on_ejected: Callable[[SocketAddress], None] | None = None
        """Called when a failed dial has ejected an endpoint, or has for longer."""
        self.on_returned: Callable[[SocketAddress], None] | None = None
        """Called when a dial has ended an ejection."""
        self._shortage_logged_at = -_LOG_EVERY_S

    def update(
        self, endpoints: Sequence[SocketAddress], *, affinity_timeout_s: float | None
    ) -> None:
        """Take new endpoints; TCP connections to removed ones live on, UDP flows don't."""
        removed = frozenset(self.balancer.endpoints) - frozenset(endpoints)
        self.balancer.update(endpoints, affinity_timeout_s=affinity_timeout_s)
        if removed:
            for callback in self.on_removed:
                callback(removed)
            self.fold(frozenset(endpoints))

    def dial_failed(self, endpoint: SocketAddress, number: int, now: float) -> None:
        """Count a failed dial, and eject the endpoint if the reason was the endpoint's.

        Args:
            endpoint: The one that was dialled.
            number: The errno of the failure.
            now: Monotonic seconds.
        """
        self.counters_of(endpoint).failures += 1
        fields = {"service": self.label, "endpoint": str(endpoint), "cause": os.strerror(number)}
        if number in SHORTAGES:
            self.counters.shortages += 1
            if now - self._shortage_logged_at >= _LOG_EVERY_S:
                self._shortage_logged_at = now
                _log.warning("cannot dial for want of local resources", extra=fields)
        elif self.balancer.failed(endpoint, now):
            _log.warning("endpoint ejected", extra=fields)
            if self.on_ejected is not None:
                self.on_ejected(endpoint)

    def answered(self, endpoint: SocketAddress) -> None:
        """Note that a dial succeeded; it ends an ejection."""
        if self.balancer.answered(endpoint):
            _log.info("endpoint is back", extra={"service": self.label, "endpoint": str(endpoint)})
            if self.on_returned is not None:
                self.on_returned(endpoint)

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        """Return the ejected endpoints, each with the seconds until its probe is due."""
        return self.balancer.ejected(now)
