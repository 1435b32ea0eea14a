"""Counters add up: each counted connection is open or has ended, and counted bytes were sent.

begun = ended + open          of a Service port = the sum over its endpoints
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from userspace_proxy.facts import GAUGES
from userspace_proxy.model import SocketAddress

from .promise import Promise

if TYPE_CHECKING:
    from ..clients import Client
    from ..services import Service


class Counters(Promise):
    """Judges the counters of one run."""

    name = "counters"

    def turn_over(self) -> None:
        """Compare the counted open connections with the actual number, twice a second."""
        if not self.is_due():
            return
        world = self.world
        for service in world.services:
            open_: Counter[SocketAddress | None]
            if service.is_udp:
                # A flow's client is unknown until a datagram is sent. If memory was short for the
                # first one, the product still counts the flow.
                flows = [f for core, f in world.flows.open.items() if f.client or core.tries]
                open_ = Counter(f.endpoint for f in flows if f.service is service)
            else:
                clients = self._joined(service)
                open_ = Counter(each.endpoint for each in clients if each.is_open)
            for endpoint in service.planned.pool:
                counters = service.group.find_counters(endpoint)
                counted = 0 if counters is None else counters.active
                why = f"{endpoint} has {open_[endpoint]} connections, not {counted}"
                self.check(counted == open_[endpoint], why)

    def at_rest(self) -> None:
        """Check that no connection is counted as open, and that the totals are right."""
        for service in self.world.services:
            totals, label = service.group.totals(), service.group.label
            for name in GAUGES:
                self.check(not getattr(totals, name), f"{label} counts {name} at rest")
            counted = totals.connections, totals.received_bytes, totals.sent_bytes
            begun = self.world.flows.sums(service) if service.is_udp else self._sums(service)
            self.check(counted == begun, f"{label} counted {counted}, not {begun}")
            if not service.is_udp:
                self._check_endpoints(service)

    def _joined(self, service: Service) -> Sequence[Client]:
        clients = self.world.clients_seen.all.values()
        return [each for each in clients if each.service is service and each.is_joined]

    def _sums(self, service: Service) -> tuple[int, int, int]:
        clients = self._joined(service)
        headers = [len(client.party.expected_header()) for client in clients]
        up = [client.right.accepted_bytes if client.right else 0 for client in clients]
        received = sum(max(0, n - header) for n, header in zip(up, headers, strict=True))
        return len(clients), received, sum(client.left.accepted_bytes for client in clients)

    def _check_endpoints(self, service: Service) -> None:
        joined: Counter[SocketAddress | None] = Counter(e.endpoint for e in self._joined(service))
        for endpoint in service.serving.all_endpoints:
            counters = service.group.find_counters(endpoint)
            if counters is not None and endpoint not in service.has_left:
                why = f"{endpoint} counted {counters.connections}, not {joined[endpoint]}"
                self.check(counters.connections == joined[endpoint], why)
