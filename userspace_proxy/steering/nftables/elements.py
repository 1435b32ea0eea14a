"""Frontends and ports as set elements, and common parts of rules."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ...kernel.conntrack import PROTOCOL_NUMBERS
from ...kernel.netlink.rtnetlink import ip_of, pack_ip
from ...kernel.nf_tables import expressions as x
from ...kernel.nf_tables.expressions import (
    INET_PROTO,
    INET_SERVICE,
    IPV4_ADDR,
    IPV6_ADDR,
    KeyType,
    joined,
)
from ...model import Frontend, IPFamily, Protocol

# Before the filters of others, which might drop what is to be refused.
FILTER_PRIORITY = -10
_PROTOCOLS = {int(number): protocol for protocol, number in PROTOCOL_NUMBERS.items()}
ADDRESS = {IPFamily.IPV4: IPV4_ADDR, IPFamily.IPV6: IPV6_ADDR}
PORT = joined(INET_PROTO, INET_SERVICE)
"""The key of a protocol and a port."""
FRONTEND: Mapping[IPFamily, KeyType] = {
    family: joined(ADDRESS[family], INET_PROTO, INET_SERVICE) for family in IPFamily
}
"""The keys of frontends: ``10.96.7.1 . tcp . 80``."""
# A protocol and a port, each padded to four bytes.
_PORT = struct.Struct(">B3xH2x")

# Common parts of rules.
IS_FAMILY = {IPFamily.IPV4: x.IPV4, IPFamily.IPV6: x.IPV6}
DIALLED = {
    IPFamily.IPV4: (x.IP_DADDR, x.L4PROTO, x.DPORT),
    IPFamily.IPV6: (x.IP6_DADDR, x.L4PROTO, x.DPORT),
}
# Not "tcp flags syn": that doesn't match a SYN with FIN or RST.
SYN = x.TCP + x.match(x.TCP_FLAGS, 0x02, mask=0x12)
# Without a socket the expression doesn't match, and the kernel's own stack refuses.
TO_OTHER_SOCKET = x.match(x.SOCKET_TRANSPARENT, 0)


def port_key(protocol: Protocol, port: int) -> bytes:
    """Return a port as an element: ``tcp . 36001``."""
    return _PORT.pack(PROTOCOL_NUMBERS[protocol], port)


def frontend_key(frontend: Frontend) -> bytes:
    """Return a frontend as an element: ``10.96.7.1 . tcp . 80``."""
    return pack_ip(frontend.ip) + _PORT.pack(PROTOCOL_NUMBERS[frontend.protocol], frontend.port)


def read_frontend(key: bytes, family: IPFamily) -> Frontend | None:
    """Return the frontend in an element; None for one that this proxy never writes."""
    if len(key) != FRONTEND[family].width:
        return None
    number, port = _PORT.unpack(key[-_PORT.size :])
    protocol = _PROTOCOLS.get(number)
    return Frontend(ip_of(key[: -_PORT.size]), port, protocol) if protocol and port else None
