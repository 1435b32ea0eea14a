"""What a dial, a connection or a flow failed by: each distinct meaning has one member.

    connect, send, recv ──errno──▶ dial_failure ──▶ DialFailure ──▶ counted, worded, acted on
                                                        ▲
    kernel asked: is there a host, a route? ────────────┘

Rule 1: an errno means something only where the call returned it. Behind that it is kept for its
text alone, which some causes show.
Rule 2: what an errno doesn't show has a member that no errno is read as: what the kernel was asked
about, and how connections end.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Mapping
from typing import NamedTuple


class Failure(enum.StrEnum):
    """Why one attempt at an endpoint failed; the values are those of messages from workers."""

    # Read from the errno of a dial, or of a datagram.
    REFUSED = "refused"
    """A RST answered the SYN, or ICMP "port unreachable" the datagram."""
    SILENT = "silent"
    """Nothing answered in time."""
    RESET = "reset"
    """The endpoint accepted the connection and reset it. Source: tcp_reset() in
    net/ipv4/tcp_input.c; a RST that answers a SYN is ECONNREFUSED."""
    HOST_UNREACHABLE = "host-unreachable"
    """ICMP, an ARP request without an answer, or a route of this node (type unreachable)."""
    NET_UNREACHABLE = "net-unreachable"
    """ICMP, or no route of this node."""
    HOST_DOWN = "host-down"
    """ICMP "host unknown", or an interface that is down."""
    ADMIN_PROHIBITED = "admin-prohibited"
    """EACCES of IPv6: ICMPv6 "administratively prohibited", or a route of this node."""
    NO_ACCESS = "no-access"
    """EACCES of IPv4, which no ICMP error is: a route or routing rule of this node, or a security
    module."""
    NOT_PERMITTED = "not-permitted"
    """EPERM, which no ICMP error is: rules of this node drop the packet."""
    NO_PROTOCOL = "no-protocol"
    """ICMP "protocol unreachable", as of a firewall that rejects packets."""
    BLACKHOLE = "blackhole"
    """EINVAL: a route of type blackhole."""
    OUT_OF_PORTS = "out-of-ports"
    """No source port was left towards this endpoint."""
    OUT_OF_ALL_PORTS = "out-of-all-ports"
    """The kernel found no source port that is free towards all endpoints."""
    EXHAUSTED = "exhausted"
    """This process or node was out of descriptors or memory."""
    OTHER = "other"
    """Another error, of which only the errno is known; also of what has not failed yet."""

    # The kernel was asked after the dial.
    NO_HOST = "no-host"
    """No host answers for the next hop: the neighbour table shows it."""
    NO_ROUTE = "no-route"
    """This node has no route to it."""
    ROUTE_PROHIBITS = "route-prohibits"
    """A route or routing rule of this node prohibits it."""
    ROUTE_UNREACHABLE = "route-unreachable"
    """A route of this node has the type unreachable."""

    # How a connection or a flow ended.
    CLOSED = "closed"
    """The endpoint ended the connection without a byte."""
    UNANSWERED = "unanswered"
    """The client gave up waiting for a byte, or the endpoint had hung until it reset the
    connection."""
    NO_DATAGRAM = "no-datagram"
    """The endpoint hasn't answered a UDP flow."""
    NOT_TO_ENDPOINT = "not-to-endpoint"
    """The endpoint acknowledged the handshake, and not what was sent to it behind that."""
    FROM_ENDPOINT = "from-endpoint"
    """Bytes of the endpoint have arrived behind a gap that wasn't filled."""
    NOT_TO_CLIENT = "not-to-client"
    """The client didn't acknowledge bytes of the answer, and then left."""


class DialFailure(NamedTuple):
    """Why a dial failed, and the errno behind it."""

    failure: Failure
    number: int = 0
    """The errno, whose text some causes show; 0: there was none."""


UNREACHABLE = frozenset({Failure.HOST_UNREACHABLE, Failure.NET_UNREACHABLE, Failure.HOST_DOWN})
"""Those for which there is no way to a host."""
NO_ANSWER = frozenset({Failure.SILENT, Failure.HOST_UNREACHABLE})
"""Those where no host may have the address: a dial ends before the kernel gives up, or with that.
"""
SHORTAGES = frozenset({Failure.EXHAUSTED, Failure.OUT_OF_PORTS, Failure.OUT_OF_ALL_PORTS})
"""Those that are caused by this node, not by the endpoint."""
OWN_ROUTES: Mapping[Failure, Failure] = {
    Failure.NET_UNREACHABLE: Failure.NO_ROUTE,
    Failure.ADMIN_PROHIBITED: Failure.ROUTE_PROHIBITS,
    Failure.NO_ACCESS: Failure.ROUTE_PROHIBITS,
    Failure.HOST_UNREACHABLE: Failure.ROUTE_UNREACHABLE,
}
"""What those are that a dial and a route look-up share, when a route of this node, or the lack of
one, made the dial fail. Source: fib_props in net/ipv4/fib_semantics.c; ip6_rt_type_to_error() in
net/ipv6/route.c."""
BY_OWN_ROUTE = frozenset(OWN_ROUTES.values())
"""Those that a route of this node causes, or the lack of one."""
LOSSES = frozenset({Failure.NOT_TO_ENDPOINT, Failure.FROM_ENDPOINT, Failure.NOT_TO_CLIENT})
"""Those of packets that are lost behind the handshake."""
LEFT = LOSSES | {Failure.UNANSWERED}
"""Those of connections that clients left, all others being ends by the endpoint."""

EXHAUSTED_ERRNOS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC}
)
"""Errors of any call when this process is out of descriptors or memory."""
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
    """Return what an errno of a dial, or of a datagram, means.

    Args:
        number: The errno.
        ip: The endpoint's address: ICMP of IPv6 has an error that ICMP of IPv4 doesn't have.
    """
    failure = _READ.get(number, Failure.OTHER)
    if failure is Failure.NO_ACCESS and ":" in ip:
        failure = Failure.ADMIN_PROHIBITED
    return DialFailure(failure, number)
