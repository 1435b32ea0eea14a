"""Simulated connection tracking: clients' packets create entries, which are listed and deleted.

Source: net/netfilter/nf_conntrack_netlink.c, nfnetlink_conntrack.h, nf_conntrack_common.h.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import itertools
import socket
from dataclasses import dataclass, field
from typing import NamedTuple

from . import netlink_wire as wire
from .netlink_kernel import NetlinkKernel
from .netlink_sockets import Listing, NetlinkSocket

SUBSYSTEM = 1
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102
SEEN_REPLY, CONFIRMED, DESTINATION_TRANSLATED = 1 << 1, 1 << 3, 1 << 5
DESTINATION_DONE = 1 << 8
# TCP_CONNTRACK_SYN_SENT, ESTABLISHED and CLOSE; IP_CT_TCP_FLAG_CLOSE_INIT.
_SYN_SENT, _ESTABLISHED, _CLOSE = 1, 3, 8
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_IP_KINDS = {4: (1, 2), 6: (3, 4)}
_FILTER_SOURCE, _FILTER_TARGET, _FILTER_PROTOCOL = 1 << 0, 1 << 1, 1 << 3
_FILTER_SOURCE_PORT, _FILTER_TARGET_PORT = 1 << 4, 1 << 5


@functools.cache
def packed_ip(ip: str) -> bytes:
    """Return an address as bytes."""
    return ipaddress.ip_address(ip).packed


class Place(NamedTuple):
    """An address and a port."""

    ip: str
    port: int

    @property
    def packed(self) -> bytes:
        return packed_ip(self.ip)


class Flow(NamedTuple):
    """The fields that all of a client's packets in one flow share."""

    protocol: int
    client: Place
    dialled: Place

    @property
    def version(self) -> int:
        return 6 if ":" in self.dialled.ip else 4


@dataclass
class Entry:
    """One entry, which leads a flow's packets to one destination."""

    number: int
    flow: Flow
    leads_to: Place
    """The destination of the flow's packets, and the source of replies."""
    status: int = CONFIRMED
    tcp_state: int = _SYN_SENT
    was_closed: bool = False
    """Whether a FIN has passed."""
    link: int = field(default=0, compare=False)

    def answer(self) -> None:
        """Record a reply."""
        self.status |= SEEN_REPLY
        self.tcp_state = _ESTABLISHED

    def reset(self) -> None:
        """Record a reply, and an RST from the endpoint."""
        self.status |= SEEN_REPLY
        self.tcp_state = _CLOSE

    @property
    def is_reset(self) -> bool:
        return self.tcp_state == _CLOSE

    def message(self) -> bytes:
        """Return the body of the netlink message that lists the entry."""
        flow = self.flow
        reply = Flow(flow.protocol, self.leads_to, flow.client)
        body = wire.netfilter(_AF[flow.version]) + _tuple(1, flow) + _tuple(2, reply)
        body += wire.be32(3, self.status) + wire.be32(7, 30)
        if flow.protocol == socket.IPPROTO_TCP:
            # The two window scales come between the state and the flags.
            flags = bytes([4 if self.was_closed else 0, 0])
            state = wire.attribute(1, bytes([self.tcp_state]))
            scales = wire.attribute(2, b"\7") + wire.attribute(3, b"\7")
            both = wire.attribute(4, flags) + wire.attribute(5, flags)
            body += wire.nest(4, wire.nest(1, state, scales, both))
        return body + wire.be32(12, self.number) + wire.be32(11, 1)


class Conntrack:
    """The entries of one network namespace."""

    def __init__(self, kernel: NetlinkKernel) -> None:
        self._kernel = kernel
        self._numbers = itertools.count(0x1234_0001)
        self.entries: dict[Flow, Entry] = {}
        self.deleted: list[Entry] = []
        """Entries that programs have deleted, for oracles."""
        self.refusals: list[int] = []
        """Error numbers for the next listings and deletions, the next one last."""

    def add(self, flow: Flow, leads_to: Place, *, is_translated: bool) -> Entry:
        """Add an entry, which sends later packets of a flow where its first packet was sent."""
        status = CONFIRMED | (DESTINATION_TRANSLATED | DESTINATION_DONE) * is_translated
        entry = Entry(next(self._numbers), flow, leads_to, status)
        self.entries[flow] = entry
        return entry

    def receive(self, sock: NetlinkSocket, request: wire.Request) -> None:
        """Answer a program's request."""
        code = self.refusals.pop() if self.refusals else 0
        if code:
            sock.put(wire.answer(request, code, sock.port))
        elif request.kind == _GET and request.flags & wire.F_DUMP == wire.F_DUMP:
            if sock.listing is not None:
                sock.put(wire.answer(request, errno.EBUSY, sock.port))
                return
            wanted = _Filter.read(request.body)
            sock.begin(Listing(request.number, sock.port, lambda: self._list(wanted), None))
        elif request.kind == _DELETE:
            code = self._delete(request.body)
            if code or request.flags & wire.F_ACK:
                sock.put(wire.answer(request, code, sock.port))
        else:
            sock.put(wire.answer(request, errno.EOPNOTSUPP, sock.port))

    def _list(self, wanted: _Filter) -> list[tuple[int, bytes]]:
        return [(_NEW, one.message()) for one in self.entries.values() if wanted.passes(one)]

    def _delete(self, body: bytes) -> int:
        found = wire.table_of(body, wire.NETFILTER_BYTES)
        if 1 not in found:
            return errno.EOPNOTSUPP
        flow = _read_tuple(found[1])
        entry = self.entries.get(flow)
        if entry is None or (12 in found and wire.number(found[12]) != entry.number):
            return errno.ENOENT
        self.deleted.append(self.entries.pop(flow))
        return 0


class _Filter(NamedTuple):
    """The conditions that listed entries must meet."""

    family: int
    flags: int
    protocol: int
    source: bytes
    target: bytes
    source_port: int
    target_port: int
    status: int
    status_mask: int

    @classmethod
    def read(cls, body: bytes) -> _Filter:
        found = wire.table_of(body, wire.NETFILTER_BYTES)
        flags = 0
        if 25 in found:
            # The flags have host byte order, unlike all other fields.
            flags = int.from_bytes(wire.table_of(found[25]).get(1, b""), "little")
        both = wire.table_of(found.get(1, b""))
        ips, protocol = wire.table_of(both.get(1, b"")), wire.table_of(both.get(2, b""))
        return cls(
            body[0],
            flags,
            wire.number(protocol.get(1)),
            ips.get(1, ips.get(3, b"")),
            ips.get(2, ips.get(4, b"")),
            wire.number(protocol.get(2)),
            wire.number(protocol.get(3)),
            wire.number(found.get(3)),
            wire.number(found.get(26)),
        )

    def passes(self, entry: Entry) -> bool:
        flow = entry.flow
        # For an IPv6 address, Linux 6.18 lists all entries except the matching ones
        # (ctnetlink_filter_match_tuple).
        is_inverted = flow.version == 6
        tests = (
            (_FILTER_SOURCE, (flow.client.packed == self.source) != is_inverted),
            (_FILTER_TARGET, (flow.dialled.packed == self.target) != is_inverted),
            (_FILTER_PROTOCOL, flow.protocol == self.protocol),
            (_FILTER_SOURCE_PORT, flow.client.port == self.source_port),
            (_FILTER_TARGET_PORT, flow.dialled.port == self.target_port),
        )
        return (
            self.family in (0, _AF[flow.version])
            and all(is_met for bit, is_met in tests if self.flags & bit)
            and entry.status & self.status_mask == self.status
        )


def _tuple(kind: int, flow: Flow) -> bytes:
    source, target = _IP_KINDS[flow.version]
    ips = wire.attribute(source, flow.client.packed) + wire.attribute(target, flow.dialled.packed)
    protocol = wire.attribute(1, bytes([flow.protocol]))
    protocol += wire.attribute(2, flow.client.port.to_bytes(2, "big"))
    protocol += wire.attribute(3, flow.dialled.port.to_bytes(2, "big"))
    return wire.nest(kind, wire.nest(1, ips), wire.nest(2, protocol))


def _read_tuple(packed: bytes) -> Flow:
    both = wire.table_of(packed)
    ips, protocol = wire.table_of(both[1]), wire.table_of(both[2])
    source, target = (1, 2) if 1 in ips else (3, 4)
    return Flow(
        wire.number(protocol[1]),
        Place(str(ipaddress.ip_address(ips[source])), wire.number(protocol[2])),
        Place(str(ipaddress.ip_address(ips[target])), wire.number(protocol[3])),
    )
