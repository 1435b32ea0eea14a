"""Encodes and parses rtnetlink's links, addresses, routes, rules and bridge entries.

Rule 1: this module only converts bytes.
Rule 2: a route's attributes are parsed on demand, because there may be ten thousand routes.

Source: rtnetlink(7); include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, fib_rules.h,
neighbour.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ...model import pack_ip
from ...model.node_network import NodeLink
from .messages import (
    DUMP,
    U32,
    Message,
    attribute,
    checked,
    family_of,
    ip_of,
    read_attributes,
    request,
)

GROUP_LINK, GROUP_ADDRESS_4, GROUP_ADDRESS_6 = 1, 5, 9
GROUP_ROUTE_4, GROUP_ROUTE_6 = 7, 11
NEW_LINK, DEL_LINK, GET_LINK = 16, 17, 18
NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_RULE, DEL_RULE, GET_RULE = 32, 33, 34
TABLE_MAIN, TABLE_LOCAL = 254, 255
UNICAST, LOCAL, BROADCAST, ANYCAST, MULTICAST = 1, 2, 3, 4, 5
SCOPE_UNIVERSE, SCOPE_HOST = 0, 254
LOOK_UP, GO_TO, DO_NOTHING = 1, 2, 3
UP, LOOPBACK = 0x1, 0x8
# lo is the first interface of every network namespace.
LOOPBACK_NUMBER = 1
# This program's protocol numbers ("u" and "v") for routes and rules. The kernel uses 1 to 4;
# iproute2's rt_protos names 8 to 18, 42, 84, 99, 186 to 192, and FRR adds 193 to 199.
LOCAL_STEERING, REPLY_ROUTING = 117, 118
FAMILIES: Mapping[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}

# struct ifinfomsg: family, padding, type, index, flags, change.
_LINK = struct.Struct("=BBHiII")
_NAME, _MASTER, _LINKINFO, _WANTED = 3, 10, 18, 29
_WITHOUT_STATISTICS = 0x8
_INFO_KIND, _INFO_DATA, _INFO_PORT_KIND, _INFO_PORT_DATA = 1, 2, 4, 5
_BRIDGE_FILTERS_VLANS, _BRIDGE_CALLS_IPTABLES, _BRIDGE_CALLS_IP6TABLES = 7, 36, 37
_BRIDGE_PORT_ISOLATED = 33
# struct ndmsg: family, padding, interface, state, flags, type.
_NEIGHBOUR = struct.Struct("=BBHiHBB")
_NEIGHBOUR_ADDRESS, _LINK_ADDRESS, _PERMANENT, _ON_THE_BRIDGE_ITSELF = 1, 2, 0x80, 0x2
_INCOMPLETE, _FAILED = 0x1, 0x20
# struct ifaddrmsg: family, prefix length, flags, scope, interface.
_ADDRESS = struct.Struct("=BBBBI")
_PEER, _LOCAL_ADDRESS, _ADDRESS_FLAGS = 1, 2, 8
# struct rtmsg and struct fib_rule_hdr: family, prefix length, the source's prefix length, tos; then
# for a route: table, protocol, scope, type, flags; for a rule: table, two reserved bytes, action,
# flags.
_ROUTE = struct.Struct("=BBBBBBBBI")
_DST, _OUT, _GATEWAY, _METRIC, _SOURCE, _MULTIPATH, _TABLE, _VIA = 1, 4, 5, 6, 7, 9, 15, 18
_GATEWAYS = frozenset({_GATEWAY, _VIA})
_IN_NAME, _TARGET, _PRIORITY, _MARK, _MARK_MASK = 3, 4, 6, 10, 16
_RULE_PROTOCOL = 21
# struct rtnexthop, before each next hop's attributes: length, flags, hops, interface.
_NEXT_HOP = struct.Struct("=HBBi")
# IP6_RT_PRIO_USER: the kernel's default.
_DEFAULT_METRIC_6 = 1024


class ListedLink(NamedTuple):
    """An interface."""

    link: NodeLink
    flags: int
    """Bits such as :data:`UP`."""
    port_kind: str
    """The kind of the interface's master, such as ``bridge`` or ``bond``; empty without one."""


class ListedAddress(NamedTuple):
    """An address of an interface."""

    ip: str
    """The interface's own address, not its peer's; empty if it has none."""
    link: int
    scope: int
    flags: int


class ListedRoute(NamedTuple):
    """A route whose attributes aren't parsed yet."""

    family: int
    prefix_length: int
    protocol: int
    """The protocol number of the program that created the route."""
    kind: int
    """A number such as :data:`UNICAST` or :data:`LOCAL`."""
    short_table: int
    packed: bytes

    @checked
    def open(self) -> RouteDetails:
        found = dict(read_attributes(self.packed))
        width = 4 if self.family == socket.AF_INET else 16
        network = found.get(_DST, bytes(width))
        if len(network) != width or self.prefix_length > width * 8:
            raise ValueError(f"no network of family {self.family}")
        metric = _number(found.get(_METRIC))
        if self.family == socket.AF_INET6 and metric == _DEFAULT_METRIC_6:
            metric = 0
        return RouteDetails(
            f"{ip_of(network)}/{self.prefix_length}",
            _number(found.get(_TABLE)) or self.short_table,
            _number(found.get(_OUT)),
            metric,
            ip_of(found.get(_SOURCE, b"")),
            bool(found.keys() & {*_GATEWAYS, _MULTIPATH}),
            # RTA_VIA contains an address family, then a gateway of that family.
            ip_of(found.get(_GATEWAY, b"") or found.get(_VIA, b"")[2:]),
            tuple(_links_to_gateways(found.get(_MULTIPATH, b""))),
        )


class RouteDetails(NamedTuple):
    """The attributes of a route."""

    network: str
    """The network in canonical form with a prefix length."""
    table: int
    link: int
    """The index of the only interface; 0 if there is none, or several."""
    metric: int
    """The metric; 0 for the default."""
    source: str
    """The preferred source address; empty for none."""
    has_gateway: bool
    """Whether the route has a gateway, or a list of next hops."""
    gateway: str
    """The only gateway; empty if there is none, or several."""
    gateway_links: tuple[int, ...] = ()
    """If there are several next hops, the index of each gateway's link."""


class LocalRoute(NamedTuple):
    """A route that delivers a network to this node itself."""

    network: str
    """The network in canonical form with a prefix length: ``10.96.7.1/32``."""
    source: str = ""
    """The source address of clients on the node itself; empty to let the kernel choose."""
    metric: int = 0
    """The metric; 0 to let the kernel choose."""
    table: int = TABLE_LOCAL

    @property
    def family(self) -> int:
        return family_of(self.network)


class RoutingRule(NamedTuple):
    """A routing rule; requests omit fields that are 0 or empty."""

    family: int
    action: int
    """A number such as :data:`LOOK_UP`."""
    priority: int = 0
    table: int = 0
    protocol: int = 0
    """The protocol number of the program that created the rule; 0 if unspecified."""
    mark: int = 0
    """The bits that must be set in a packet's mark; 0 for any packet."""
    in_interface: str = ""
    """The incoming interface; empty for any."""
    target: int = 0
    """The priority of the rule at which a goto continues; 0 for other actions."""


def _links_to_gateways(hops: bytes) -> Iterator[int]:
    start = 0
    while start + _NEXT_HOP.size <= len(hops):
        size, _, _, link = _NEXT_HOP.unpack_from(hops, start)
        if size < _NEXT_HOP.size or start + size > len(hops):
            return
        if dict(read_attributes(hops[start : start + size], _NEXT_HOP.size)).keys() & _GATEWAYS:
            yield link
        start += (size + 3) & ~3


def list_links() -> bytes:
    """Return the request for all links."""
    # Omit statistics, which are a third of the listing, and differ every time.
    wanted = attribute(_WANTED, U32.pack(_WITHOUT_STATISTICS))
    return request(GET_LINK, DUMP, _LINK.pack(0, 0, 0, 0, 0, 0) + wanted)


def list_addresses(family: int = socket.AF_UNSPEC) -> bytes:
    """Return the request for the addresses of all links, by default of both families."""
    return request(GET_ADDRESS, DUMP, _ADDRESS.pack(family, 0, 0, 0, 0))


def list_routes(family: int, *, table: int = 0, kind: int = 0) -> bytes:
    """Return the request for a family's routes; from Linux 4.20 on, limited by table and kind."""
    limit = attribute(_TABLE, U32.pack(table)) if table else b""
    return request(GET_ROUTE, DUMP, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, kind, 0) + limit)


def find_neighbour(ip: str, link: int) -> bytes:
    """Return the request for the neighbour with an address on a link; refused if there is none."""
    body = _NEIGHBOUR.pack(family_of(ip), 0, 0, link, 0, 0, 0)
    return request(GET_NEIGHBOUR, 0, body + attribute(_NEIGHBOUR_ADDRESS, pack_ip(ip)))


def list_rules(family: int) -> bytes:
    """Return the request for all rules of an address family."""
    return request(GET_RULE, DUMP, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def find_route(ip: str) -> bytes:
    """Return the request for the route to an address; the answer is a route, or a refusal."""
    packed = pack_ip(ip)
    body = _ROUTE.pack(family_of(ip), len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    return request(GET_ROUTE, 0, body + attribute(_DST, packed))


@checked
def read_link(message: Message) -> ListedLink:
    """Parse a message about a link."""
    _, _, _, number, flags, _ = _LINK.unpack_from(message.body)
    found = dict(read_attributes(message.body, _LINK.size))
    info = dict(read_attributes(found.get(_LINKINFO, b"")))
    kind, port_kind = _text(info.get(_INFO_KIND, b"")), _text(info.get(_INFO_PORT_KIND, b""))
    # The attributes' numbers have these meanings only for bridges and their ports.
    bridge = info.get(_INFO_DATA, b"") if kind == "bridge" else b""
    port = info.get(_INFO_PORT_DATA, b"") if port_kind == "bridge" else b""
    options = dict(read_attributes(bridge))
    link = NodeLink(
        number,
        _text(found.get(_NAME, b"")),
        kind,
        _number(found.get(_MASTER)),
        any(options.get(_BRIDGE_CALLS_IPTABLES, b"")),
        any(options.get(_BRIDGE_CALLS_IP6TABLES, b"")),
        any(options.get(_BRIDGE_FILTERS_VLANS, b"")),
        any(dict(read_attributes(port)).get(_BRIDGE_PORT_ISOLATED, b"")),
    )
    return ListedLink(link, flags, port_kind)


@checked
def read_address(message: Message) -> ListedAddress:
    """Parse a message about an interface's address."""
    _, _, flags, scope, link = _ADDRESS.unpack_from(message.body)
    found = dict(read_attributes(message.body, _ADDRESS.size))
    # The header has room for only eight flags, so prefer the attribute. If there is a peer, _PEER
    # is the peer's address.
    flags = _number(found[_ADDRESS_FLAGS]) if _ADDRESS_FLAGS in found else flags
    ip = ip_of(found.get(_LOCAL_ADDRESS) or found.get(_PEER, b""))
    return ListedAddress(ip, link, scope, flags)


@checked
def is_absent(message: Message) -> bool:
    """Return whether the neighbour in a message hasn't answered: not yet, or not at all."""
    state = _NEIGHBOUR.unpack_from(message.body)[4]
    return bool(state & (_INCOMPLETE | _FAILED))


@checked
def read_route(message: Message) -> ListedRoute:
    """Parse a message about a route."""
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(message.body)
    return ListedRoute(family, length, protocol, kind, table, message.body[_ROUTE.size :])


@checked
def read_rule(message: Message) -> RoutingRule:
    """Parse a message about a rule; attributes that a :class:`RoutingRule` lacks are ignored."""
    family, _, _, _, table, _, _, action, _ = _ROUTE.unpack_from(message.body)
    found = dict(read_attributes(message.body, _ROUTE.size))
    return RoutingRule(
        family,
        action,
        _number(found.get(_PRIORITY)),
        _number(found.get(_TABLE)) or table,
        found.get(_RULE_PROTOCOL, b"\0")[0],
        _number(found.get(_MARK)),
        _text(found.get(_IN_NAME, b"")),
        _number(found.get(_TARGET)),
    )


def write_rule(kind: int, flags: int, rule: RoutingRule) -> bytes:
    """Return the request :data:`NEW_RULE` or :data:`DEL_RULE` for a rule."""
    body = _ROUTE.pack(rule.family, 0, 0, 0, 0, 0, 0, rule.action, 0)
    values = (
        (_PRIORITY, U32.pack(rule.priority) if rule.priority else b""),
        (_TABLE, U32.pack(rule.table) if rule.table else b""),
        (_RULE_PROTOCOL, bytes([rule.protocol]) if rule.protocol else b""),
        (_MARK, U32.pack(rule.mark) if rule.mark else b""),
        (_MARK_MASK, U32.pack(rule.mark) if rule.mark else b""),
        (_IN_NAME, f"{rule.in_interface}\0".encode() if rule.in_interface else b""),
        (_TARGET, U32.pack(rule.target) if rule.target else b""),
    )
    return request(kind, flags, body + _packed(values))


def write_local_route(kind: int, flags: int, route: LocalRoute, protocol: int) -> bytes:
    """Return the request :data:`NEW_ROUTE` or :data:`DEL_ROUTE` for a local route."""
    ip, _, length = route.network.partition("/")
    scope = SCOPE_HOST if route.family == socket.AF_INET else SCOPE_UNIVERSE
    body = _ROUTE.pack(route.family, int(length), 0, 0, 0, protocol, scope, LOCAL, 0)
    values = (
        (_DST, pack_ip(ip) if int(length) else b""),
        (_OUT, U32.pack(LOOPBACK_NUMBER)),
        (_TABLE, U32.pack(route.table)),
        (_METRIC, U32.pack(route.metric) if route.metric else b""),
        (_SOURCE, pack_ip(route.source) if route.source else b""),
    )
    return request(kind, flags, body + _packed(values))


def write_bridge_entry(kind: int, flags: int, bridge: int, mac: bytes) -> bytes:
    """Return the request :data:`NEW_NEIGHBOUR` or :data:`DEL_NEIGHBOUR` for a bridge's own MAC."""
    state, flag = _PERMANENT, _ON_THE_BRIDGE_ITSELF
    body = _NEIGHBOUR.pack(socket.AF_BRIDGE, 0, 0, bridge, state, flag, 0)
    return request(kind, flags, body + attribute(_LINK_ADDRESS, mac))


def _packed(values: tuple[tuple[int, bytes], ...]) -> bytes:
    return b"".join(attribute(kind, value) for kind, value in values if value)


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(U32.unpack_from(value)[0])


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
