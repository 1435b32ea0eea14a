"""Counters per endpoint and per Service port; all of them only grow, except ``active``."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from operator import attrgetter
from typing import Any, ClassVar

from ..model import SocketAddress


class Counters:
    """Numbers with names, which can be added up and sent in the order of their names."""

    __slots__: tuple[str, ...] = ()
    _get: ClassVar[Callable[[Any], tuple[int, ...]]]

    def __init_subclass__(cls) -> None:
        cls._get = attrgetter(*cls.__slots__)

    def figures(self) -> tuple[int, ...]:
        """Return the numbers, in the order of their names."""
        return type(self)._get(self)  # noqa: SLF001 - its own

    def add(self, figures: Iterable[int]) -> None:
        """Add numbers in the order of the names.

        Raises:
            ValueError: They are more, or fewer, than the names.
        """
        for name, figure in zip(self.__slots__, figures, strict=True):
            setattr(self, name, getattr(self, name) + figure)


class EndpointCounters(Counters):
    """The counters of one endpoint of one Service port."""

    __slots__ = (
        "active",
        "connections",
        "failures",
        "preserved",
        "received_bytes",
        "sent_bytes",
    )

    def __init__(self) -> None:
        self.active = 0
        """Open connections, or live flows."""
        self.connections = 0
        """Connections that this endpoint answered, or flows that began with it."""
        self.failures = 0
        """Dials that failed, for a reason of the endpoint's or of this node's."""
        self.preserved = 0
        """Of the connections, those that bore their client's own address."""
        self.received_bytes = 0
        """From clients to the endpoint."""
        self.sent_bytes = 0
        """From the endpoint to clients."""


class GroupCounters(Counters):
    """What is counted per Service port beside the sums over its endpoints."""

    __slots__ = (
        "dropped_datagrams",
        "evicted_connections",
        "evicted_flows",
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
        """Of these, those for which this node's address had no source port towards the endpoint."""
        self.out_of_client_ports = 0
        """Dials for which a client's address had none: they failed, or bore this node's address."""
        self.dropped_datagrams = 0
        """Datagrams that a socket didn't take, mostly because its buffer was full."""
        self.evicted_flows = 0
        """Flows that ended early because the table was full."""
        self.evicted_connections = 0
        """Connections that were reset at the descriptor limit, to make room."""


class CounterTable:
    """All counters of one Service port.

    Those of an endpoint that has left stay while it is in use, and then in the sums.
    """

    def __init__(self) -> None:
        self.counters = GroupCounters()
        self.out_of_ports_at = -math.inf
        """Monotonic seconds at which ``out_of_ports`` was last seen to grow."""
        self.out_of_client_ports_at = -math.inf
        """The same of ``out_of_client_ports``."""
        self._per_endpoint: dict[SocketAddress, EndpointCounters] = {}
        self._gone = EndpointCounters()

    def counters_of(self, endpoint: SocketAddress) -> EndpointCounters:
        """Return the counters of an endpoint, made when first asked for."""
        counters = self._per_endpoint.get(endpoint)
        if counters is None:
            counters = self._per_endpoint[endpoint] = EndpointCounters()
        return counters

    def each_counters(self) -> Iterable[tuple[SocketAddress, EndpointCounters]]:
        """Return the endpoints that were ever counted for, with their counters."""
        return self._per_endpoint.items()

    def totals(self) -> EndpointCounters:
        """Return the sums over all endpoints, those that have gone included."""
        sums = EndpointCounters()
        sums.add(self._gone.figures())
        for counters in self._per_endpoint.values():
            sums.add(counters.figures())
        return sums

    def fold(self, current: Container[SocketAddress]) -> None:
        """Move the counters of endpoints that are neither current nor in use into one sum."""
        for endpoint, counters in list(self._per_endpoint.items()):
            if endpoint not in current and counters.active == 0:
                self._gone.add(self._per_endpoint.pop(endpoint).figures())
