"""Counts which client calls which Service: workers report their counts to a bounded table.

    TcpConnection, UdpListener ──▶ CallCounts ──report──▶ Edges ──▶ JSON, page, metric

Rule 1: each connection and flow counts once, when it is accepted, whether or not it is served; a
connection without an answer, or reset by the endpoint, counts as failed when it ends.
Rule 2: an edge belongs to the pod that had the client's address at the time of the call, because
addresses are reused. Calls that were made while no pod was known are a separate edge.
Rule 3: clients determine how many edges there are, so both tables are bounded. Calls that don't fit
are one number, and a Service with many clients takes no more entries than its share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Protocol

import msgspec

from ..model import PortKey
from .connection import port_fields

# The maximum number of (Service port, client) pairs per report. Reports are at most 5 s apart, so
# this is enough for the clients of a busy node.
CALLS_MAX = 4096
# The maximum number of edges per node: as many as a table on a page, or a metric, can show. A node
# has 110 pods by default.
EDGES_MAX = 500
# The maximum number of edges per Service port: a load balancer may have any number of clients.
EDGES_OF_A_PORT = 100
# After this time without a call, an edge may be evicted for another client. This also limits how
# many series a metric gets in a day.
STALE_S = 3600.0
_KEY_MAX = 1024


class CalledPort(Protocol):
    """The Service port that a client calls: see ``dataplane.endpoint_group``."""

    @property
    def key(self) -> PortKey:
        """The Service port's identity."""


class Calls(msgspec.Struct, frozen=True, array_like=True):
    """The calls from one client to one Service port."""

    key: PortKey
    client: Annotated[str, msgspec.Meta(max_length=64)]
    """The client's IP address."""
    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    failed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """Connections that failed; they may have begun before the last report."""

    def __post_init__(self) -> None:
        # Reports of workers aren't trusted; real names are shorter.
        if len(str(self.key)) > _KEY_MAX:
            raise ValueError(f"a name with more than {_KEY_MAX} characters")


def no_pod(_ip: str) -> str:
    """Return the empty string: no pod is known."""
    return ""


class CallCounts:
    """The calls in one event loop since the last report."""

    __slots__ = ("_counts", "_failed", "_left_out")

    def __init__(self) -> None:
        self._counts: dict[tuple[CalledPort, str], int] = {}
        self._failed: dict[tuple[CalledPort, str], int] = {}
        """Calls that failed; their keys are also in ``_counts``."""
        self._left_out = 0

    def add(self, called: CalledPort, client: str) -> None:
        # Cost: 0.1 µs of 66 µs per connection (ADR 0067), because a group is hashed by identity.
        counts, key = self._counts, (called, client)
        if key in counts:
            counts[key] += 1
        elif len(counts) < CALLS_MAX:
            counts[key] = 1
        else:
            self._left_out += 1

    def fail(self, called: CalledPort, client: str) -> None:
        """Count a failed connection or flow, unless there is no room for it."""
        key = (called, client)
        if key in self._counts or len(self._counts) < CALLS_MAX:
            self._counts.setdefault(key, 0)
            self._failed[key] = self._failed.get(key, 0) + 1

    def take(self) -> tuple[list[Calls], int]:
        """Return and reset the calls since the last report, and the number that didn't fit."""
        counts, failed, left_out = self._counts, self._failed, self._left_out
        self._counts, self._failed, self._left_out = {}, {}, 0
        return [
            Calls(called.key, client, count, failed.get((called, client), 0))
            for (called, client), count in counts.items()
        ], left_out


class EdgeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A client that calls a Service port."""

    client: str = ""
    """The client's IP address."""
    client_pod: str = ""
    """The pod that had this address at the time, ``namespace/name``, if an endpoint with this
    address was known on this node; ``(listed by namespace)`` as in connections."""
    service: str = ""
    """The Service port, with its family and side if it has several: ``shop/web:http (IPv6,
    external)``."""
    namespace: str = ""
    """The Service's namespace."""
    name: str = ""
    """The Service's name."""
    port: str = ""
    """The port's name; may be empty."""
    connections: int = 0
    """Connections and flows since startup, refused or not."""
    failed: int = 0
    """The number of these calls that ended without an answer, or were reset by the endpoint."""
    last_at: float = 0.0
    """The Unix time of the last call that workers have reported."""


class EdgesFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The edges: which clients call which Services."""

    edges: tuple[EdgeFacts, ...] = ()
    """The edges, the busiest first."""
    others: int = 0
    """Connections and flows to any Service that the table doesn't count, or no longer counts."""


class _Edge:
    __slots__ = ("connections", "failed", "last_at")

    def __init__(self) -> None:
        self.connections = self.failed = 0
        self.last_at = 0.0


class Edges:
    """The clients of a node's Services."""

    def __init__(self) -> None:
        self._edges: dict[tuple[PortKey, str, str], _Edge] = {}
        """The edges by Service port, address and pod; the most recently used edge is last."""
        self._of_port: Counter[PortKey] = Counter()
        self._others = 0

    def add(
        self,
        calls: Iterable[Calls],
        left_out: int,
        now: float,
        pod_of: Callable[[str], str] = no_pod,
    ) -> None:
        """Add a worker's report at a Unix time: its calls, and the number of calls that didn't fit.

        Args:
            pod_of: Returns the pod that has an address now; empty if none is known.
        """
        self._others += left_out
        full: set[PortKey] = set()
        """Service ports found to be full in this call, so that a flood of clients costs one
        search."""
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
        """Return the edges of the Service ports whose names ``takes`` accepts."""
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
            if takes(port.name.prefixes)
        ]
        rows.sort(key=lambda row: (-row.connections, row.service, row.client))
        return EdgesFacts(edges=tuple(rows), others=self._others)

    def _has_place(self, port: PortKey, now: float) -> bool:
        """Evict a stale edge if a new edge doesn't fit; return whether the new edge fits."""
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
