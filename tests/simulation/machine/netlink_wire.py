"""Netlink's messages and attributes, as the simulated kernel reads and writes them.

Shares no code with the product, so that a bug in the product's parser is found.

Source: include/uapi/linux/netlink.h, netfilter/nfnetlink.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

ERROR, DONE = 2, 3
F_REQUEST, F_MULTI, F_ACK, F_DUMP_INTERRUPTED = 0x1, 0x2, 0x4, 0x10
F_DUMP, F_CAPPED = 0x300, 0x100
F_REPLACE, F_EXCLUSIVE, F_CREATE, F_APPEND = 0x100, 0x200, 0x400, 0x800
NESTED, TYPE_MASK = 0x8000, 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
HEADER_BYTES, _ATTRIBUTE_BYTES = _HEADER.size, _ATTRIBUTE.size
NETFILTER_BYTES = 4
"""The size of struct nfgenmsg: a family, a version, a resource."""


class Request(NamedTuple):
    """One message that a program has sent."""

    kind: int
    flags: int
    number: int
    body: bytes
    header: bytes


Attributes = list[tuple[int, bytes]]


def requests(datagram: bytes) -> Iterator[Request]:
    """Yield the messages of a datagram, up to a truncated message."""
    start = 0
    while start + HEADER_BYTES <= len(datagram):
        size, kind, flags, number, _ = _HEADER.unpack_from(datagram, start)
        if size < HEADER_BYTES or start + size > len(datagram):
            return
        body = datagram[start + HEADER_BYTES : start + size]
        yield Request(kind, flags, number, body, datagram[start : start + HEADER_BYTES])
        start += size + -size % 4


def message(kind: int, flags: int, number: int, port: int, body: bytes) -> bytes:
    size = HEADER_BYTES + len(body)
    return _HEADER.pack(size, kind, flags, number, port) + body + bytes(-size % 4)


def answer(request: Request, code: int, port: int) -> bytes:
    """Return the ACK or error for a message, without its body, as with NETLINK_CAP_ACK."""
    body = struct.pack("=i", -code) + request.header
    return message(ERROR, F_CAPPED, request.number, port, body)


def done(number: int, flags: int, port: int) -> bytes:
    return message(DONE, flags | F_MULTI, number, port, bytes(4))


def attributes(body: bytes, start: int = 0) -> Attributes:
    """Return the types and values of attributes, in their order."""
    found: Attributes = []
    end = len(body)
    while start + _ATTRIBUTE_BYTES <= end:
        size, kind = _ATTRIBUTE.unpack_from(body, start)
        if size < _ATTRIBUTE_BYTES or start + size > end:
            break
        found.append((kind & TYPE_MASK, body[start + _ATTRIBUTE_BYTES : start + size]))
        start += size + -size % 4
    return found


def table_of(body: bytes, start: int = 0) -> dict[int, bytes]:
    return dict(attributes(body, start))


def attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE_BYTES + len(value)
    packed = _ATTRIBUTE.pack(size, kind) + value
    return packed + bytes(-size % 4) if size % 4 else packed


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(8, "big"))


def string(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def number(value: bytes | None) -> int:
    """Return a number in network byte order; 0 if it is missing."""
    return int.from_bytes(value or b"", "big")


def signed(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big", signed=True)


def name(value: bytes | None) -> str:
    return (value or b"").partition(b"\0")[0].decode()


def netfilter(family: int, resource: int = 0) -> bytes:
    """Return a struct nfgenmsg."""
    return struct.pack("=BB", family, 0) + resource.to_bytes(2, "big")
