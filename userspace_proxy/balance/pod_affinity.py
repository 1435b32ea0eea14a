"""Shares affinity entries among the ports of a Service: an entry pins a client to a pod.

    PodAffinity of port 5060 ──┐
    PodAffinity of port 10000 ─┴─▶ AffinityTables.join ─▶ one AffinityTable: client ─▶ pod

Rule 1: the first connection of a client to any port chooses the pod for all ports. If the pod
doesn't serve a port, the client's next connection to that port picks another pod, and moves the
client to that pod on all ports.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator

from ..model import SocketAddress
from .affinity import AffinityEntry, AffinityTables

_ANY_PORT = 0


class PodAffinity:
    """A view of the shared entries for one Service port, which has its own endpoints.

    Implements the methods of :class:`.AffinityTable` that a balancer calls.
    """

    def __init__(self, name: str, timeout_s: float, tables: AffinityTables) -> None:
        self.name = name
        self._tables = tables
        self._table = tables.join(name, self, timeout_s)
        self._pods = _Pods(())

    @property
    def timeout_s(self) -> float:
        return self._table.timeout_s

    @timeout_s.setter
    def timeout_s(self, seconds: float) -> None:
        self._table.timeout_s = seconds

    def serve(self, endpoints: Collection[SocketAddress]) -> None:
        """Store the port's endpoints; of several endpoints with one IP, the first counts."""
        self._pods = _Pods(endpoints)

    def lookup(
        self, client: str, _usable: Container[SocketAddress], now: float
    ) -> SocketAddress | None:
        """Return the client's endpoint for this port, as :meth:`.AffinityTable.lookup` does."""
        pod = self._table.lookup(client, self._pods, now)
        return None if pod is None else self._pods.by_ip[pod.ip]

    def remember(self, client: str, endpoint: SocketAddress, now: float) -> None:
        self._table.remember(client, SocketAddress(endpoint.ip, _ANY_PORT), now)

    def each(self, now: float) -> Iterator[AffinityEntry]:
        for client, pod, age_s in self._table.each(now):
            if (endpoint := self._pods.by_ip.get(pod.ip)) is not None:
                yield client, endpoint, age_s

    def restore(self, entries: Iterable[AffinityEntry], now: float) -> None:
        of_pods = (
            (client, SocketAddress(at.ip, _ANY_PORT), age_s) for client, at, age_s in entries
        )
        self._table.restore(of_pods, now)

    def clear(self) -> None:
        """Leave the table; the entries stay while another port uses it. Idempotent."""
        self._tables.leave(self.name, self)


class _Pods(Container[SocketAddress]):
    """The addresses of endpoints, regardless of their ports."""

    def __init__(self, endpoints: Collection[SocketAddress]) -> None:
        self.by_ip: dict[str, SocketAddress] = {}
        for endpoint in endpoints:
            self.by_ip.setdefault(endpoint.ip, endpoint)

    def __contains__(self, pod: object) -> bool:
        return isinstance(pod, SocketAddress) and pod.ip in self.by_ip
