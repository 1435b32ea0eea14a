"""Judges that nothing remembers clients or endpoints that have gone: entries that stay for ever.

All that the data plane's objects refer to is walked, so a new table is judged without being listed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from userspace_proxy.dataplane.tcp import TcpConnection
from userspace_proxy.dataplane.tcp_dial import TcpDial
from userspace_proxy.dataplane.udp_flow import UdpFlow

if TYPE_CHECKING:
    from .world import World

ORACLE = "remembered"

_OWN = "userspace_proxy."
_OF_ONE_CLIENT = (TcpConnection, TcpDial, UdpFlow)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_ARRANGED = tuple(
    f"{_OWN}balance.{name}"
    for name in ("lanes", "least_connections", "random_choice", "round_robin", "source_hash")
)
"""Strategies, which keep what they last chose from until their next choice."""
_BOUNDED = frozenset(
    {
        # Until the next report; at most CALLS_MAX.
        "CallCounts._counts",
        # Caches: what is known of some thousand addresses.
        "AcceptedHeaders._known",
        "Locality._cache",
        "Locality._pairs",
        # Pairs of the last minute, at most MAX_PAIRS.
        "Pairs._until",
        # What the node is told.
        "Serving.leaving",
        "Serving.weights",
        "Serving.standbys",
        "Weights._configured",
        # Of endpoints: until the next update that removes some, as they had connections then,
        "EndpointGroup._per_endpoint",
        "EndpointGroup.left_at",
        # until the next ones whose time is up,
        "Removals._ending",
        # until the next choice beside an ejected one,
        "Ejections._ends",
        # and until the next dial, a minute later.
        "NodeAddressDialer._counts",
        # Pins end when they are used next, or others need their room.
        "AffinityTable._pins",
        # The client whose connections were reset last while there was a shortage.
        "Shedding._pressing",
        # What an endpoint's failures in a row were, for some clients.
        "Exclusions.clients",
        "Exclusions.part",
        "Streak.part",
    }
)
"""Tables with a bound of their own, whatever clients and endpoints do."""


def at_rest(world: World) -> None:
    """Judge what is left of clients and endpoints, once all have gone and all times have passed."""
    clients = world.clients.values()
    ips = {client.stream.local[0] for client in clients if client.stream.local is not None}
    ips |= {client.served_as.ip for client in clients} | {ip for ip, _port in world.askers}
    current = {each for s in world.services for each in s.group.serving.all_endpoints}
    ips |= {e.ip for s in world.services for e in s.has_left if e not in current}
    found = sorted({*_places(world.dataplane, ips)} - _BOUNDED)
    world.judgements.check(ORACLE, not found, f"what has gone is still in {', '.join(found)}")


def _places(root: object, ips: set[str]) -> Iterator[str]:
    """Yield the attributes in which there is one of these clients, or what stands for one."""
    waiting: list[tuple[str, object]] = [("", root)]
    seen: set[int] = set()
    while waiting:
        place, one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, _OF_ONE_CLIENT):
            yield f"{place} ({type(one).__name__})"
        elif isinstance(one, _CONTAINERS):
            parts = [*one, *one.values()] if isinstance(one, Mapping) else list(one)
            if any(isinstance(each, str) and each in ips for each in parts):
                yield place
            waiting += [(place, part) for part in parts if not isinstance(part, str | int | float)]
        elif type(one).__module__ in _ARRANGED:
            continue
        elif type(one).__module__.startswith(_OWN):
            owner = type(one).__name__
            waiting += [(f"{owner}.{name}", value) for name, value in _attributes(one)]


def _attributes(one: object) -> Iterator[tuple[str, Any]]:
    yield from getattr(one, "__dict__", {}).items()
    for each in type(one).__mro__:
        names: str | Iterable[str] = vars(each).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(one, name):
                yield name, getattr(one, name)
