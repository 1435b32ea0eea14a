"""Defines how clients of a Service port are served, as one immutable value."""

from __future__ import annotations

from collections.abc import Container

import msgspec

from .addresses import SocketAddress
from .handling import DEFAULT_HANDLING, Handling
from .port_ranges import DialledRange


class Serving(msgspec.Struct, frozen=True, omit_defaults=True):
    """The workers' input for one family and side of a Service port; part of its plan."""

    endpoints: tuple[SocketAddress, ...] = ()
    """Usable endpoints, in round-robin order."""
    affinity_timeout_s: int | None = None
    """Seconds of ClientIP affinity; None for no affinity."""
    outside: tuple[SocketAddress, ...] | None = None
    """The endpoints for clients that aren't ``inside``; None if all clients share endpoints."""
    inside: tuple[str, ...] = ()
    """Networks of clients in the cluster."""
    admits: tuple[str, ...] | None = None
    """Networks from which packets are admitted; None admits all packets, empty admits none."""
    handling: Handling = DEFAULT_HANDLING
    weights: tuple[tuple[SocketAddress, int], ...] = ()
    """Endpoints' weights; empty if all are equal."""
    standbys: tuple[tuple[SocketAddress, int], ...] = ()
    """Endpoints with a priority other than 0: dialled only while no endpoint with a lower number
    can be dialled."""
    leaving: tuple[SocketAddress, ...] = ()
    """Terminating endpoints that still serve: flows to them continue until the proxy closes
    connections to them."""
    detours: tuple[tuple[SocketAddress, SocketAddress], ...] = ()
    """Endpoints, each with another address to dial instead, where a forwarder listens: for fault
    injection."""
    ranges: tuple[DialledRange, ...] = ()
    """The ranges of ports that clients may dial."""

    @property
    def has_none(self) -> bool:
        """Whether no node has a usable endpoint: clients are refused, or wait."""
        drops_all = self.admits is not None and not self.admits
        return not (self.endpoints or self.outside or drops_all)

    @property
    def is_dropping(self) -> bool:
        """Whether clients from outside are dropped: they have no endpoint, or none is admitted."""
        return not (self.used_outside or self.has_none)

    @property
    def is_refusing(self) -> bool:
        return self.has_none and self.handling.hold is None

    @property
    def is_uniform(self) -> bool:
        return self.affinity_timeout_s is None and self.outside is None

    def handled(
        self,
        handling: Handling,
        *,
        affinity_timeout_s: int | None,
        inside: tuple[str, ...],
        admits: tuple[str, ...] | None,
        leaving: tuple[SocketAddress, ...],
        ranges: tuple[DialledRange, ...] = (),
    ) -> Serving:
        return msgspec.structs.replace(
            self,
            handling=handling,
            affinity_timeout_s=affinity_timeout_s,
            inside=inside,
            admits=admits,
            leaving=leaving,
            ranges=ranges,
        )

    def detoured(self, detours: tuple[tuple[SocketAddress, SocketAddress], ...]) -> Serving:
        return msgspec.structs.replace(self, detours=detours)

    @property
    def used_outside(self) -> tuple[SocketAddress, ...]:
        """The endpoints for clients that aren't ``inside``."""
        return self.endpoints if self.outside is None else self.outside

    @property
    def first_endpoints(self) -> tuple[frozenset[SocketAddress], frozenset[SocketAddress]]:
        """The endpoints with the best priority for clients inside, and for clients outside."""
        inside, outside = self.first_of(self.endpoints), self.first_of(self.used_outside)
        return frozenset(inside), frozenset(outside)

    def first_of(self, endpoints: tuple[SocketAddress, ...]) -> tuple[SocketAddress, ...]:
        """Return the endpoints of the best priority among these endpoints, in order."""
        if not self.standbys:
            return endpoints
        standbys = dict(self.standbys)
        first = min((standbys.get(endpoint, 0) for endpoint in endpoints), default=0)
        return tuple(e for e in endpoints if standbys.get(e, 0) == first)

    def newcomers(self, before: Container[SocketAddress]) -> list[SocketAddress]:
        """Return the new endpoints whose priority already had an endpoint.

        Only these endpoints can start slowly, because the older endpoints take the rest of the
        connections.
        """
        standbys = dict(self.standbys)
        shared = {standbys.get(e, 0) for e in self.all_endpoints if e in before}
        new = (e for e in self.all_endpoints if e not in before)
        return [endpoint for endpoint in new if standbys.get(endpoint, 0) in shared]

    @property
    def all_endpoints(self) -> tuple[SocketAddress, ...]:
        """The endpoints for all clients, inside and outside."""
        return tuple(dict.fromkeys((*self.endpoints, *(self.outside or ()))))

    def gone_in(self, new: Serving) -> frozenset[SocketAddress]:
        """Return the endpoints that were removed, or made standbys, for some or all clients."""
        olds, news = self.first_endpoints, new.first_endpoints
        gone = [o - n for o, n in zip(olds, news, strict=True)]
        if self.inside != new.inside:
            # A client may have moved from outside to inside, or the reverse, so it keeps only
            # endpoints that both sides may use.
            gone.append(frozenset(self.all_endpoints) - (news[0] & news[1]))
        return frozenset().union(*gone)
