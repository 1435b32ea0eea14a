"""Writes and reads the header of the PROXY protocol, versions 1 and 2.

    1   PROXY TCP4 192.0.2.1 203.0.113.7 40000 80 CR LF
    2   12 bytes of signature, version and command, family, length, addresses, fields (TLV)

Rule 1: input is untrusted: bytes that can't begin a header raise MalformedHeader at once; an
invalid or too long header (HEADER_BYTES) does so once its line or its length is complete.

Source: https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt
"""

from __future__ import annotations

import _socket
import re
import struct
from typing import NamedTuple

from ..errors import UserspaceProxyError
from .addresses import SocketAddress
from .handling import ProxyProtocol

SERVICE_FIELD = 0xE5
"""The custom TLV type (2.2.7) that contains the Service port's name."""
HEADER_BYTES = 4096
"""The maximum length of an accepted header, which leaves room for TLS certificate fields."""

_TEXT = b"PROXY "
_TEXT_BYTES = 107
_TEXT_LINE = re.compile(
    rb"PROXY TCP([46]) ([^ ]{2,39}) ([^ ]{2,39}) (\d{1,5}) (\d{1,5})\r\n", re.ASCII
)
_UNKNOWN = b"PROXY UNKNOWN\r\n"
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_PORTS = struct.Struct("!HH")
_FIELD = struct.Struct("!BH")


class MalformedHeader(UserspaceProxyError):
    """The received bytes aren't a header of the PROXY protocol."""


class Header(NamedTuple):
    """A parsed header."""

    length: int
    """Length in bytes; the client's data follows."""
    source: SocketAddress | None
    """The client's address; None if the header has none, so that the connection's peer address
    applies."""
    destination: SocketAddress | None
    """The address that the client dialled; None if ``source`` is None."""


def write_header(
    version: ProxyProtocol,
    source: SocketAddress,
    destination: SocketAddress | None,
    service: str,
) -> bytes:
    """Return the header for a client that dialled a destination of the same family.

    Without a destination, the header has no addresses. Version 2 has the Service port's name.
    """
    family = _socket.AF_INET6 if ":" in source.ip else _socket.AF_INET
    is_ipv6 = family == _socket.AF_INET6
    if version is ProxyProtocol.V1:
        if destination is None:
            return _UNKNOWN
        return (
            f"PROXY TCP{6 if is_ipv6 else 4} {source.ip} {destination.ip} "
            f"{source.port} {destination.port}\r\n"
        ).encode()
    name = service.encode()
    field = _FIELD.pack(SERVICE_FIELD, len(name)) + name
    if destination is None:
        return _FIXED.pack(_SIGNATURE, _PROXY, 0, len(field)) + field
    addresses = (
        _socket.inet_pton(family, source.ip)
        + _socket.inet_pton(family, destination.ip)
        + _PORTS.pack(source.port, destination.port)
    )
    kind = _TCP6 if is_ipv6 else _TCP4
    return _FIXED.pack(_SIGNATURE, _PROXY, kind, len(addresses) + len(field)) + addresses + field


def read_header(data: bytes) -> Header | None:
    """Parse the header at the start of the received bytes; return None if it is incomplete.

    Raises:
        MalformedHeader: The header is invalid, or the bytes can't begin one.
    """
    if data[: len(_TEXT)] == _TEXT[: len(data)]:
        return _read_text(data[:_TEXT_BYTES])
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _read_binary(data)
    raise MalformedHeader("it begins with other bytes")


def _read_text(data: bytes) -> Header | None:
    line, end, _ = data.partition(b"\r\n")
    if not end:
        if len(data) == _TEXT_BYTES:
            raise MalformedHeader(f"no end of line within {_TEXT_BYTES} bytes")
        return None
    length = len(line) + 2
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Header(length, None, None)
    found = _TEXT_LINE.fullmatch(data[:length])
    if found is None:
        raise MalformedHeader("its line has another form")
    family = _socket.AF_INET6 if found[1] == b"6" else _socket.AF_INET
    source, destination = (
        _address(family, found[host].decode("latin-1"), int(found[port]))
        for host, port in ((2, 4), (3, 5))
    )
    return Header(length, source, destination)


def _address(family: int, ip: str, port: int) -> SocketAddress:
    try:
        packed = _socket.inet_pton(family, ip)
    except (OSError, ValueError):
        raise MalformedHeader(f"{ip!r} is not an address of its family") from None
    if port > 65535:
        raise MalformedHeader(f"{port} is not a port")
    return SocketAddress(_socket.inet_ntop(family, packed), port)


def _read_binary(data: bytes) -> Header | None:
    if len(data) < _FIXED.size:
        return None
    _, command, kind, rest = _FIXED.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise MalformedHeader(f"version and command are {command:#04x}")
    if kind >> 4 > 3 or kind & 15 > 2:
        raise MalformedHeader(f"family and protocol are {kind:#04x}")
    length = _FIXED.size + rest
    if length > HEADER_BYTES:
        raise MalformedHeader(f"it has {length} bytes, more than {HEADER_BYTES}")
    is_ipv6 = kind == _TCP6
    has_addresses = command == _PROXY and kind in (_TCP4, _TCP6)
    ip_bytes = 16 if is_ipv6 else 4
    if has_addresses and rest < 2 * ip_bytes + _PORTS.size:
        raise MalformedHeader(f"{rest} bytes are too few for its addresses")
    if len(data) < length:
        return None
    if not has_addresses:
        return Header(length, None, None)
    family = _socket.AF_INET6 if is_ipv6 else _socket.AF_INET
    first, second, ports = (_FIXED.size + offset for offset in (0, ip_bytes, 2 * ip_bytes))
    source_port, destination_port = _PORTS.unpack_from(data, ports)
    return Header(
        length,
        SocketAddress(_socket.inet_ntop(family, data[first:second]), source_port),
        SocketAddress(_socket.inet_ntop(family, data[second:ports]), destination_port),
    )
