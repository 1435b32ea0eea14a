"""Decides which client or group loses a place when a shared limit is reached.

    one client above an eighth ──▶ its connections to the Service port where it has the most
    one Service port above half ─▶ its connections, for clients of other Service ports
    otherwise ───────────────────▶ those of the largest network and, in it, of the largest client

Rule 1: below the limit a client or a Service port may hold everything.
Rule 2: at the limit a connection is reset rather than that a new one waits; but not one that is
new, nor a client's only one if it is in use.
Rule 3: a Service port above its share replaces only its own connections.
Rule 4: of a holder's connections, the longest-idle is reset first.
Rule 5: where memory is short, those that hold the most go first, of the client that holds the most.
Rule 6: a client is an IP address. An IPv6 client may have a /64, and a node's pods may share one (a
node's pod range is a /64 by default), so a /64 doesn't have the share of a client.

Counting happens here, at the limit, so that an ordinary connection costs nothing.
"""

from __future__ import annotations

import _socket
import heapq
import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

# Using up the limit takes at least eight clients, and two Service ports.
_CLIENT_SHARE = 1 / 8
_SERVICE_SHARE = 1 / 2
# As many as a browser, a resolver or a connection pool has.
_FEW = 16
# What an idle connection costs at most (docs/benchmarks.md): less isn't worth a reset.
CONNECTION_BYTES = 16 * 1024
# Connections that hold the same but for this are equal, and the longest-idle goes.
_EQUAL_BYTES = 64 * 1024
# Twice the time until a look finds that nothing has moved (ageing.LOOK_S): a burst resets nothing.
_SETTLED_S = 10.0


class HasClient(Protocol):
    """What has a place, such as a connection."""

    @property
    def client_ip(self) -> str:
        """The client's IP address."""


class Held(HasClient, Protocol):
    """What the decision needs of a connection."""

    @property
    def group(self) -> Hashable:
        """The Service port."""

    @property
    def started(self) -> float:
        """When it was accepted."""

    def idle_since(self, now: float) -> float:
        """Return when bytes last moved."""


H = TypeVar("H", bound=Held)
K = TypeVar("K")


class Eviction(NamedTuple, Generic[H]):
    """Connections to reset, and the client or Service port that they belong to."""

    client: str
    """Empty if it is a Service port with many small clients."""
    group: Hashable
    """None if it is a client of several Service ports."""
    held: int
    """Connections of that client, or else of that Service port."""
    share: int
    """How many it may keep; more than it has if no client or Service port is above its share."""
    victims: list[H]
    """At least one, the longest-idle first."""


def client_share(places: int) -> int:
    """Return how many of that many places a client may keep at the limit."""
    return max(_FEW, int(places * _CLIENT_SHARE))


def service_share(places: int) -> int:
    """Return how many of that many places a Service port may keep at the limit."""
    return max(_FEW, int(places * _SERVICE_SHARE))


def network_of(client_ip: str) -> bytes | None:
    """Return the /64 of an IPv6 address, which may be one client's; None for an IPv4 address."""
    if ":" not in client_ip:
        return None
    return _socket.inet_pton(_socket.AF_INET6, client_ip.partition("%")[0])[:8]


def choose(connections: Collection[H], newcomers: Hashable, now: float) -> Eviction[H] | None:
    """Return which open connections to reset for a new one of a Service port; None: it waits."""
    if not connections:
        return None
    batch, share = _batch(len(connections)), client_share(len(connections))
    group, held = _largest(Counter([c.group for c in connections]))
    of_service = service_share(len(connections))
    is_pressing = held > of_service
    among = [c for c in connections if c.group is group] if is_pressing else connections
    clients = Counter([c.client_ip for c in among])
    client, most = _largest(clients)
    if most > share:
        own = [c for c in among if c.client_ip == client]
        return _choose_of_client(own, share, min(batch, most - share), now)
    if is_pressing and group is not newcomers:
        victims = _longest_idle(among, min(batch, held - of_service), now)
        return Eviction("", group, held, of_service, victims)
    return _choose_within_shares(among, clients, share, now)


def choose_to_free(
    connections: Collection[H],
    buffered_bytes: Callable[[H], int],
    *,
    excess: int,
    spared: int,
    now: float,
) -> list[H]:
    """Return the connections to reset to free memory; call again if that was not enough.

    Args:
        connections: All that are open.
        buffered_bytes: What one of them holds in buffers.
        excess: How many bytes to free.
        spared: So many bytes may connections hold anyway.
        now: Monotonic seconds.
    """
    holding = {c: held for c in connections if (held := buffered_bytes(c)) >= CONNECTION_BYTES}
    left = sum(holding.values()) + len(connections) * CONNECTION_BYTES
    excess = min(excess, left - spared)
    clients: Counter[str] = Counter()
    for connection, held in holding.items():
        clients[connection.client_ip] += held
    victims: list[H] = []
    for connection in sorted(
        holding,
        key=lambda c: (-clients[c.client_ip], -(holding[c] // _EQUAL_BYTES), c.idle_since(now)),
    ):
        if excess <= 0:
            return victims
        victims.append(connection)
        excess -= holding[connection] + CONNECTION_BYTES
    if excess > 0:
        eviction = choose([c for c in connections if c not in holding], None, now)
        if eviction is not None:
            victims += eviction.victims[: math.ceil(excess / CONNECTION_BYTES)]
    return victims


def _choose_of_client(own: Collection[H], share: int, count: int, now: float) -> Eviction[H]:
    """Choose among one client's: it may have a few connections to each of many Service ports."""
    client = next(iter(own)).client_ip
    group, held = _largest(Counter([c.group for c in own]))
    if held <= _FEW:
        return Eviction(client, None, len(own), share, _longest_idle(own, count, now))
    pressing = [c for c in own if c.group is group]
    victims = _longest_idle(pressing, min(count, held - _FEW), now)
    return Eviction(client, group, len(own), share, victims)


def _choose_within_shares(
    connections: Collection[H], clients: Counter[str], share: int, now: float
) -> Eviction[H] | None:
    """Choose those of the largest client in the largest network that aren't new."""
    networks = {ip: network_of(ip) or ip for ip in clients}
    sizes: Counter[Hashable] = Counter()
    for ip, held in clients.items():
        sizes[networks[ip]] += held
    largest = max(sizes.values())
    ips = {ip for ip in clients if sizes[networks[ip]] == largest}
    settled = [
        c for c in connections if c.client_ip in ips and _is_settled(c, now, is_only=largest == 1)
    ]
    victims = heapq.nsmallest(
        math.ceil(len(connections) / 256),
        settled,
        key=lambda c: (-clients[c.client_ip], c.idle_since(now)),
    )
    if not victims:
        return None
    client = victims[0].client_ip
    return Eviction(client, None, clients[client], share, victims)


def _is_settled(connection: Held, now: float, *, is_only: bool) -> bool:
    """Return whether a connection may be reset; its client's only one not while it is in use."""
    since = connection.idle_since(now) if is_only else connection.started
    return now - since >= _SETTLED_S


def _batch(places: int) -> int:
    """Return how many to reset at a time: looking at all costs 0.5 µs each, so 30 µs per reset."""
    return max(8, math.ceil(places / 64))


def _longest_idle(connections: Collection[H], count: int, now: float) -> list[H]:
    return heapq.nsmallest(count, connections, key=lambda c: c.idle_since(now))


def _largest(held: Counter[K]) -> tuple[K, int]:
    return held.most_common(1)[0]
