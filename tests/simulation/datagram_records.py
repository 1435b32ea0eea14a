"""What is known of datagrams and flows of UDP, and which endpoints a client may have."""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.connection_ends import EndReason
from userspace_proxy.model.serving import Serving

from .datagrams import DatagramSocket
from .network import Address

if TYPE_CHECKING:
    from .services import Service


# While a route changes, or ARP gets no answer (RFC 1122, 4.2.3.9).
PASSING = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH})


@dataclass
class Question:
    """A client's datagram."""

    client: Address
    to: Address
    hops: int
    at: float
    """When the node had it."""
    service: Service
    is_first: bool
    """No flow of its client was open when the node had it."""
    serving: Serving
    ends: list[Address] = field(default_factory=list)
    """Endpoints to which it was sent."""
    heard_at: list[tuple[Address, float]] = field(default_factory=list)
    """Endpoints that took it."""
    at_limit: frozenset[SocketAddress] = frozenset()
    """Endpoints that had as many flows as they may have."""
    ejected: frozenset[SocketAddress] = frozenset()
    """Endpoints that may have been left out."""
    unroutable: frozenset[SocketAddress] = frozenset()
    """Endpoints that the node may have had no route to when it came."""
    read_as: int = 0
    """The number of the system call by which the data plane read it."""
    has_waited: bool = False
    flow: Flow | None = None
    """In which it was last sent."""
    is_refused: bool = False
    """The kernel refused a call when it was handled, or there was no descriptor for its flow."""
    is_too_much: bool = False
    """Its flow waited as it was read, and kept as much as it may."""
    is_given_up: bool = False
    """Its flow has ended as it waited, with it."""

    @property
    def was_at_limit(self) -> bool:
        """Whether its client might have only endpoints that had as many flows as they may.

        Others of their priority may be left out: none of a later one is used instead.
        """
        best = self.allowed & {each for first in firsts(self.serving) for each in first}
        out = self.ejected | self.unroutable
        return self.at_limit >= best or (bool(self.at_limit & best) and self.at_limit | out >= best)

    @property
    def allowed(self) -> frozenset[SocketAddress]:
        """The endpoints that its client might have when it came."""
        return allowed(self.serving, self.client[0])


@dataclass(eq=False)
class Flow:
    """A socket that is connected to an endpoint."""

    core: DatagramSocket
    endpoint: Address
    service: Service
    serving: Serving
    began: float
    dialled_as: int
    """The number of the system call by which it began."""
    began_since: float
    """The earliest moment of that by the data plane's clock, which it reads once a turn."""
    client: Address | None = None
    to: Address | None = None
    used: float = 0.0
    """When a datagram passed last, in either direction."""
    used_since: float = 0.0
    """The earliest moment of that by the data plane's clock: it may be stopped within a turn."""
    answered_at: float | None = None
    """When the first answer was passed on."""
    read_at: float | None = None
    """When the data plane read it, which may not be able to pass it on."""
    replied_at: float = 0.0
    """When the last one was."""
    asked: int = 0
    """How many datagrams of its client were sent since."""
    is_stream: bool = False
    sent: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    """Of these, those that were read before it began: the data plane has kept them."""
    refusals: list[tuple[float, int]] = field(default_factory=list)
    """When the node was told that the endpoint refuses, and with which error."""
    cause: EndReason | None = None
    """Why it has ended, as the data plane says; None: it hasn't, or goes on at another endpoint."""
    closed_at: float | None = None
    came_at: float = 0.0
    """When a datagram of either side last reached the node: it is used, even if it can't go on."""
    may_be_stream: bool = False
    """Its client has sent more than once."""

    @property
    def has_reason_to_end(self) -> bool:
        """Whether its endpoint has refused: once that has answered, some errors may pass."""
        read_at = self.read_at
        return any(
            read_at is None or at <= read_at or number not in PASSING
            for at, number in self.refusals
        )

    @property
    def key(self) -> tuple[Address | None, Address | None]:
        return self.client, self.to


def allowed(serving: Serving, client_ip: str) -> frozenset[SocketAddress]:
    """Return the endpoints that a client may have: those on standby, too."""
    if serving.outside is None:
        return frozenset(serving.endpoints)
    return frozenset(serving.endpoints if _is_inside(serving, client_ip) else serving.outside)


def prefers(serving: Serving, client_ip: str, endpoint: SocketAddress) -> bool:
    """Return whether an endpoint is of the best priority for a client: its flows to it go on."""
    inside, outside = firsts(serving)
    is_inside = serving.outside is None or _is_inside(serving, client_ip)
    return endpoint in (inside if is_inside else outside)


def _is_inside(serving: Serving, client_ip: str) -> bool:
    address = ipaddress.ip_address(client_ip)
    return any(address in ipaddress.ip_network(network) for network in serving.inside)


def may_leave(before: Serving, now: Serving, endpoint: SocketAddress) -> bool:
    """Return whether flows to an endpoint end by a change, at least those of some clients."""
    olds, news = firsts(before), firsts(now)
    if endpoint in now.leaving:
        return False
    if endpoint in before.leaving:
        return not all(endpoint in new for new in news)
    if any(endpoint in old and endpoint not in new for old, new in zip(olds, news, strict=True)):
        return True
    return before.inside != now.inside and not all(endpoint in new for new in news)


def firsts(serving: Serving) -> list[list[SocketAddress]]:
    """Return the endpoints of the best priority, for clients inside and outside."""
    priorities = dict(serving.standbys)
    outside = serving.endpoints if serving.outside is None else serving.outside
    best_ones = []
    for endpoints in (serving.endpoints, outside):
        best = min((priorities.get(each, 0) for each in endpoints), default=0)
        best_ones.append([each for each in endpoints if priorities.get(each, 0) == best])
    return best_ones
