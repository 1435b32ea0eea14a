"""Defines why dials, connections and flows fail: one member per distinct meaning.

    connect, send, recv ──errno──▶ dial_failure ──▶ DialFailure ──▶ counted, reported, acted on
                                                        ▲
    kernel asked: is there a host, a route? ────────────┘

Rule 1: an errno is interpreted only where a call returns it. Afterwards only its text is used,
which some causes show.
Rule 2: reasons that no errno expresses have their own members: answers of the kernel's tables, and
ends of connections.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Mapping
from typing import NamedTuple


class Failure(enum.StrEnum):
    """Why one attempt at an endpoint failed; workers' messages contain these values."""

    # Failures derived from the errno of a dial, or of a datagram.
    REFUSED = "refused"
    """A RST in response to the SYN, or ICMP "port unreachable" to a datagram."""
    SILENT = "silent"
    """Nothing answered in time."""
    RESET = "reset"
    """The endpoint accepted the connection and reset it. Source: tcp_reset() in
    net/ipv4/tcp_input.c; a RST in response to a SYN is ECONNREFUSED."""
    HOST_UNREACHABLE = "host-unreachable"
    """ICMP, an unanswered ARP request, or a route of this node (type unreachable)."""
    NET_UNREACHABLE = "net-unreachable"
    """ICMP, or no route of this node."""
    HOST_DOWN = "host-down"
    """ICMP "host unknown", or an interface that is down."""
    ADMIN_PROHIBITED = "admin-prohibited"
    """EACCES on IPv6: ICMPv6 "administratively prohibited", or a route of this node."""
    NO_ACCESS = "no-access"
    """EACCES on IPv4, which no ICMP error causes: a route or routing rule of this node, or a
    security module."""
    NOT_PERMITTED = "not-permitted"
    """EPERM, which no ICMP error causes: rules of this node drop the packet."""
    NO_PROTOCOL = "no-protocol"
    """ICMP "protocol unreachable", for example from a firewall that rejects packets."""
    BLACKHOLE = "blackhole"
    """EINVAL: a route of type blackhole."""
    OUT_OF_PORTS = "out-of-ports"
    """No source port was free for this endpoint."""
    OUT_OF_ALL_PORTS = "out-of-all-ports"
    """The kernel found no source port that is free for all endpoints."""
    EXHAUSTED = "exhausted"
    """This process or node was out of descriptors or memory."""
    OTHER = "other"
    """Another errno; also the value before any failure."""

    # Failures found by querying the kernel's routes and neighbours after a failed dial.
    NO_HOST = "no-host"
    """No host answers for the next hop, according to the neighbour table."""
    NO_ROUTE = "no-route"
    """This node has no route to the endpoint."""
    ROUTE_PROHIBITS = "route-prohibits"
    """A route or routing rule of this node prohibits the endpoint's address."""
    ROUTE_UNREACHABLE = "route-unreachable"
    """A route of this node has the type unreachable."""

    # Failures at the end of a connection or a flow.
    CLOSED = "closed"
    """The endpoint closed the connection without sending a byte."""
    UNANSWERED = "unanswered"
    """The client gave up waiting for a byte, or the endpoint hung and then reset the connection."""
    NO_DATAGRAM = "no-datagram"
    """The endpoint hasn't answered a UDP flow."""
    NOT_TO_ENDPOINT = "not-to-endpoint"
    """The endpoint completed the handshake, but didn't acknowledge the data after it."""
    FROM_ENDPOINT = "from-endpoint"
    """Bytes from the endpoint arrived after a gap that was never filled."""
    NOT_TO_CLIENT = "not-to-client"
    """The client didn't acknowledge part of the answer, and then left."""


class DialFailure(NamedTuple):
    """Why a dial failed, and the errno behind it."""

    failure: Failure
    number: int = 0
    """The errno, whose text some causes show; 0 if there was no errno."""


UNREACHABLE = frozenset({Failure.HOST_UNREACHABLE, Failure.NET_UNREACHABLE, Failure.HOST_DOWN})
"""Failures that mean that the endpoint's host can't be reached, or is down."""
NO_ANSWER = frozenset({Failure.SILENT, Failure.HOST_UNREACHABLE})
"""Failures of dials to an absent host: the dial timed out first, or the kernel gave up."""
SHORTAGES = frozenset({Failure.EXHAUSTED, Failure.OUT_OF_PORTS, Failure.OUT_OF_ALL_PORTS})
"""Failures caused by this node's lack of resources, not by the endpoint."""
OWN_ROUTES: Mapping[Failure, Failure] = {
    Failure.NET_UNREACHABLE: Failure.NO_ROUTE,
    Failure.ADMIN_PROHIBITED: Failure.ROUTE_PROHIBITS,
    Failure.NO_ACCESS: Failure.ROUTE_PROHIBITS,
    Failure.HOST_UNREACHABLE: Failure.ROUTE_UNREACHABLE,
}
"""The failure that replaces an ambiguous one when a route look-up shows that a route of this node,
or a missing route, caused it. Source: fib_props in net/ipv4/fib_semantics.c; ip6_rt_type_to_error()
in net/ipv6/route.c."""
BY_OWN_ROUTE = frozenset(OWN_ROUTES.values())
"""Failures caused by a route of this node, or by a missing route."""
LOSSES = frozenset({Failure.NOT_TO_ENDPOINT, Failure.FROM_ENDPOINT, Failure.NOT_TO_CLIENT})
"""Failures caused by packets lost after the handshake."""
LEFT = LOSSES | {Failure.UNANSWERED}
"""Failures of connections that the client left; the endpoint ended all other connections."""

EXHAUSTED_ERRNOS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC}
)
"""Errnos of any call while this process or node is out of descriptors or memory."""
# Source: icmp_err_convert in net/ipv4/icmp.c and tab_unreach in net/ipv6/icmp.c.
_READ: Mapping[int, Failure] = {
    errno.ECONNREFUSED: Failure.REFUSED,
    errno.ETIMEDOUT: Failure.SILENT,
    errno.ECONNRESET: Failure.RESET,
    errno.EPIPE: Failure.RESET,
    errno.EHOSTUNREACH: Failure.HOST_UNREACHABLE,
    errno.ENETUNREACH: Failure.NET_UNREACHABLE,
    errno.EHOSTDOWN: Failure.HOST_DOWN,
    errno.ENETDOWN: Failure.HOST_DOWN,
    errno.EACCES: Failure.NO_ACCESS,
    errno.EPERM: Failure.NOT_PERMITTED,
    errno.ENOPROTOOPT: Failure.NO_PROTOCOL,
    errno.EINVAL: Failure.BLACKHOLE,
    errno.EADDRNOTAVAIL: Failure.OUT_OF_PORTS,
    errno.EAGAIN: Failure.OUT_OF_ALL_PORTS,
    **dict.fromkeys(EXHAUSTED_ERRNOS, Failure.EXHAUSTED),
}


def dial_failure(number: int, ip: str) -> DialFailure:
    """Classify the errno of a dial or of a datagram.

    Args:
        number: The errno.
        ip: The endpoint's address: only ICMPv6 has an error that is reported as EACCES.
    """
    failure = _READ.get(number, Failure.OTHER)
    if failure is Failure.NO_ACCESS and ":" in ip:
        failure = Failure.ADMIN_PROHIBITED
    return DialFailure(failure, number)
