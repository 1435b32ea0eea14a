"""Encodes requests to list and delete conntrack entries, and parses the entries.

    list_request() ─▶ kernel ─▶ read_entries() ─▶ ConntrackEntry … ─▶ remove_request() ─▶ kernel

A busy node has 200,000 entries, and pyroute2 takes 330 µs to parse each. Unpacking only the
relevant fields, in one call, takes 2 to 3 µs per entry.

Rule 1: an entry without the layout of TCP or UDP entries is skipped.
Rule 2: addresses and ports stay packed, because thousands of them are compared.
Rule 3: this module only converts bytes; ``conntrack`` owns the socket.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nfnetlink.h and netlink.h; the order of
attributes is that of ctnetlink_dump_tuples().
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ..model import pack_ip
from .netlink.messages import (
    ATTRIBUTE,
    DUMP,
    HEADER,
    NESTED,
    attribute,
    checked,
    ip_of,
    read_attributes,
    request,
    walk,
)
from .netlink.rtnetlink import FAMILIES

# Kinds of messages; the upper byte is the subsystem, NFNL_SUBSYS_CTNETLINK.
CT_NEW, CT_GET, CT_DELETE = 0x100, 0x101, 0x102
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_TIMEOUT, CTA_ID, CTA_ZONE = 1, 2, 3, 7, 12, 18
CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE = 4, 1, 1
CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY = 4, 5
CTA_COUNTERS_ORIG, CTA_COUNTERS_REPLY = 9, 10
CTA_COUNTERS_PACKETS, CTA_COUNTERS_BYTES = 1, 2
CTA_FILTER, CTA_STATUS_MASK = 25, 26
CTA_FILTER_ORIG_FLAGS = 1
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_SRC, CTA_IP_DST = {4: 1, 6: 3}, {4: 2, 6: 4}
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
# The fields of a tuple by which the kernel filters a listing. Source:
# net/netfilter/nf_conntrack_netlink.c.
FILTER_IP_DST, FILTER_PROTO_NUM, FILTER_DST_PORT = 1 << 1, 1 << 3, 1 << 5
# Source: include/uapi/linux/netfilter/nf_conntrack_common.h.
IPS_SEEN_REPLY, IPS_DST_NAT = 1 << 1, 1 << 5
# Source: include/uapi/linux/netfilter/nf_conntrack_tcp.h.
TCP_CONNTRACK_SYN_RECV, TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE = 2, 7, 8
IP_CT_TCP_FLAG_CLOSE_INIT = 0x04
_FLAGS = CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY
_STATE = ATTRIBUTE.pack(5, CTA_PROTOINFO_TCP_STATE)
_CLOSED = _STATE + bytes([TCP_CONNTRACK_CLOSE])
_ENDED = _CLOSED, _STATE + bytes([TCP_CONNTRACK_TIME_WAIT])
_HALF_OPEN = _STATE + bytes([TCP_CONNTRACK_SYN_RECV])

# struct nfgenmsg: the family, version 0, no resource.
_FAMILY = struct.Struct("=BBH")
_BODY = HEADER.size + _FAMILY.size
_BE32 = struct.Struct(">I")


class Volume(NamedTuple):
    """Packets, and bytes including IP headers, from and to a client."""

    received_bytes: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    sent_packets: int = 0

    def plus(self, other: Volume) -> Volume:
        return Volume(*map(operator.add, self, other))


NO_VOLUME = Volume()


class ConntrackEntry(NamedTuple):
    """A TCP connection or UDP association; each address and port is one packed string."""

    client: bytes
    dialled: bytes
    answered_from: bytes
    """The source address of replies: the dialled address, unless it was translated."""
    message: bytes
    """The kernel's complete message."""

    @property
    @checked
    def status(self) -> int:
        """The status as ``IPS_…`` bits."""
        for kind, value in read_attributes(self.message, _BODY):
            if kind == CTA_STATUS:
                return int(_BE32.unpack(value)[0])
        return 0

    @property
    @checked
    def forgotten_in_s(self) -> int:
        """Seconds until the kernel forgets a closed TCP connection; 0 if open, and for UDP."""
        if not self._tcp().startswith(_ENDED):
            return 0
        timeout = dict(read_attributes(self.message, _BODY)).get(CTA_TIMEOUT, bytes(4))
        return int(_BE32.unpack(timeout)[0])

    @property
    @checked
    def was_reset(self) -> bool:
        """Whether this is a TCP connection that was reset before any FIN."""
        tcp = self._tcp()
        found = dict(read_attributes(tcp))
        flags = b"".join(found.get(kind, b"")[:1] for kind in _FLAGS)
        has_fin = any(one & IP_CT_TCP_FLAG_CLOSE_INIT for one in flags)
        return tcp.startswith(_CLOSED) and not has_fin

    @property
    @checked
    def has_answered_client(self) -> bool:
        """Whether an answer has arrived; for TCP, whether it has also reached the client.

        A SYN-ACK that is dropped on its way to the client leaves the handshake half open.
        """
        return bool(self.status & IPS_SEEN_REPLY) and not self._tcp().startswith(_HALF_OPEN)

    def _tcp(self) -> bytes:
        """Return the kernel's attributes of a TCP connection; empty for UDP."""
        for kind, value in read_attributes(self.message, _BODY):
            if kind == CTA_PROTOINFO:
                return dict(read_attributes(value)).get(CTA_PROTOINFO_TCP, b"")
        return b""

    @property
    @checked
    def volume(self) -> Volume:
        """The bytes and packets of the entry; zeros without ``net.netfilter.nf_conntrack_acct``."""
        counted = dict(read_attributes(self.message, _BODY))
        received = dict(read_attributes(counted.get(CTA_COUNTERS_ORIG, b"")))
        sent = dict(read_attributes(counted.get(CTA_COUNTERS_REPLY, b"")))
        return Volume(
            *(
                int.from_bytes(direction.get(kind, b""), "big")
                for kind in (CTA_COUNTERS_BYTES, CTA_COUNTERS_PACKETS)
                for direction in (received, sent)
            )
        )


class EntryFilter(NamedTuple):
    """A filter of entries; before Linux 5.8 the kernel lists all entries of the IP family."""

    protocol: int
    """IPPROTO_TCP or IPPROTO_UDP."""
    ip: str = ""
    """The dialled address; empty for any address."""
    port: int = 0
    """The dialled port; 0 for any port."""
    without: int = 0
    """Status bits that entries must not have; ignored before Linux 5.15."""
    are_reset: bool = False
    """Whether to skip datagrams without a reset TCP connection; the kernel lists all entries."""


def pack_address(ip: str, port: int) -> bytes:
    """Return an address and port in the form of :class:`ConntrackEntry`."""
    return pack_ip(ip) + port.to_bytes(2, "big")


def unpack_ip(packed: bytes) -> str:
    """Return the address in a result of :func:`pack_address`, in canonical form."""
    return ip_of(packed[:-2])


def list_request(version: int, wanted: EntryFilter) -> bytes:
    """Return the request for a listing.

    Args:
        wanted: The filter. Its address is omitted for IPv6: kernel 6.18 inverts the comparison and
            lists all other addresses (``!ipv6_addr_cmp`` in ctnetlink_filter_match_tuple()).
    """
    flags = FILTER_PROTO_NUM
    protocol = attribute(CTA_PROTO_NUM, bytes([wanted.protocol]))
    if wanted.port:
        flags |= FILTER_DST_PORT
        protocol += attribute(CTA_PROTO_DST_PORT, wanted.port.to_bytes(2, "big"))
    origin = attribute(CTA_TUPLE_PROTO | NESTED, protocol)
    if wanted.ip and version == 4:
        flags |= FILTER_IP_DST
        ip = attribute(CTA_IP_DST[4], pack_ip(wanted.ip))
        origin = attribute(CTA_TUPLE_IP | NESTED, ip) + origin
    body = attribute(CTA_TUPLE_ORIG | NESTED, origin)
    # Unlike other attributes, these flags are in host order.
    body += attribute(
        CTA_FILTER | NESTED, attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
    )
    if wanted.without:
        body += attribute(CTA_STATUS, bytes(4))
        body += attribute(CTA_STATUS_MASK, _BE32.pack(wanted.without))
    return _request(CT_GET, DUMP, FAMILIES[version], body)


def remove_request(entry: ConntrackEntry) -> bytes:
    """Return the request that removes an entry; equal for each listing of the entry.

    It includes the entry's ID, so the entry of a new connection from the same port stays.
    """
    body = b"".join(
        attribute(kind | NESTED * (kind == CTA_TUPLE_ORIG), value)
        for kind, value in read_attributes(entry.message, _BODY)
        if kind in (CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE)
    )
    return _request(CT_DELETE, 0, entry.message[HEADER.size], body)


def may_have_reset(block: bytes) -> bool:
    """Return whether a datagram may contain an entry with :attr:`.ConntrackEntry.was_reset`."""
    return _CLOSED in block


def read_entries(block: bytes, version: int, protocol: int) -> Iterator[ConntrackEntry]:
    """Yield the entries of one protocol in a datagram of a listing."""
    layout, headers = _LAYOUTS[version]
    for kind, start, stop in walk(block):
        if kind == CT_NEW and stop - start >= _BODY + layout.size:
            # Values and their attribute headers alternate; other headers mean another layout, such
            # as an ICMP entry's.
            f = layout.unpack_from(block, start + _BODY)
            if f[0::2] == headers and f[5] == protocol:
                yield ConntrackEntry(f[1] + f[7], f[3] + f[9], f[11] + f[17], block[start:stop])


def _tuple_layout(version: int, kind: int) -> tuple[str, tuple[object, ...]]:
    """Return the layout of a TCP or UDP tuple, and the headers between its fields."""
    size = 4 if version == 4 else 16
    header = ATTRIBUTE.pack
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


def _request(kind: int, flags: int, family: int, body: bytes) -> bytes:
    return request(kind, flags, _FAMILY.pack(family, 0, 0) + body)
