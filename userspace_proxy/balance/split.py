"""Two sets of endpoints: one for clients inside the cluster, one for clients outside.

Source: kube-proxy: with ``externalTrafficPolicy: Local`` pods and the node itself may use all
endpoints, and clients from outside those of this node.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence

from ..model import SocketAddress, contains
from .balancer import Balancer


class SplitBalancer:
    """Asks one balancer or the other, by the client's address.

    Args:
        inner: For clients inside.
        outer: For all others.
        inside: Networks of the former, in canonical form.
    """

    def __init__(self, inner: Balancer, outer: Balancer, inside: Sequence[str]) -> None:
        self.inner = inner
        self.outer = outer
        self._inside = tuple(inside)

    @property
    def endpoints(self) -> Sequence[SocketAddress]:
        """All of both."""
        return tuple(dict.fromkeys((*self.inner.endpoints, *self.outer.endpoints)))

    @property
    def pinned_clients(self) -> int:
        """How many clients are remembered."""
        return self.inner.pinned_clients + self.outer.pinned_clients

    def has_more(self, client: str, now: float, *, tried: Container[SocketAddress]) -> bool:
        """Tell whether :meth:`pick` would return an endpoint."""
        return self._of(client).has_more(client, now, tried=tried)

    def pick(
        self, client: str, now: float, *, tried: Collection[SocketAddress] = ()
    ) -> SocketAddress | None:
        """Return the endpoint to dial next; as :meth:`Balancer.pick`."""
        return self._of(client).pick(client, now, tried=tried)

    def answered(self, endpoint: SocketAddress) -> bool:
        """Note that a dial succeeded; True if this ends an ejection."""
        ends = self.inner.answered(endpoint)
        return self.outer.answered(endpoint) or ends

    def failed(self, endpoint: SocketAddress, now: float, *, is_silent: bool = False) -> bool:
        """Note that a dial failed, and eject the endpoint; True if this begins an ejection."""
        begins = self.inner.failed(endpoint, now, is_silent=is_silent)
        return self.outer.failed(endpoint, now, is_silent=is_silent) or begins

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        """Return the ejected endpoints, each with the seconds until its probe is due."""
        return {**self.inner.ejected(now), **self.outer.ejected(now)}

    def _of(self, client: str) -> Balancer:
        return self.inner if contains(self._inside, client) else self.outer
