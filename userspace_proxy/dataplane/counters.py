"""Counters per endpoint and per Service port; all but ``active`` only grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping
from operator import attrgetter
from typing import Any, ClassVar

from ..model import CauseCode, SocketAddress
from .durations import TIMES_BOUNDS_S, Durations
from .streak import Streak


class Counters:
    """Named numbers, which can be added, and sent in the order of their names."""

    __slots__: tuple[str, ...] = ()
    names: ClassVar[tuple[str, ...]]
    _get: ClassVar[Callable[[Any], tuple[int, ...]]]

    def __init_subclass__(cls) -> None:
        cls._get = attrgetter(*cls.names)

    def figures(self) -> tuple[int, ...]:
        """Return the numbers, in the order of their names."""
        return type(self)._get(self)  # noqa: SLF001 - its own

    def add(self, figures: Iterable[int]) -> None:
        """Add numbers in the order of their names; raises ValueError if their count is wrong."""
        for name, figure in zip(self.names, figures, strict=True):
            setattr(self, name, getattr(self, name) + figure)


class EndpointCounters(Counters):
    """The counters of one endpoint of one Service port, and its failures in a row."""

    names = (
        "active",
        "connections",
        "empty",
        "other_failures",
        "preserved",
        "received_bytes",
        "refusals",
        "resets",
        "sent_bytes",
        "silences",
        "unreachables",
    )
    __slots__ = (*names, "dials", "ends")

    def __init__(self) -> None:
        self.dials = Streak()
        """Failed dials; those that failed because of this node don't count."""
        self.ends = Streak()
        """Connections that the endpoint ended, as in ``resets`` and ``empty``; its first byte on
        another one is a success."""
        self.active = 0
        """Open connections, or live flows."""
        self.connections = 0
        """Connections that this endpoint answered, or flows to it."""
        self.preserved = 0
        """Of the connections, those from their client's own address."""
        self.received_bytes = 0
        """From clients to the endpoint."""
        self.sent_bytes = 0
        """From the endpoint to clients."""
        self.refusals = 0
        """Dials that failed because the endpoint refused."""
        self.silences = 0
        """Dials that failed because it didn't answer in time."""
        self.unreachables = 0
        """Dials that failed because there was no route to it."""
        self.other_failures = 0
        """Dials that failed for another cause."""
        self.resets = 0
        """Connections that it reset before it had sent a byte, and before their clients left."""
        self.empty = 0
        """Connections that it closed without having sent a byte, although their clients had sent
        something and hadn't closed them."""

    @property
    def failures(self) -> int:
        """Dials that failed, whatever the cause."""
        return self.refusals + self.silences + self.unreachables + self.other_failures

    def count_failure(self, code: CauseCode) -> None:
        """Count a dial that failed for this cause."""
        name = _FAILURES.get(code, "other_failures")
        setattr(self, name, getattr(self, name) + 1)

    def failures_by_cause(self) -> Mapping[CauseCode, int]:
        """Return how many dials failed, by cause, without those that none failed for."""
        counts = {code: getattr(self, name) for code, name in _FAILURES.items()}
        return {code: count for code, count in counts.items() if count}


_FAILURES = {
    CauseCode.ENDPOINT_REFUSES: "refusals",
    CauseCode.ENDPOINT_SILENT: "silences",
    CauseCode.ENDPOINT_UNREACHABLE: "unreachables",
    CauseCode.ENDPOINT_FAILS: "other_failures",
}


class GroupCounters(Counters):
    """What is counted per Service port, beside the sums over its endpoints."""

    __slots__ = names = (
        "bad_headers",
        "denied",
        "dropped_datagrams",
        "ended_by_removal",
        "evicted_connections",
        "evicted_flows",
        "evicted_for_memory",
        "out_of_client_ports",
        "out_of_ports",
        "refused",
        "saved",
        "shortages",
        "wait_overflows",
        "wait_timeouts",
        "waited",
        "waits_left",
    )

    def __init__(self) -> None:
        self.refused = 0
        """Connections that no endpoint answered, and datagrams without an endpoint."""
        self.saved = 0
        """Connections whose first dial failed and that another endpoint answered; also flows."""
        self.shortages = 0
        """Dials that failed because this process was out of descriptors, ports or memory."""
        self.out_of_ports = 0
        """Of these, those for which this node's address had no free port towards the endpoint."""
        self.out_of_client_ports = 0
        """Dials for which a client's address had none: they failed, or used this node's address."""
        self.bad_headers = 0
        """Connections from trusted peers that were reset because no valid PROXY header came."""
        self.denied = 0
        """Packets from clients that aren't admitted, which were dropped; a client that isn't
        answered sends its SYN several times."""
        self.dropped_datagrams = 0
        """Datagrams that were dropped at a socket, mostly because its buffer was full; but if not
        all clients are admitted, these are in ``denied``."""
        self.ended_by_removal = 0
        """Connections that were reset because their endpoint had left."""
        self.evicted_flows = 0
        """Flows that ended early because the table was full."""
        self.evicted_connections = 0
        """Connections that were reset at the limit of descriptors or memory, to make room."""
        self.evicted_for_memory = 0
        """Of these, those that were reset because memory was short."""
        self.waited = 0
        """Connections that began to wait for an endpoint, whatever became of them."""
        self.wait_timeouts = 0
        """Of these, those that were reset because their time was up."""
        self.wait_overflows = 0
        """Of these, those that were reset to make room for later ones."""
        self.waits_left = 0
        """Of these, those whose clients left."""


class CounterTable:
    """All counters of one Service port, and those of its former endpoints."""

    def __init__(self) -> None:
        self.counters = GroupCounters()
        self.out_of_ports_at = -math.inf
        """Monotonic seconds at which ``out_of_ports`` last grew."""
        self.out_of_client_ports_at = -math.inf
        """Monotonic seconds at which ``out_of_client_ports`` last grew."""
        self.connect_times = Durations(TIMES_BOUNDS_S)
        """Of TCP: how long clients waited until an endpoint answered, failed dials included."""
        self.first_byte_times = Durations(TIMES_BOUNDS_S)
        """Of TCP: from the endpoint's answer, or the client's first byte if that came later, to the
        endpoint's first byte."""
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
