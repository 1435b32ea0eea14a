"""The endpoints of one Service port as the traffic sees them: choice and counters."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from ..balance import Balancer
from ..model import SocketAddress
from .counters import EndpointCounters, GroupCounters
from .sockets import SHORTAGES

_log = logging.getLogger("userspace_proxy.dataplane")

# One line a minute and Service port is enough for what lasts.
_LOG_EVERY_S = 60.0


class EndpointGroup:
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
        self.label = label
        self.balancer = Balancer(endpoints, affinity_timeout_s=affinity_timeout_s, start=start)
        self.counters = GroupCounters()
        self.on_removed: list[Callable[[frozenset[SocketAddress]], None]] = []
        """Called with the endpoints that an update took away."""
        self._per_endpoint: dict[SocketAddress, EndpointCounters] = {}
        self._gone = EndpointCounters()
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
            self._fold(removed)

    def counters_of(self, endpoint: SocketAddress) -> EndpointCounters:
        """Return the counters of an endpoint, made when first asked for."""
        counters = self._per_endpoint.get(endpoint)
        if counters is None:
            counters = self._per_endpoint[endpoint] = EndpointCounters()
        return counters

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

    def answered(self, endpoint: SocketAddress) -> None:
        """Note that a dial succeeded; it ends an ejection."""
        if self.balancer.answered(endpoint):
            _log.info("endpoint is back", extra={"service": self.label, "endpoint": str(endpoint)})

    def totals(self) -> EndpointCounters:
        """Return the sums over all endpoints, those that have gone included."""
        sums = EndpointCounters()
        sums.add(self._gone)
        for counters in self._per_endpoint.values():
            sums.add(counters)
        return sums

    def _fold(self, removed: frozenset[SocketAddress]) -> None:
        """Move the counters of endpoints that are neither in the plan nor in use into one sum."""
        current = frozenset(self.balancer.endpoints)
        for endpoint, counters in list(self._per_endpoint.items()):
            if endpoint not in current and counters.active == 0:
                self._gone.add(self._per_endpoint.pop(endpoint))
