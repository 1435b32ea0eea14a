"""Frontends, addresses and ports as set elements, and the steps that change them.

Rule 1: an element consists of the kernel's own bytes, so both can be compared.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ...kernel.netlink.rtnetlink import ip_of, pack_ip
from ...kernel.nf_tables import TableWriter
from ...kernel.nf_tables.expressions import (
    INET_PROTO,
    INET_SERVICE,
    IPV4_ADDR,
    IPV6_ADDR,
    KeyType,
    joined,
)
from ...model import Frontend, IPFamily, Protocol
from ..programmer import PROTOCOL_NUMBERS

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

ElementsBySet = dict[str, dict[bytes, bytes]]
"""Keys and values of each set; the values of a set that isn't a map are empty."""


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


def write_steps(
    table: TableWriter, removed: Mapping[str, Mapping[bytes, bytes]], added: ElementsBySet
) -> list[list[bytes]]:
    """Return the messages that change elements, in steps that may be transactions of their own.

    Args:
        table: A writer without messages.
        removed: What is removed first, in the order of the sets.
        added: What is added then, likewise.
    """
    for name, elements in removed.items():
        table.delete_elements(name, elements)
    for name, elements in added.items():
        table.add_elements(name, elements)
    return [[message] for message in table.messages]
