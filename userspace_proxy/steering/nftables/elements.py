"""Frontends, addresses and ports as set elements, and the steps that change them.

Rule 1: an element is bytes as the kernel has them, so that both compare as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ...kernel.netlink.rtnetlink import ip_of, pack_ip
from ...kernel.nf_tables import TableWriter
from ...kernel.nf_tables.key_types import (
    INET_PROTO,
    INET_SERVICE,
    IPV4_ADDR,
    IPV6_ADDR,
    KeyType,
    joined,
)
from ...model import Frontend, IPFamily, Protocol
from ..programmer import PROTOCOL_NUMBERS

# Before the filters of others, so that a dialled proxy port is refused, not passed over in silence.
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

Elements = dict[str, dict[bytes, bytes]]
"""Of each set key and value; the value is empty where a set has none."""


def port_key(protocol: Protocol, port: int) -> bytes:
    """Return the element that is a port: ``tcp . 36001``."""
    return _PORT.pack(PROTOCOL_NUMBERS[protocol], port)


def frontend_key(frontend: Frontend) -> bytes:
    """Return the element that is a frontend: ``10.96.7.1 . tcp . 80``."""
    return pack_ip(frontend.ip) + _PORT.pack(PROTOCOL_NUMBERS[frontend.protocol], frontend.port)


def read_frontend(key: bytes, family: IPFamily) -> Frontend | None:
    """Return the frontend that is an element; None for one that we would never write."""
    if len(key) != FRONTEND[family].width:
        return None
    number, port = _PORT.unpack(key[-_PORT.size :])
    protocol = _PROTOCOLS.get(number)
    return Frontend(ip_of(key[: -_PORT.size]), port, protocol) if protocol and port else None


def write_steps(
    table: TableWriter, gone: Mapping[str, Mapping[bytes, bytes]], come: Elements
) -> list[list[bytes]]:
    """Return what changes elements, in steps that may be transactions of their own.

    Args:
        table: Of the table; has collected nothing yet.
        gone: What goes first, in the order of the sets.
        come: What comes then, likewise.
    """
    for name, elements in gone.items():
        table.delete_elements(name, elements)
    for name, elements in come.items():
        table.add_elements(name, elements)
    return [[message] for message in table.messages]
