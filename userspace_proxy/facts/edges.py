"""Which client calls which Service: counted in workers, added up in a bounded table.

    TcpConnection, UdpListener ──▶ CallCounts ──report──▶ Edges ──▶ JSON, page, metric

Rule 1: each connection and flow counts once, when it is accepted, whether or not it is served; one
whose client gets no answer counts as failed when it ends.
Rule 2: an edge is of the pod that had the client's address at the time of the call: addresses are
used again. Calls while no pod was known are another edge.
Rule 3: clients choose how many there are, so both tables are bounded. What doesn't fit is counted
in one number, and a Service with many clients takes no place of others' beyond its share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Protocol

import msgspec

from ..model import PortKey
from .connection import port_fields

# Between two reports, 5 s at most: as many as new clients can connect in that time to a busy node.
CALLS_MAX = 4096
# Of the node: what a table on a page and a metric may have. A node has 110 pods by default.
EDGES_MAX = 500
# Of one Service port: clients of a load balancer are any number.
EDGES_OF_A_PORT = 100
# After this time without a call, another client may take an edge's place. So the number of series
# that a metric has in a day is bounded, too.
STALE_S = 3600.0
_KEY_MAX = 1024


class CalledPort(Protocol):
    """What clients call: see ``dataplane.endpoint_group``."""

    @property
    def key(self) -> PortKey:
        """Which Service port it belongs to."""


class Calls(msgspec.Struct, frozen=True, array_like=True):
    """The calls of one client at one Service port."""

    key: PortKey
    client: Annotated[str, msgspec.Meta(max_length=64)]
    """Its IP address."""
    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    failed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """Connections that ended without an answer; they may have begun before the last report."""

    def __post_init__(self) -> None:
        # Workers are believed no more than this: names are shorter.
        if len(str(self.key)) > _KEY_MAX:
            raise ValueError(f"a name with more than {_KEY_MAX} characters")


def no_pod(_ip: str) -> str:
    """Return that the pod of an address isn't known."""
    return ""


class CallCounts:
    """The calls in one event loop since the last report."""

    __slots__ = ("_counts", "_failed", "_left_out")

    def __init__(self) -> None:
        self._counts: dict[tuple[CalledPort, str], int] = {}
        self._failed: dict[tuple[CalledPort, str], int] = {}
        """Of keys of the counts."""
        self._left_out = 0

    def add(self, called: CalledPort, client: str) -> None:
        # Cost: 0.1 µs for each connection, of 66 (ADR 0067), as a group is hashed by its identity.
        counts, key = self._counts, (called, client)
        if key in counts:
            counts[key] += 1
        elif len(counts) < CALLS_MAX:
            counts[key] = 1
        else:
            self._left_out += 1

    def fail(self, called: CalledPort, client: str) -> None:
        """Count a connection or flow whose client got no answer."""
        key = (called, client)
        if key in self._counts or len(self._counts) < CALLS_MAX:
            self._counts.setdefault(key, 0)
            self._failed[key] = self._failed.get(key, 0) + 1

    def take(self) -> tuple[list[Calls], int]:
        """Return what was counted since the last time, and how many calls didn't fit."""
        counts, failed, left_out = self._counts, self._failed, self._left_out
        self._counts, self._failed, self._left_out = {}, {}, 0
        return [
            Calls(called.key, client, count, failed.get((called, client), 0))
            for (called, client), count in counts.items()
        ], left_out


class EdgeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One client that calls one Service port."""

    client: str = ""
    """The client's IP address."""
    client_pod: str = ""
    """The pod that had this address at the time, ``namespace/name``, if its name is known: that of
    an endpoint on this node; ``(listed by namespace)`` as in connections."""
    service: str = ""
    """The Service port, with its family and side where it has several: ``shop/web:http (IPv6,
    external)``."""
    namespace: str = ""
    """The Service's namespace."""
    name: str = ""
    """The Service's name."""
    port: str = ""
    """The port's name; may be empty."""
    connections: int = 0
    """Connections and flows since the start, refused ones included."""
    failed: int = 0
    """Of these, those that have ended without an answer to the client."""
    last_at: float = 0.0
    """Unix time of the last one, as far as workers have reported."""


class EdgesFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which clients call which Services."""

    edges: tuple[EdgeFacts, ...] = ()
    """The busiest first."""
    others: int = 0
    """Connections and flows of clients that the table has no place for, or no longer."""


class _Edge:
    __slots__ = ("connections", "failed", "last_at")

    def __init__(self) -> None:
        self.connections = self.failed = 0
        self.last_at = 0.0


class Edges:
    """The clients of a node's Services."""

    def __init__(self) -> None:
        self._edges: dict[tuple[PortKey, str, str], _Edge] = {}
        """By Service port, address and pod; the one that was called last is last."""
        self._of_port: Counter[PortKey] = Counter()
        self._others = 0

    def add(
        self,
        calls: Iterable[Calls],
        left_out: int,
        now: float,
        pod_of: Callable[[str], str] = no_pod,
    ) -> None:
        """Add what a worker has counted until a Unix time.

        Args:
            pod_of: Returns the pod that has an address now, or an empty text.
        """
        self._others += left_out
        full: set[PortKey] = set()
        """Service ports without a place at this time: a flood of clients costs one search."""
        for one in calls:
            port, count = one.key, one.number
            key = port, one.client, pod_of(one.client)
            edge = self._edges.pop(key, None)
            if edge is None:
                if port in full or not self._has_place(port, now):
                    full.add(port)
                    self._others += count
                    continue
                edge = _Edge()
                self._of_port[port] += 1
            edge.connections += count
            edge.failed += one.failed
            if count or not edge.last_at:
                edge.last_at = now
            self._edges[key] = edge

    def facts(self, takes: Callable[[Collection[str]], bool] = lambda _: True) -> EdgesFacts:
        """Return the table, of those Service ports for whose scopes the function returns true."""
        rows = [
            EdgeFacts(
                client=client,
                client_pod=pod,
                **port_fields(port),
                connections=edge.connections,
                failed=edge.failed,
                last_at=edge.last_at,
            )
            for (port, client, pod), edge in self._edges.items()
            if takes(port.name.scopes)
        ]
        rows.sort(key=lambda row: (-row.connections, row.service, row.client))
        return EdgesFacts(edges=tuple(rows), others=self._others)

    def _has_place(self, port: PortKey, now: float) -> bool:
        """Return whether a new client of a Service port has a place, if need be another's."""
        if self._of_port[port] >= EDGES_OF_A_PORT:
            stale = next((key for key in self._edges if key[0] == port), None)
        elif len(self._edges) >= EDGES_MAX:
            stale = next(iter(self._edges), None)
        else:
            return True
        if stale is None or now - self._edges[stale].last_at < STALE_S:
            return False
        self._others += self._edges.pop(stale).connections
        self._of_port[stale[0]] -= 1
        if not self._of_port[stale[0]]:
            del self._of_port[stale[0]]
        return True
