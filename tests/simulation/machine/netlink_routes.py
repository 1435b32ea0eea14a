"""A simplified rtnetlink, with the links, addresses and routes of a node.

Source: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h; net/ipv4/fib_trie.c, net/ipv6/route.c.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import itertools
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import netlink_wire as wire
from .netlink_kernel import ROUTE, NetlinkKernel
from .netlink_sockets import Listing, NetlinkSocket

_NEW_LINK, _DEL_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _DEL_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _DEL_ROUTE, _GET_ROUTE = 24, 25, 26
_GROUP_LINK, _GROUP_ADDRESS, _GROUP_ROUTE = 1, {4: 5, 6: 9}, {4: 7, 6: 11}
_LINK = struct.Struct("=BBHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEXT_HOP = struct.Struct("=HBBi")
_UP, _LOOPBACK = 0x1, 0x8
_ETHER, _LOOPBACK_TYPE = 1, 772
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_UNIVERSE, _HOST_SCOPE, _LINK_SCOPE = 0, 254, 253
_TABLE_MAIN, _TABLE_LOCAL = 254, 255
_Bodies = list[tuple[int, bytes]]


@dataclass(frozen=True)
class Link:
    """One interface with its addresses."""

    number: int
    name: str
    kind: str = ""
    """The kind in ``ip -details link``: ``veth``, ``bridge``; empty for hardware."""
    is_up: bool = True
    addresses: tuple[str, ...] = ()
    """Its addresses with their prefix lengths."""
    networks: tuple[str, ...] = ()
    """Other networks that are routed to it without a gateway."""
    has_gateway: bool = False
    """Whether the IPv4 default route uses it."""
    beyond: tuple[tuple[str, str], ...] = ()
    """Other networks, each with its gateways of either family, separated by spaces."""
    master: int = 0
    """The number of the bridge whose port it is; 0 for none."""

    @property
    def type(self) -> int:
        """The link's type, numbered as in if_arp.h."""
        return _LOOPBACK_TYPE if self.name == "lo" else _ETHER


LOOPBACK = Link(1, "lo", addresses=("127.0.0.1/8", "::1/128"))


class Routes:
    """The links, addresses and routes of one network namespace."""

    def __init__(self, kernel: NetlinkKernel) -> None:
        self._kernel = kernel
        self._sequence = 1
        self.links: dict[int, Link] = {LOOPBACK.number: LOOPBACK}
        self._local: tuple[int, set[str]] = (0, set())
        self._ways: tuple[int, dict[str, Link | None]] = (0, {})
        self._listed: tuple[int, dict[tuple[int, int], _Bodies]] = (0, {})
        self.refuses = 0
        """The number of next listings that fail."""
        self.unrest = 0
        """The number of next listings that a change without effect interrupts."""
        kernel.add(ROUTE, self)

    def put(self, link: Link) -> bool:
        """Add or change a link, and notify programs.

        Returns:
            Whether programs that watch links and addresses are notified. Changes of routes are sent
            to other groups.
        """
        before = self.links.get(link.number)
        self.links[link.number] = link
        self._sequence += 1
        is_told = before is None or _without_routes(before) != _without_routes(link)
        if is_told:
            self._tell(_GROUP_LINK, _NEW_LINK, self._link_body(link))
        had = before.addresses if before else ()
        for kind, some in ((_DEL_ADDRESS, had), (_NEW_ADDRESS, link.addresses)):
            for address in some:
                if (address in had) != (address in link.addresses):
                    is_told = True
                    group = _GROUP_ADDRESS[ipaddress.ip_interface(address).version]
                    self._tell(group, kind, _address_body(link, address))
        self._tell_routes(before, link)
        return is_told

    def _tell_routes(self, before: Link | None, link: Link) -> None:
        had = _route_bodies(before) if before else []
        has = _route_bodies(link)
        for kind, some, others in ((_DEL_ROUTE, had, has), (_NEW_ROUTE, has, had)):
            for version, body in some:
                if (version, body) not in others:
                    self._tell(_GROUP_ROUTE[version], kind, body)

    def remove(self, number: int) -> None:
        """Remove a link, and notify programs; the ports of a removed bridge remain."""
        for port in [one for one in self.links.values() if one.master == number]:
            self.put(replace(port, master=0))
        link = self.links.pop(number)
        self._sequence += 1
        for address in link.addresses:
            group = _GROUP_ADDRESS[ipaddress.ip_interface(address).version]
            self._tell(group, _DEL_ADDRESS, _address_body(link, address))
        self._tell(_GROUP_LINK, _DEL_LINK, self._link_body(link))

    def local_addresses(self) -> set[str]:
        if self._local[0] != self._sequence:
            links = self.links.values()
            found = {ip.partition("/")[0] for link in links for ip in link.addresses}
            self._local = self._sequence, found
        return self._local[1]

    def is_local(self, ip: str) -> bool:
        """Return whether packets to an address are delivered to this node."""
        return ip in self.local_addresses()

    def link_to(self, ip: str) -> Link | None:
        """Return the link through which an address is reached."""
        if self._ways[0] != self._sequence:
            self._ways = self._sequence, {}
        ways = self._ways[1]
        if ip not in ways:
            ways[ip] = self._find(ip)
        return ways[ip]

    def _find(self, ip: str) -> Link | None:
        address = ipaddress.ip_address(ip)
        if self.is_local(ip) or address.is_loopback:
            return LOOPBACK
        best: tuple[int, Link | None] = (-1, None)
        for link in self.links.values():
            for network in (*link.addresses, *link.networks, *(one for one, _ in link.beyond)):
                one = _network(network)
                if address in one and one.prefixlen > best[0]:
                    best = one.prefixlen, link
            if link.has_gateway and best[0] < 0:
                best = 0, link
        return best[1]

    def address_of(self, number: int, version: int) -> str:
        """Return a link's first address of an IP version, for ``redirect``; empty for none."""
        link = self.links.get(number)
        return "" if link is None else _first_of(link.addresses, version)

    def receive(self, sock: NetlinkSocket, data: bytes) -> None:
        for request in wire.requests(data):
            if request.flags & wire.F_DUMP != wire.F_DUMP or sock.listing is not None:
                code = errno.EBUSY if sock.listing is not None else errno.EOPNOTSUPP
                sock.put(wire.answer(request, code, sock.port))
            elif self.refuses:
                self.refuses -= 1
                sock.put(wire.answer(request, errno.ENOBUFS, sock.port))
            else:
                family = request.body[0] if request.body else 0
                kind = request.kind
                items = lambda k=kind, f=family: self._list(k, f)  # noqa: E731 - bound now
                sock.begin(Listing(request.number, sock.port, items, self._changes()))

    def forget(self, sock: NetlinkSocket) -> None:
        pass

    def _changes(self) -> Callable[[], int]:
        """Return a function for the change counter; during ``unrest``, each call differs."""
        if not self.unrest:
            return lambda: self._sequence
        self.unrest -= 1
        return functools.partial(next, itertools.count())

    def _list(self, kind: int, family: int) -> _Bodies:
        # Cost: each part of a listing asks for all items.
        if self._listed[0] != self._sequence:
            self._listed = self._sequence, {}
        listed = self._listed[1]
        if (kind, family) not in listed:
            listed[kind, family] = self._list_anew(kind, family)
        return listed[kind, family]

    def _list_anew(self, kind: int, family: int) -> _Bodies:
        links = sorted(self.links.values(), key=lambda link: link.number)
        if kind == _GET_LINK:
            return [(_NEW_LINK, self._link_body(link)) for link in links]
        if kind == _GET_ADDRESS:
            return [
                (_NEW_ADDRESS, _address_body(link, address))
                for version in (4, 6)
                for link in links
                for address in link.addresses
                if ipaddress.ip_interface(address).version == version
                and family in (0, _AF[version])
            ]
        assert kind == _GET_ROUTE, kind
        return [
            (_NEW_ROUTE, body)
            for link in links
            for version, body in _route_bodies(link)
            if _AF[version] == family
        ]

    def _link_body(self, link: Link) -> bytes:
        master = self.links.get(link.master)
        return _link_body(link, master.kind if master else "")

    def _tell(self, group: int, kind: int, body: bytes) -> None:
        self._kernel.multicast(ROUTE, group, [wire.message(kind, 0, 0, 0, body)])


@functools.cache
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


@functools.cache
def _first_of(addresses: tuple[str, ...], version: int) -> str:
    some = [one.partition("/")[0] for one in addresses]
    return next((ip for ip in some if (":" in ip) == (version == 6)), "")


def _without_routes(link: Link) -> Link:
    return replace(link, addresses=(), networks=(), has_gateway=False, beyond=())


def _link_body(link: Link, master_kind: str) -> bytes:
    flags = _UP * link.is_up | _LOOPBACK * (link.name == "lo")
    body = _LINK.pack(0, 0, link.type, link.number, flags, 0) + wire.string(3, link.name)
    if link.master:
        body += wire.attribute(10, struct.pack("=I", link.master))
    info = wire.string(1, link.kind) if link.kind else b""
    info += wire.string(4, master_kind) if master_kind else b""
    return body + (wire.nest(18, info) if info else b"")


def _address_body(link: Link, address: str) -> bytes:
    one = ipaddress.ip_interface(address)
    scope = _UNIVERSE
    if one.ip.is_loopback:
        scope = _HOST_SCOPE
    elif one.ip.is_link_local:
        scope = _LINK_SCOPE
    body = _ADDRESS.pack(_AF[one.version], one.network.prefixlen, 0x80, scope, link.number)
    packed = one.ip.packed
    both = wire.attribute(1, packed) + (wire.attribute(2, packed) if one.version == 4 else b"")
    return body + both + wire.attribute(8, struct.pack("=I", 0x80))


def _route_bodies(link: Link) -> list[tuple[int, bytes]]:
    """Return the bodies of messages for a link's routes, with their IP versions."""
    found: list[tuple[int, bytes]] = []
    out = wire.attribute(4, struct.pack("=I", link.number))

    def add(network: str, table: int, kind: int, scope: int, hops: bytes = out) -> None:
        one = _network(network)
        head = (_AF[one.version], one.prefixlen, 0, 0, table, 2, scope, kind, 0)
        target = wire.attribute(1, one.network_address.packed) if one.prefixlen else b""
        full = wire.attribute(15, struct.pack("=I", table))
        found.append((one.version, _ROUTE.pack(*head) + full + target + hops))

    for address in link.addresses:
        add(str(ipaddress.ip_interface(address).ip), _TABLE_LOCAL, 2, _HOST_SCOPE)
        if link.name != "lo":
            add(address, _TABLE_MAIN, 1, _LINK_SCOPE)
    for network in link.networks:
        add(network, _TABLE_MAIN, 1, _LINK_SCOPE)
    if link.has_gateway:
        by = _by_gateway("0.0.0.0/0", "10.1.255.254")
        add("0.0.0.0/0", _TABLE_MAIN, 1, _UNIVERSE, out + by)
    for network, text in link.beyond:
        gateways = [_by_gateway(network, one) for one in text.split()]
        hops = out + gateways[0] if len(gateways) == 1 else _next_hops(link.number, gateways)
        add(network, _TABLE_MAIN, 1, _UNIVERSE, hops)
    return found


def _next_hops(link: int, gateways: list[bytes]) -> bytes:
    """Return the attribute for several next hops, which replaces the attribute for one link."""
    some = [_NEXT_HOP.pack(_NEXT_HOP.size + len(one), 0, 0, link) + one for one in gateways]
    return wire.attribute(9, b"".join(some))


def _by_gateway(network: str, gateway: str) -> bytes:
    """Return the attribute of a gateway: RTA_GATEWAY, or RTA_VIA for the other family."""
    one = ipaddress.ip_address(gateway)
    if one.version == _network(network).version:
        return wire.attribute(5, one.packed)
    return wire.attribute(18, struct.pack("=H", _AF[one.version]) + one.packed)
