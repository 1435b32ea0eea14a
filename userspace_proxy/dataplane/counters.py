"""Counters per endpoint and per Service port; all but ``active`` only grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from operator import attrgetter
from typing import Any, ClassVar

from ..model import SocketAddress


class Counters:
    """Named numbers, which can be added, and sent in the order of their names."""

    __slots__: tuple[str, ...] = ()
    _get: ClassVar[Callable[[Any], tuple[int, ...]]]

    def __init_subclass__(cls) -> None:
        cls._get = attrgetter(*cls.__slots__)

    def figures(self) -> tuple[int, ...]:
        """Return the numbers, in the order of their names."""
        return type(self)._get(self)  # noqa: SLF001 - its own

    def add(self, figures: Iterable[int]) -> None:
        """Add numbers in the order of their names; raises ValueError if their count is wrong."""
        for name, figure in zip(self.__slots__, figures, strict=True):
            setattr(self, name, getattr(self, name) + figure)


class EndpointCounters(Counters):
    """The counters of one endpoint of one Service port."""

    __slots__ = ("active", "connections", "failures", "preserved", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.active = 0
        """Open connections, or live flows."""
        self.connections = 0
        """Connections that this endpoint answered, or flows to it."""
        self.failures = 0
        """Dials that failed, whatever the cause."""
        self.preserved = 0
        """Of the connections, those from their client's own address."""
        self.received_bytes = 0
        """From clients to the endpoint."""
        self.sent_bytes = 0
        """From the endpoint to clients."""


class GroupCounters(Counters):
    """What is counted per Service port, beside the sums over its endpoints."""

    __slots__ = (
        "dropped_datagrams",
        "evicted_connections",
        "evicted_flows",
        "evicted_for_memory",
        "out_of_client_ports",
        "out_of_ports",
        "refused",
        "shortages",
    )

    def __init__(self) -> None:
        self.refused = 0
        """Connections that no endpoint answered, and datagrams without an endpoint."""
        self.shortages = 0
        """Dials that failed because this process was out of descriptors, ports or memory."""
        self.out_of_ports = 0
        """Of these, those for which this node's address had no free port towards the endpoint."""
        self.out_of_client_ports = 0
        """Dials for which a client's address had none: they failed, or used this node's address."""
        self.dropped_datagrams = 0
        """Datagrams that were dropped at a socket, mostly because its buffer was full."""
        self.evicted_flows = 0
        """Flows that ended early because the table was full."""
        self.evicted_connections = 0
        """Connections that were reset at the limit of descriptors or memory, to make room."""
        self.evicted_for_memory = 0
        """Of these, those that were reset because memory was short."""


class CounterTable:
    """All counters of one Service port, and those of its former endpoints."""

    def __init__(self) -> None:
        self.counters = GroupCounters()
        self.out_of_ports_at = -math.inf
        """Monotonic seconds at which ``out_of_ports`` last grew."""
        self.out_of_client_ports_at = -math.inf
        """Monotonic seconds at which ``out_of_client_ports`` last grew."""
        self._per_endpoint: dict[SocketAddress, EndpointCounters] = {}
        self._gone = EndpointCounters()

    def counters_of(self, endpoint: SocketAddress) -> EndpointCounters:
        """Return the counters of an endpoint; creates them if necessary."""
        counters = self._per_endpoint.get(endpoint)
        if counters is None:
            counters = self._per_endpoint[endpoint] = EndpointCounters()
        return counters

    def each_counters(self) -> Iterable[tuple[SocketAddress, EndpointCounters]]:
        """Return the endpoints that have counters, with these."""
        return self._per_endpoint.items()

    def totals(self) -> EndpointCounters:
        """Return the sums over all endpoints, former ones included."""
        sums = EndpointCounters()
        sums.add(self._gone.figures())
        for counters in self._per_endpoint.values():
            sums.add(counters.figures())
        return sums

    def fold(self, current: Container[SocketAddress]) -> None:
        """Add the counters of endpoints that are neither current nor in use to one sum."""
        for endpoint, counters in list(self._per_endpoint.items()):
            if endpoint not in current and counters.active == 0:
                self._gone.add(self._per_endpoint.pop(endpoint).figures())
