"""The kernel's connection tracking entries as bytes: lists them, reads them, removes them.

    list_request() ──▶ kernel ──▶ read_entries() ──▶ Entry … ──▶ remove_request() ──▶ kernel

pyroute2 needs 330 µs to read an entry, and a busy node has 200,000. Here what an entry says is
cut out of its message at once, where it stands; that takes 2 to 3 µs.

Rule 1: an entry that isn't laid out as TCP and UDP entries are is none of those, and passed by.
Rule 2: addresses and ports stay packed, as they are compared by the thousand.
Rule 3: only :class:`Connection` has a socket; all else is bytes in, bytes out.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nfnetlink.h and netlink.h; the order of
attributes is that of ctnetlink_dump_tuples().
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

NETLINK_NETFILTER = 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
# NFNL_SUBSYS_CTNETLINK, which is 1, and the kind of message.
CT_NEW, CT_GET, CT_DELETE = 0x100, 0x101, 0x102
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_ZONE = 1, 2, 3, 18
CTA_FILTER, CTA_STATUS_MASK = 25, 26
CTA_FILTER_ORIG_FLAGS = 1
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_SRC, CTA_IP_DST = {4: 1, 6: 3}, {4: 2, 6: 4}
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
# Which fields of a tuple limit a listing. Source: net/netfilter/nf_conntrack_netlink.c.
FILTER_IP_DST, FILTER_PROTO_NUM, FILTER_DST_PORT = 1 << 1, 1 << 3, 1 << 5
# Source: include/uapi/linux/netfilter/nf_conntrack_common.h.
IPS_SEEN_REPLY, IPS_DST_NAT = 1 << 1, 1 << 5

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
NESTED = 0x8000
_KIND = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=IH")
_ERROR = struct.Struct("=i")
# Of struct nfgenmsg: the family, version 0, no resource.
_FAMILY = struct.Struct("=BBH")
_BODY = _HEADER.size + _FAMILY.size
_ATTRIBUTE = struct.Struct("=HH")
_BE32 = struct.Struct(">I")
# The kernel fills a datagram up to 32 KiB.
_READ_BYTES = 1 << 16
# Each request that is refused is answered, by some 1 KiB of the kernel's memory; so many answers
# fit into the socket's buffer (net.core.rmem_default is 208 KiB).
_BATCH = 100


class Entry(NamedTuple):
    """One TCP connection or UDP association; an address and its port are one packed string."""

    client: bytes
    dialled: bytes
    answered_from: bytes
    """Where the answers come from: what was dialled, unless it was translated."""
    message: bytes
    """All that the kernel said."""

    @property
    def status(self) -> int:
        """The bits ``IPS_…``."""
        for kind, value in _attributes(self.message):
            if kind == CTA_STATUS:
                return int(_BE32.unpack(value)[0])
        return 0


class Wanted(NamedTuple):
    """What the kernel lists; older ones than 5.8 list all entries of the IP family."""

    protocol: int
    """IPPROTO_TCP or IPPROTO_UDP."""
    ip: str = ""
    """The address that was dialled; empty for any."""
    port: int = 0
    """The port that was dialled; 0 for any."""
    without: int = 0
    """Bits of a status that entries don't have; older kernels than 5.15 don't look at them."""


def pack_address(ip: str, port: int) -> bytes:
    """Return an address and port in the form of :class:`Entry`."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return socket.inet_pton(family, ip) + port.to_bytes(2, "big")


def list_request(version: int, wanted: Wanted) -> bytes:
    """Return the request for a listing.

    Args:
        version: 4 or 6.
        wanted: Its address is left out for IPv6: kernel 6.18 compares those the wrong way round
            and lists all but the one asked for (ctnetlink_filter_match_tuple(), where it says
            ``!ipv6_addr_cmp``).
    """
    flags = FILTER_PROTO_NUM
    protocol = _attribute(CTA_PROTO_NUM, bytes([wanted.protocol]))
    if wanted.port:
        flags |= FILTER_DST_PORT
        protocol += _attribute(CTA_PROTO_DST_PORT, wanted.port.to_bytes(2, "big"))
    origin = _attribute(CTA_TUPLE_PROTO | NESTED, protocol)
    if wanted.ip and version == 4:
        flags |= FILTER_IP_DST
        ip = _attribute(CTA_IP_DST[4], socket.inet_pton(socket.AF_INET, wanted.ip))
        origin = _attribute(CTA_TUPLE_IP | NESTED, ip) + origin
    body = _attribute(CTA_TUPLE_ORIG | NESTED, origin)
    # These flags alone are in the machine's own order.
    body += _attribute(
        CTA_FILTER | NESTED, _attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
    )
    if wanted.without:
        body += _attribute(CTA_STATUS, bytes(4))
        body += _attribute(CTA_STATUS_MASK, _BE32.pack(wanted.without))
    return _request(CT_GET, NLM_F_DUMP, FAMILIES[version], body)


def remove_request(entry: Entry) -> bytes:
    """Return the request that removes an entry; equal for what is one entry at two times."""
    body = b"".join(
        _attribute(kind | NESTED * (kind == CTA_TUPLE_ORIG), value)
        for kind, value in _attributes(entry.message)
        if kind in (CTA_TUPLE_ORIG, CTA_ZONE)
    )
    return _request(CT_DELETE, 0, entry.message[_HEADER.size], body)


def read_entries(block: bytes, version: int, protocol: int) -> Iterator[Entry]:
    """Yield the entries of one protocol in a datagram of a listing.

    Raises:
        OSError: The kernel says in it that it doesn't list.
    """
    layout, headers = _LAYOUTS[version]
    for kind, start, stop in _messages(block):
        if kind in (NLMSG_ERROR, NLMSG_DONE):
            _raise(_ERROR.unpack_from(block, start + _HEADER.size)[0])
        elif kind == CT_NEW and stop - start >= _BODY + layout.size:
            # Fields and their headers in turn; what is not as it should be is another protocol.
            f = layout.unpack_from(block, start + _BODY)
            if f[0::2] == headers and f[5] == protocol:
                yield Entry(f[1] + f[7], f[3] + f[9], f[11] + f[17], block[start:stop])


def is_last(block: bytes) -> bool:
    """Return whether a datagram of a listing has its end."""
    return any(kind == NLMSG_DONE for kind, _start, _stop in _messages(block))


class Connection:
    """A socket to connection tracking in this thread's network namespace.

    Raises:
        OSError: The kernel has no such sockets.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)

    def entries(self, version: int, wanted: Wanted) -> Iterator[Entry]:
        """Yield entries, those that are wanted among them; to be read to its end.

        Args:
            version: 4 or 6.
            wanted: What is listed; of other protocols nothing is yielded in any case.

        Raises:
            OSError: The kernel doesn't list.
        """
        self._socket.send(list_request(version, wanted))
        has_more = True
        while has_more:
            block = self._socket.recv(_READ_BYTES)
            yield from read_entries(block, version, wanted.protocol)
            has_more = not is_last(block)

    def remove(self, requests: Iterable[bytes]) -> None:
        """Remove entries; those that have ended by themselves are passed over.

        Args:
            requests: Of :func:`remove_request`.

        Raises:
            OSError: The kernel doesn't remove; some may be gone.
        """
        waiting = iter(requests)
        while batch := list(itertools.islice(waiting, _BATCH)):
            self._remove(batch)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _remove(self, requests: list[bytes]) -> None:
        # Only the last asks for an answer; the others are answered if they are refused.
        self._socket.send(b"".join(requests[:-1]) + _acknowledged(requests[-1]))
        refused = 0
        is_answered = False
        while not is_answered:
            block = self._socket.recv(_READ_BYTES)
            for _kind, start, _stop in _messages(block):
                code, _size, _type, flags = _ANSWER.unpack_from(block, start + _HEADER.size)
                is_answered |= bool(flags & NLM_F_ACK)
                refused = refused or (code if code != -errno.ENOENT else 0)
        _raise(refused)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


# Of struct nlmsgerr: the error, and the header of what was asked.
_ANSWER = struct.Struct("=iIHH")


def _tuple_layout(version: int, kind: int) -> tuple[str, tuple[object, ...]]:
    """Return how a tuple of TCP or UDP is laid out, and what stands between its fields."""
    size = 4 if version == 4 else 16
    header = _ATTRIBUTE.pack
    ip, protocol = 2 * (4 + size), 3 * 8
    between = (
        header(12 + ip + protocol, kind | NESTED)
        + header(4 + ip, CTA_TUPLE_IP | NESTED)
        + header(4 + size, CTA_IP_SRC[version]),
        header(4 + size, CTA_IP_DST[version]),
        header(4 + protocol, CTA_TUPLE_PROTO | NESTED) + header(5, CTA_PROTO_NUM),
        header(6, CTA_PROTO_SRC_PORT),
        header(6, CTA_PROTO_DST_PORT),
    )
    return f"12s{size}s4s{size}s8sB3x4s2s2x4s2s2x", between


def _layout(version: int) -> tuple[struct.Struct, tuple[object, ...]]:
    origin, its_headers = _tuple_layout(version, CTA_TUPLE_ORIG)
    answer, more_headers = _tuple_layout(version, CTA_TUPLE_REPLY)
    return struct.Struct(f"={origin}{answer}"), its_headers + more_headers


_LAYOUTS = {version: _layout(version) for version in FAMILIES}


def _messages(block: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and stop of each message."""
    start = 0
    while start < len(block):
        size, kind = _MESSAGE.unpack_from(block, start)
        yield kind, start, start + size
        start += (size + 3) & ~3


def _attributes(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and value of each attribute of a message."""
    start = _BODY
    while start < len(message):
        size, kind = _ATTRIBUTE.unpack_from(message, start)
        yield kind & _KIND, message[start + _ATTRIBUTE.size : start + size]
        start += (size + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _request(kind: int, flags: int, family: int, body: bytes) -> bytes:
    size = _BODY + len(body)
    return _HEADER.pack(size, kind, NLM_F_REQUEST | flags, 0, 0) + _FAMILY.pack(family, 0, 0) + body


def _acknowledged(request: bytes) -> bytes:
    size, kind, flags, *rest = _HEADER.unpack_from(request)
    return _HEADER.pack(size, kind, flags | NLM_F_ACK, *rest) + request[_HEADER.size :]


def _raise(code: int) -> None:
    if code:
        raise OSError(-code, os.strerror(-code))
