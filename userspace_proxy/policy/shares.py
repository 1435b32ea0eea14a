"""Decides which client or Service port loses connections when a shared limit is reached.

    one client above an eighth ──▶ its connections to the Service port where it has the most
    one Service port above half ─▶ its connections, in favour of other Service ports
    otherwise ───────────────────▶ connections of the largest client in the largest network

Rule 1: below the limit, a single client or Service port may hold all connections.
Rule 2: at the limit, connections are reset so that a new client needn't wait; within the shares,
never a recent connection, or the only connection of an IPv4 address or a /64 while it is in use.
Rule 3: new clients of a Service port above its share replace only connections of that port.
Rule 4: the connections of a client or Service port that have been idle longest are reset first.
Rule 5: if memory is low, the client that uses the most loses its largest connections first.
Rule 6: a client is an IP address. An IPv6 client may own a /64, but a /64 doesn't count as one
client, because the pods of a node may share it (a node's pod range is a /64 by default).

Clients are counted only at the limit, so that ordinary connections cost nothing.
"""

from __future__ import annotations

import _socket
import heapq
import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

# The shares of the limit that a client and a Service port may use: at least eight clients, or two
# Service ports, are needed to exhaust it.
_CLIENT_SHARE = 1 / 8
_SERVICE_SHARE = 1 / 2
# How many connections a client or a Service port may keep in any case: as many as a browser, a
# resolver or a connection pool opens.
_FEW = 16
# The maximum cost of an idle connection (docs/benchmarks.md): freeing less isn't worth a reset.
CONNECTION_BYTES = 16 * 1024
# Buffers are compared in units of this size; among equals, the longest idle connection is reset.
_EQUAL_BYTES = 64 * 1024
# Within the shares, a younger connection isn't reset, so that a burst resets nothing: more than
# twice the interval at which idle connections are found (ageing.LOOK_S).
_SETTLED_S = 10.0


class HasClient(Protocol):
    """An object with a client that counts towards a limit, such as a connection."""

    @property
    def client_ip(self) -> str:
        """The client's IP address."""


class Held(HasClient, Protocol):
    """A connection, as far as this decision depends on it."""

    @property
    def group(self) -> Hashable:
        """The connection's Service port."""

    @property
    def started(self) -> float:
        """When the connection was accepted, in monotonic seconds."""

    def idle_since(self, now: float) -> float:
        """Return when the connection last transferred bytes, in monotonic seconds."""


H = TypeVar("H", bound=Held)
K = TypeVar("K")


class Eviction(NamedTuple, Generic[H]):
    """The connections to reset, and the client or Service port to which they belong."""

    client: str
    """The client; empty if a Service port with many small clients is above its share."""
    group: Hashable
    """The Service port of all victims; None if they may belong to several Service ports."""
    held: int
    """The number of connections of the client, or without a client, of the Service port."""
    share: int
    """The number of connections to keep; at least ``held`` if no share is exceeded."""
    victims: list[H]
    """The connections to reset, at least one; a client's longest idle connections come first."""


def client_share(places: int) -> int:
    """Return the number of connections that a client may keep at the limit."""
    return max(_FEW, int(places * _CLIENT_SHARE))


def service_share(places: int) -> int:
    """Return the number of connections that a Service port may keep at the limit."""
    return max(_FEW, int(places * _SERVICE_SHARE))


def network_of(client_ip: str) -> bytes | None:
    """Return the /64 of an IPv6 address, which one client may own; None for an IPv4 address."""
    if ":" not in client_ip:
        return None
    return _socket.inet_pton(_socket.AF_INET6, client_ip.partition("%")[0])[:8]


def choose(connections: Collection[H], newcomers: Hashable, now: float) -> Eviction[H] | None:
    """Choose connections to reset for a client of ``newcomers``; None if the client must wait."""
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
    """Choose connections to reset in order to free memory; call again to free more.

    Args:
        connections: All open connections.
        buffered_bytes: Returns the bytes that a connection holds in buffers.
        excess: How many bytes to free.
        spared: How many bytes connections may hold in any case.
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
    """Choose the connections of one client to reset; they may belong to many Service ports."""
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
    """Choose settled connections of the largest networks, the largest client's first, or None."""
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
    """Return whether a connection is old enough or, if ``is_only``, has been idle long enough."""
    since = connection.idle_since(now) if is_only else connection.started
    return now - since >= _SETTLED_S


def _batch(places: int) -> int:
    """Return how many connections to reset together, so that a reset costs 30 µs of scanning."""
    return max(8, math.ceil(places / 64))


def _longest_idle(connections: Collection[H], count: int, now: float) -> list[H]:
    return heapq.nsmallest(count, connections, key=lambda c: c.idle_since(now))


def _largest(held: Counter[K]) -> tuple[K, int]:
    return held.most_common(1)[0]
