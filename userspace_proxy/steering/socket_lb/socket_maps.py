"""Encodes the keys and values in the maps of ``socket_lb.bpf.c``, which has the same structures.

    frontends4, frontends6   frontend_key → FrontendValue
    slots                    slot_key, pinned_slot_key → SlotValue
    counters                 number_key of an endpoint → DialCounts
    ejected                  EjectionScope → Ejection
    pins                     network namespace, affinity → endpoint, time of last use
    settings                 SETTINGS_KEY → DialSettings
    events                   RingEvent

Rule 1: an address is two words, as in the kernel's memory; an IPv4 address is half of the second
word.
Rule 2: times are values of ``time.monotonic_ns``.
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from ...model import SocketAddress

SETTINGS_KEY = bytes(4)
"""The only key of ``settings``."""

_WORD = struct.Struct("=Q")
_ADDRESS = struct.Struct("=8s8sHxxxxxx")
_SERVICE = struct.Struct("=IIII")
_ENDPOINT = struct.Struct("=24sQ")
_PAIR = struct.Struct("=QQ")
_EJECTION = struct.Struct("=QQQ")
_COUNTS = struct.Struct("=23Q")
_SETTINGS = struct.Struct("=5Q")
_EVENT = struct.Struct("=4Q24s24s5Q")
# The lowest index for affinity entries: a service has fewer slots than this.
_PINNED = 1 << 31
_MAPPED = bytes(10) + b"\xff\xff"


class FrontendValue(NamedTuple):
    """A frontend's service, its number of slots, and its affinity."""

    number: int
    """The number of the service, by which keys identify the frontend's slots; below 2^32."""
    slots: int
    affinity: int = 0
    """Frontends with the same number share affinity entries; 0 for no affinity."""
    timeout_s: int = 0
    """The timeout of session affinity; 0 without affinity."""

    def pack(self) -> bytes:
        return _SERVICE.pack(*self)

    @classmethod
    def unpack(cls, value: bytes) -> Self:
        return cls(*_SERVICE.unpack(value))


class SlotValue(NamedTuple):
    """The endpoint of a slot."""

    address: SocketAddress
    number: int
    """The endpoint's number, which is the key of its counters and ejection; at least 1."""

    def pack(self) -> bytes:
        return _ENDPOINT.pack(_pack_address(self.address), self.number)

    @classmethod
    def unpack(cls, value: bytes) -> Self:
        address, number = _ENDPOINT.unpack(value)
        return cls(_unpack_address(address), number)


class DialCounts(NamedTuple):
    """The results of dials to an endpoint since its counters were created."""

    established: int = 0
    refused: int = 0
    """Dials refused by a RST or by an ICMP error."""
    unanswered: int = 0
    """Dials whose SYN was retransmitted; some were established later."""
    given_up: int = 0
    """Dials whose client closed the socket before an answer arrived."""
    ended: int = 0
    """Established connections that have been closed; the fields below, except for the latency, are
    updated at that time."""
    received: int = 0
    """Bytes from the endpoint."""
    sent: int = 0
    """Bytes that the endpoint has acknowledged."""
    retransmitted: int = 0
    """Retransmitted segments."""
    srtt_us: int = 0
    """The sum of the smoothed round-trip times."""
    latency_ns: int = 0
    """The sum of the times until connections were established."""
    lost: int = 0
    """The number of closed connections that weren't reported, because the ring was full."""
    buckets: tuple[int, ...] = (0,) * 12
    """The numbers of dials by duration: TIMES_BOUNDS_S are the upper bounds of all buckets but the
    last, which counts longer dials."""

    def pack(self) -> bytes:
        return _COUNTS.pack(*self[:-1], *self.buckets)

    @classmethod
    def unpack(cls, value: bytes) -> Self:
        words = _COUNTS.unpack(value)
        return cls._make((*words[:11], words[11:]))


class EventKind(enum.IntEnum):
    """The kind of an event; the first three are also values of :attr:`Ejection.kind`."""

    PROBED = 0
    """Not an event: an ejection has expired, and the dial in progress will end or extend it."""
    REFUSED = 1
    UNANSWERED = 2
    RETURNED = 3
    CONNECTION = 4


class EjectionScope(NamedTuple):
    """An ejected endpoint, and the clients for which it is ejected."""

    endpoint: int
    """The endpoint's number; with 0, programs count the failed dials of a network namespace."""
    netns: int = 0
    """The cookie of the clients' network namespace; 0 if the control process ejected it for all
    clients."""

    def pack(self) -> bytes:
        return _PAIR.pack(*self)

    @classmethod
    def unpack(cls, key: bytes) -> Self:
        return cls(*_PAIR.unpack(key))


class Ejection(NamedTuple):
    """The state of an ejection, which ends when a dial is established."""

    until_ns: int
    """The time after which the next dial is a probe."""
    times: int
    """The number of failures; all but the first were probes."""
    kind: EventKind

    def pack(self) -> bytes:
        return _EJECTION.pack(*self)

    @classmethod
    def unpack(cls, value: bytes) -> Self:
        until_ns, times, kind = _EJECTION.unpack(value)
        return cls(until_ns, times, EventKind(kind))


class DialSettings(NamedTuple):
    """The settings that apply to all dials."""

    host_only: int = 0
    """If 1, dials of other network namespaces aren't offloaded."""
    host_netns: int = 0
    """The cookie of the namespace for ``host_only``; 0 for the initial network namespace."""
    observing: int = 0
    """If 1, each closed connection is reported as an event."""
    next_number: int = 1
    """The next number to assign to an endpoint or an affinity; programs don't read it."""
    valid_until_ns: int = 2**64 - 1
    """The time after which no dial is offloaded; 0 until the settings are written."""

    def pack(self) -> bytes:
        return _SETTINGS.pack(*self)

    @classmethod
    def unpack(cls, value: bytes) -> Self:
        return cls(*_SETTINGS.unpack(value))


class Result(enum.IntEnum):
    """The result of a connection."""

    NONE = 0
    """The connection hasn't ended."""
    REFUSED = 1
    UNANSWERED = 2
    GIVEN_UP = 3
    SERVED = 4


class RingEvent(NamedTuple):
    """A failed dial, the end of an ejection for all clients, or the end of a connection.

    A failed dial has ejected the endpoint for the client's network namespace.
    """

    kind: EventKind
    endpoint: int
    at_ns: int
    ns: int
    """The connection's duration, including its dial."""
    client: SocketAddress
    """The client of the connection that caused the event; incomplete if it isn't bound yet."""
    frontend: SocketAddress
    waited_ns: int
    """The time until the connection was established, or failed."""
    received: int
    sent: int
    result: Result
    tcp_state: int
    """The last TCP state before the connection was closed, as in ``net/tcp_states.h``."""

    @classmethod
    def unpack(cls, record: bytes) -> Self:
        kind, endpoint, at_ns, ns, client, frontend, waited, received, sent, result, state = (
            _EVENT.unpack(record)
        )
        return cls(
            EventKind(kind), endpoint, at_ns, ns, _unpack_address(client),
            _unpack_address(frontend), waited, received, sent, Result(result), state,
        )  # fmt: skip


FIELDS: Mapping[str, Sequence[str]] = {
    "frontends4": FrontendValue._fields,
    "frontends6": FrontendValue._fields,
    "slots": SlotValue._fields,
    "counters": DialCounts._fields,
    "ejected": Ejection._fields,
    "pins": ("endpoint", "last_ns"),
    "settings": DialSettings._fields,
    "events": (_EVENT.format, *RingEvent._fields),
}
"""The fields of each map's values, and of the records in ``events``. The kernel checks only the
size of values, so a field whose meaning changes must be renamed."""


def frontend_key(address: SocketAddress) -> bytes:
    """Return a key of ``frontends4``, of 8 bytes, or ``frontends6``, of 24 bytes."""
    packed = _pack_address(address)
    return packed if ":" in address.ip else packed[8:12] + packed[16:20]


def frontend_of(key: bytes) -> SocketAddress:
    """Return the address in a key of ``frontends4`` or ``frontends6``."""
    return _unpack_address(
        key if len(key) > 8 else bytes(8) + key[:4] + bytes(4) + key[4:].ljust(8, b"\0")
    )


def slot_key(service: int, index: int) -> bytes:
    """Return the key of a service's slot; the first index is 0."""
    return _WORD.pack(service << 32 | index)


def pinned_slot_key(service: int, endpoint: int) -> bytes:
    """Return the key of a service's endpoint for clients with an affinity entry."""
    return _WORD.pack(service << 32 | _PINNED | endpoint)


def number_key(number: int) -> bytes:
    """Return the key of an endpoint in ``counters``."""
    return _WORD.pack(number)


def number_of(key: bytes) -> int:
    """Return the number in a key; the upper half of a slot's key is the service's number."""
    return int(_WORD.unpack(key)[0])


def _pack_address(address: SocketAddress) -> bytes:
    if ":" in address.ip:
        ip = socket.inet_pton(socket.AF_INET6, address.ip)
    else:
        ip = bytes(8) + socket.inet_aton(address.ip) + bytes(4)
    return _ADDRESS.pack(ip[:8], ip[8:], socket.htons(address.port))


def _unpack_address(packed: bytes) -> SocketAddress:
    high, low, port = _ADDRESS.unpack(packed)
    ip = high + low
    if ip[:12] == _MAPPED:
        text = socket.inet_ntoa(ip[12:])
    elif ip[:8] == bytes(8) and ip[12:] == bytes(4):
        text = socket.inet_ntoa(ip[8:12])
    else:
        text = socket.inet_ntop(socket.AF_INET6, ip)
    return SocketAddress(text, socket.ntohs(port))
