"""Balances clients inside the cluster over one set of endpoints, other clients over another.

Source: kube-proxy: with ``externalTrafficPolicy: Local`` pods and the node itself may use all
endpoints, clients from outside only the endpoints of this node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ..model import SocketAddress, contains
from .affinity import AffinityEntry
from .balancer import Balancer


class SplitBalancer:
    """A balancer that delegates to one of two balancers by the client's address.

    Args:
        inner: The balancer for clients inside the cluster.
        outer: The balancer for all other clients.
        inside: The cluster's networks, in canonical form.
    """

    def __init__(self, inner: Balancer, outer: Balancer, inside: Sequence[str]) -> None:
        self.inner = inner
        self.outer = outer
        self._inside = tuple(inside)

    def serves(self, client: str, endpoint: SocketAddress) -> bool:
        return self._of(client).serves(client, endpoint)

    def has_more(self, client: str, now: float, *, tried: Collection[SocketAddress]) -> bool:
        return self._of(client).has_more(client, now, tried=tried)

    def is_at_limit(
        self, client: str, now: float, *, tried: Collection[SocketAddress] = ()
    ) -> bool:
        return self._of(client).is_at_limit(client, now, tried=tried)

    def pick(
        self, client: str, now: float, *, tried: Collection[SocketAddress] = ()
    ) -> SocketAddress | None:
        return self._of(client).pick(client, now, tried=tried)

    def answered(self, endpoint: SocketAddress) -> bool:
        ends = self.inner.answered(endpoint)
        return self.outer.answered(endpoint) or ends

    def failed(self, endpoint: SocketAddress, now: float, *, is_silent: bool = False) -> bool:
        begins = self.inner.failed(endpoint, now, is_silent=is_silent)
        return self.outer.failed(endpoint, now, is_silent=is_silent) or begins

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        return {**self.inner.ejected(now), **self.outer.ejected(now)}

    def entries(self, now: float) -> Iterator[AffinityEntry]:
        yield from self.inner.entries(now)
        yield from self.outer.entries(now)

    def restore(self, entries: Iterable[AffinityEntry], now: float) -> None:
        """Restore each client's entries in the balancer that serves it."""
        parts: dict[Balancer, list[AffinityEntry]] = {self.inner: [], self.outer: []}
        for entry in entries:
            parts[self._of(entry[0])].append(entry)
        for balancer, part in parts.items():
            balancer.restore(part, now)

    def _of(self, client: str) -> Balancer:
        return self.inner if contains(self._inside, client) else self.outer
