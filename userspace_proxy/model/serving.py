"""How the clients of one Service port are served, as one immutable value."""

from __future__ import annotations

from collections.abc import Container

import msgspec

from .addresses import SocketAddress
from .handling import DEFAULT_HANDLING, Handling


class Serving(msgspec.Struct, frozen=True, omit_defaults=True):
    """What workers need to serve a Service port: a part of its plan, and of messages to them."""

    endpoints: tuple[SocketAddress, ...] = ()
    """Usable endpoints, in the order of their turns."""
    affinity_timeout_s: int | None = None
    """Seconds of ClientIP affinity; None for none."""
    outside: tuple[SocketAddress, ...] | None = None
    """The endpoints for clients that aren't ``inside``; None: the same for all clients."""
    inside: tuple[str, ...] = ()
    """Networks of clients in the cluster."""
    admits: tuple[str, ...] | None = None
    """Networks to admit packets from; others are dropped. None: all; empty: none."""
    handling: Handling = DEFAULT_HANDLING
    weights: tuple[tuple[SocketAddress, int], ...] = ()
    """Of endpoints; empty if all have the same."""
    standbys: tuple[tuple[SocketAddress, int], ...] = ()
    """Endpoints with a priority other than 0: they are dialled while none of a priority before
    can be."""
    leaving: tuple[SocketAddress, ...] = ()
    """Endpoints that terminate and still serve: flows to them go on for the time after which
    connections end."""
    detours: tuple[tuple[SocketAddress, SocketAddress], ...] = ()
    """Endpoints that are dialled at another address, which passes connections on: for faults."""

    @property
    def has_none(self) -> bool:
        """Whether no node has a usable endpoint: clients are refused, or wait."""
        drops_all = self.admits is not None and not self.admits
        return not (self.endpoints or self.outside or drops_all)

    @property
    def is_dropping(self) -> bool:
        """Whether some clients are dropped, because only other nodes have endpoints for them."""
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
    ) -> Serving:
        return msgspec.structs.replace(
            self,
            handling=handling,
            affinity_timeout_s=affinity_timeout_s,
            inside=inside,
            admits=admits,
            leaving=leaving,
        )

    def detoured(self, detours: tuple[tuple[SocketAddress, SocketAddress], ...]) -> Serving:
        return msgspec.structs.replace(self, detours=detours)

    @property
    def used_outside(self) -> tuple[SocketAddress, ...]:
        """What clients that aren't ``inside`` may use."""
        return self.endpoints if self.outside is None else self.outside

    @property
    def first_endpoints(self) -> tuple[frozenset[SocketAddress], frozenset[SocketAddress]]:
        """The endpoints inside and outside, without those on standby."""
        inside, outside = self.first_of(self.endpoints), self.first_of(self.used_outside)
        return frozenset(inside), frozenset(outside)

    def first_of(self, endpoints: tuple[SocketAddress, ...]) -> tuple[SocketAddress, ...]:
        """Return those of the first priority among them, in order."""
        if not self.standbys:
            return endpoints
        standbys = dict(self.standbys)
        first = min((standbys.get(endpoint, 0) for endpoint in endpoints), default=0)
        return tuple(e for e in endpoints if standbys.get(e, 0) == first)

    def newcomers(self, before: Container[SocketAddress]) -> list[SocketAddress]:
        """Return the endpoints that weren't there before, where another one of their priority was.

        Only these can start slowly: the other one takes the rest of the connections.
        """
        standbys = dict(self.standbys)
        shared = {standbys.get(e, 0) for e in self.all_endpoints if e in before}
        new = (e for e in self.all_endpoints if e not in before)
        return [endpoint for endpoint in new if standbys.get(endpoint, 0) in shared]

    @property
    def all_endpoints(self) -> tuple[SocketAddress, ...]:
        """Every endpoint of any client."""
        return tuple(dict.fromkeys((*self.endpoints, *(self.outside or ()))))

    def gone_in(self, new: Serving) -> frozenset[SocketAddress]:
        """Return the endpoints that at least one side may not use any more."""
        olds, news = self.first_endpoints, new.first_endpoints
        gone = [o - n for o, n in zip(olds, news, strict=True)]
        if self.inside != new.inside:
            # Clients may have changed sides.
            gone.append(frozenset(self.all_endpoints) - (news[0] & news[1]))
        return frozenset().union(*gone)
