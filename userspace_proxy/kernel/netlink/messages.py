"""Encodes and parses netlink messages and attributes.

    datagram = message …       message = header, body       body = a fixed part, attribute …

Rule 1: this module only converts bytes.
Rule 2: parsing ends at a truncated message or attribute.
Rule 3: a message or value that is too short for its kind raises an OSError (EBADMSG), as if the
kernel had refused the request.

Source: netlink(7); include/uapi/linux/netlink.h; net/netfilter/nf_tables_api.c (nft_*_policy).
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, ParamSpec, TypeVar

ERROR, DONE = 2, 3
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
# NLM_F_DUMP_INTR: a change during a listing sets this flag in the next message.
INTERRUPTED = 0x10
NESTED = 0x8000

# struct nlmsghdr: length, type, flags, sequence number, port ID.
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
U32 = struct.Struct("=I")
_START = struct.Struct("=IH")
_CODE = struct.Struct("=i")
_CODE_MAX = 2**31 - 1
# The upper two bits of an attribute's kind are flags.
_KIND = 0x3FFF

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class Message(NamedTuple):
    """One message from the kernel."""

    kind: int
    flags: int
    number: int
    """The sequence number of the request that the message answers; 0 for an event."""
    body: bytes


def checked(read: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """Make a parser raise an OSError (EBADMSG) for a malformed message; costs 0.1 µs per call."""

    @functools.wraps(read)
    def read_checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        try:
            return read(*args, **kwargs)
        except (struct.error, IndexError, StopIteration, ValueError) as exc:
            raise OSError(errno.EBADMSG, "the kernel sent a malformed message") from exc

    return read_checked


def walk(block: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the kind, start and stop of each message in a datagram."""
    start = 0
    while start + HEADER.size <= len(block):
        size, kind = _START.unpack_from(block, start)
        if size < HEADER.size or start + size > len(block):
            return
        yield kind, start, start + size
        start += (size + 3) & ~3


def read_messages(block: bytes) -> Iterator[Message]:
    """Yield the messages of a datagram."""
    for kind, start, stop in walk(block):
        _, _, flags, number, _ = HEADER.unpack_from(block, start)
        yield Message(kind, flags, number, block[start + HEADER.size : stop])


def read_attributes(body: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and value of each attribute after a fixed part of length ``start``."""
    while start + ATTRIBUTE.size <= len(body):
        size, kind = ATTRIBUTE.unpack_from(body, start)
        if size < ATTRIBUTE.size or start + size > len(body):
            return
        yield kind & _KIND, body[start + ATTRIBUTE.size : start + size]
        start += (size + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute; the kind of a nested attribute includes :data:`NESTED`."""
    size = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def number(kind: int, value: int) -> bytes:
    """Return an attribute of netfilter with a 32-bit number, in network order."""
    return attribute(kind, value.to_bytes(4, "big", signed=value < 0))


def text(kind: int, value: str) -> bytes:
    """Return an attribute with a string, terminated by a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, value: bytes) -> bytes:
    """Return an attribute that contains attributes."""
    return attribute(kind | NESTED, value)


def read_all(value: bytes, start: int = 0) -> dict[int, bytes]:
    """Return the attributes after a fixed part of length ``start``, by kind."""
    return dict(read_attributes(value, start))


def number_in(found: Mapping[int, bytes], kind: int, *, is_signed: bool = False) -> int:
    """Return the number in an attribute; 0 if the attribute is missing."""
    return int.from_bytes(found.get(kind, b""), "big", signed=is_signed)


def text_in(found: Mapping[int, bytes], kind: int) -> str:
    """Return an attribute's text; empty if the attribute is missing."""
    return found.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def family_of(ip: str) -> int:
    """Return AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def ip_of(packed: bytes) -> str:
    """Return an address in canonical form; empty for empty bytes."""
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    return str(ipaddress.IPv6Address(packed)) if packed else ""


def request(kind: int, flags: int, body: bytes) -> bytes:
    """Return a request; its sequence number is set when it is sent."""
    return HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, 0, 0) + body


def numbered(request: bytes, number: int, flags: int = 0) -> bytes:
    """Return a request with more flags and a sequence number, which its answers repeat."""
    size, kind, had, _, port = HEADER.unpack_from(request)
    return HEADER.pack(size, kind, had | flags, number, port) + request[HEADER.size :]


@checked
def read_message(block: bytes) -> Message:
    """Return the first message of a datagram."""
    return next(read_messages(block))


@checked
def number_of(block: bytes) -> int:
    """Return the sequence number of the single request that a datagram answers."""
    return int(HEADER.unpack_from(block)[3])


def is_last(block: bytes) -> bool:
    """Return whether a datagram ends a listing; raise OSError if that was refused or aborted."""
    for kind, start, stop in deque(walk(block), maxlen=1):
        if kind in (DONE, ERROR):
            raise_refusal(error_of(block[start + HEADER.size : stop]))
            return True
    return False


def error_of(body: bytes) -> int:
    """Return the error number in the body of an ERROR or DONE message; 0 if there is no error."""
    # The negative of the lowest integer would be too large for os.strerror.
    return min(-int(_CODE.unpack_from(body)[0]), _CODE_MAX) if len(body) >= _CODE.size else 0


def kind_of_refused(body: bytes) -> int:
    """Return the kind of the refused message from an ERROR message's body; 0 if unknown."""
    about = _CODE.size + HEADER.size
    return int(HEADER.unpack_from(body, _CODE.size)[1]) if len(body) >= about else 0


def raise_refusal(code: int) -> None:
    """Raise an OSError for an error number, unless it is 0."""
    if code:
        raise OSError(code, os.strerror(code))
