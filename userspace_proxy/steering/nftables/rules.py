"""The contents of the table of proxy ports: rules, elements, and differences of elements.

    frontends4  10.96.7.1 . tcp . 80 : 36001
    frontends6  fd00:96::1 . tcp . 80 : 36001
    ranges4     10.96.7.1 . tcp . 30000-30100 : 36002    where no rule for a single port applies
    guarded     tcp . 36001                       proxy ports in use, or just released
    cluster_ips4  10.96.7.1                       refuses clients at all other ports
    other_ports4  10.96.7.1 . tcp . 81            counts these clients; rules write it

Rule 1: this module doesn't access the kernel; it converts values.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from ...kernel.conntrack import PROTOCOL_NUMBERS
from ...kernel.netlink.messages import ip_of, read_all, text_in
from ...kernel.nf_tables import TableWriter
from ...kernel.nf_tables import expressions as x
from ...kernel.nf_tables.expressions import (
    INET_PROTO,
    INET_SERVICE,
    IPV4_ADDR,
    IPV6_ADDR,
    KeyType,
    joined,
)
from ...kernel.nf_tables.nft_table import Listing
from ...kernel.nf_tables.reader import Expression
from ...kernel.nf_tables.writer import INPUT, OUTPUT, PREROUTING, Interval, SetElement
from ...model import Frontend, FrontendKind, IPFamily, Protocol, pack_ip

# The priority precedes other programs' filters, which might drop packets that should be refused.
FILTER_PRIORITY = -10
_PROTOCOLS = {int(number): protocol for protocol, number in PROTOCOL_NUMBERS.items()}
ADDRESS = {IPFamily.IPV4: IPV4_ADDR, IPFamily.IPV6: IPV6_ADDR}
PORT = joined(INET_PROTO, INET_SERVICE)
"""The key type of a protocol and a port."""
FRONTEND: Mapping[IPFamily, KeyType] = {
    family: joined(ADDRESS[family], INET_PROTO, INET_SERVICE) for family in IPFamily
}
"""The key type of frontends: ``10.96.7.1 . tcp . 80``."""
PARTS = {family: (ADDRESS[family], INET_PROTO, INET_SERVICE) for family in IPFamily}
"""The types of the components of a frontend's key."""
# A protocol and a port, each padded to four bytes.
_PORT = struct.Struct(">B3xH2x")

IS_FAMILY = {IPFamily.IPV4: x.IPV4, IPFamily.IPV6: x.IPV6}
DIALLED = {
    IPFamily.IPV4: (x.IP_DADDR, x.L4PROTO, x.DPORT),
    IPFamily.IPV6: (x.IP6_DADDR, x.L4PROTO, x.DPORT),
}
# Matches a SYN without ACK; unlike "tcp flags == syn", also if FIN or RST is set.
SYN = x.TCP + x.match(x.TCP_FLAGS, 0x02, mask=0x12)
# The match for packets to a socket that isn't transparent. Packets without a socket don't match, so
# the kernel's stack refuses them.
TO_OTHER_SOCKET = x.match(x.SOCKET_TRANSPARENT, 0)

MAPS = {IPFamily.IPV4: "frontends4", IPFamily.IPV6: "frontends6"}
RANGE_MAPS = {IPFamily.IPV4: "ranges4", IPFamily.IPV6: "ranges6"}
ALL_MAPS = (*MAPS.values(), *RANGE_MAPS.values())
GUARDED = "guarded"
CLUSTER_IPS = {IPFamily.IPV4: "cluster_ips4", IPFamily.IPV6: "cluster_ips6"}
OTHER_PORTS = {IPFamily.IPV4: "other_ports4", IPFamily.IPV6: "other_ports6"}
# Elements are removed in this order and added in reverse: a port is guarded before a frontend is
# steered to it, and frontends are steered before their ClusterIP refuses other ports.
SETS = (*CLUSTER_IPS.values(), *ALL_MAPS, GUARDED)
NAT_CHAINS = ("prerouting", "output")
RANGE_CHAINS = ("prerouting_ranges", "output_ranges")
# The priority of the nat chains; other programs' nat rules have -100 (NF_IP_PRI_NAT_DST). The
# kernel evaluates chains in order of priority and applies the first translation, so these chains
# take precedence over kube-proxy's leftovers.
NAT_PRIORITY = -110
# This priority follows the kernel path's ranges, which follow all rules for single ports.
RANGE_PRIORITY = -108
REFUSAL_CHAINS = ("prerouting_others", "output_others")
# Other programs may translate ports of ClusterIPs that no Service has, so they take precedence.
REFUSAL_PRIORITY = -90
# The time that a port stays in OTHER_PORTS after the last packet, and the maximum number of ports.
_OTHERS_S, _OTHERS_MAX = 60, 1024

# The sets whose elements several frontends use, by the width of their keys.
_USED_SETS = {_PORT.size: GUARDED, **{ADDRESS[f].width: name for f, name in CLUSTER_IPS.items()}}
# When nft loads a saved ruleset, it requires this match in a rule that translates ports.
_HAS_PORTS = x.one_of(x.L4PROTO, x.INET_PROTO, *PROTOCOL_NUMBERS.values())
_NOT_TRANSLATED = x.match(x.CT_STATUS, 0, mask=x.STATUS_DNAT)
_TRANSLATED = x.match(x.CT_STATUS, 0, mask=x.STATUS_DNAT, op=x.NOT_EQUAL)


def port_key(protocol: Protocol, port: int) -> bytes:
    """Return the key of a port: ``tcp . 36001``."""
    return _PORT.pack(PROTOCOL_NUMBERS[protocol], port)


def frontend_key(frontend: Frontend) -> bytes:
    """Return the key of a frontend: ``10.96.7.1 . tcp . 80``, or ``… . 10000-20000``."""
    ip, protocol = pack_ip(frontend.ip), PROTOCOL_NUMBERS[frontend.protocol]
    key = ip + _PORT.pack(protocol, frontend.port)
    return Interval(key + ip + _PORT.pack(protocol, frontend.last)) if frontend.last else key


def read_frontend(key: bytes, family: IPFamily) -> Frontend | None:
    """Return the frontend of a key; None for a key that this proxy never writes."""
    if isinstance(key, Interval):
        first, last = (read_frontend(bytes(one), family) for one in (key.first, key.last))
        if first is None or last is None or (first.ip, first.protocol) != (last.ip, last.protocol):
            return None
        return replace(first, last=last.port)
    if len(key) != FRONTEND[family].width:
        return None
    number, port = _PORT.unpack(key[-_PORT.size :])
    protocol = _PROTOCOLS.get(number)
    return Frontend(ip_of(key[: -_PORT.size]), port, protocol) if protocol and port else None


class Shape(NamedTuple):
    """The facts about this node on which the rules depend."""

    table: str
    refuse_port: int = 0
    """The target of refused frontends; 0 for none."""
    to_ip: str = ""
    """The IPv4 address for DNAT in ``prerouting``; empty for the incoming interface's address."""
    checks_sockets: bool = True
    """Whether the kernel can look up sockets (nft_socket)."""


class ElementChanges(NamedTuple):
    """Elements to remove and to add; an element with a changed value is in both sets."""

    removed: set[SetElement]
    added: set[SetElement]


def is_looked_up(listing: Listing, name: str) -> bool:
    """Return whether a map is looked up in both nat chains that should use it."""
    return all(
        any(
            one.name == "lookup" and text_in(one.attributes(), x.LOOKUP_SET) == name
            for rule in listing.rules(chain)
            for one in rule
        )
        for chain in (RANGE_CHAINS if name in RANGE_MAPS.values() else NAT_CHAINS)
    )


def refuse_port_of(listing: Listing) -> int:
    """Return the refuse port of the run that wrote a table's rules; 0 if it had none."""
    for rule in listing.rules("input"):
        names = {one.name for one in rule}
        if "reject" in names and "lookup" not in names:
            values = (_value(one, 3) for one in rule if one.name == "cmp")
            ports = [value for value in values if len(value) == x.DPORT.width]
            return int.from_bytes(ports[0], "big") if ports else 0
    return 0


def to_ip_of(listing: Listing) -> str:
    """Return the address for DNAT in ``prerouting``; empty if there is none."""
    for rule in listing.rules("prerouting"):
        for one in rule:
            if one.name == "immediate" and len(value := _value(one, 2)) == 4:
                return ip_of(value)
    return ""


def frontend_element(frontend: Frontend, port: int) -> SetElement:
    """Return the element that steers a frontend to a port."""
    maps = RANGE_MAPS if frontend.last else MAPS
    return maps[frontend.family], frontend_key(frontend), port.to_bytes(2, "big")


def guard_key(frontend: Frontend, port: int) -> bytes:
    """Return the key of a frontend's proxy port in the guard."""
    return port_key(frontend.protocol, port)


def is_guard(key: bytes) -> bool:
    """Return whether a key is a port, which stays for a while when unused, and not a ClusterIP."""
    return len(key) == _PORT.size


def used_elements(keys: Iterable[bytes]) -> set[SetElement]:
    """Return the elements for guarded ports and for ClusterIPs, given by their keys."""
    return {(_USED_SETS[len(key)], key, b"") for key in keys}


def all_elements(ports: Mapping[Frontend, int], refuse_port: int) -> set[SetElement]:
    """Return the elements of all sets; a rule, not an element, guards the refuse port."""
    steered = {frontend_element(frontend, port) for frontend, port in ports.items()}
    return steered | used_elements(count_uses(ports, refuse_port))


def count_uses(ports: Mapping[Frontend, int], refuse_port: int) -> dict[bytes, int]:
    """Return how many frontends use each ClusterIP, and each port but the refuse port, by key."""
    used = (key for f, port in ports.items() for key in _used_keys(f, port, refuse_port))
    return dict(Counter(used))


def _used_keys(
    frontend: Frontend, port: int, refuse_port: int, *, is_any_kind: bool = False
) -> Iterator[bytes]:
    if port != refuse_port:
        yield guard_key(frontend, port)
    if is_any_kind or frontend.kind is FrontendKind.CLUSTER_IP:
        yield pack_ip(frontend.ip)


def differing_frontends(
    before: Mapping[Frontend, int | None],
    affected: Mapping[Frontend, int | None],
    uses: Mapping[bytes, int],
    refuse_port: int,
) -> tuple[ElementChanges, dict[bytes, int]]:
    """Return the changes to all sets that steer these frontends to new ports.

    Ports that no frontend uses any longer stay guarded.

    Args:
        before: The old ports; None or missing for a frontend that wasn't steered.
        affected: The new ports; None for a frontend that is no longer steered.
        uses: The number of frontends that used each port and ClusterIP before, by its key.

    Returns: The changes, and the new number of uses of the affected ports and ClusterIPs.
    """
    changes = ElementChanges(set(), set())
    uses_now: dict[bytes, int] = {}

    def use(keys: Iterable[bytes], by: int) -> None:
        for key in keys:
            uses_now[key] = max(0, uses_now.get(key, uses.get(key, 0)) + by)

    for frontend, port in affected.items():
        old = before.get(frontend)
        if old is not None:
            changes.removed.add(frontend_element(frontend, old))
            # The address may have been a ClusterIP until now, or become one.
            use(_used_keys(frontend, old, refuse_port, is_any_kind=True), -1)
        if port is not None:
            changes.added.add(frontend_element(frontend, port))
            use(_used_keys(frontend, port, refuse_port), 1)
    changes.added.update(used_elements(k for k, n in uses_now.items() if n and not uses.get(k)))
    unused = (k for k, n in uses_now.items() if not n and uses.get(k) and not is_guard(k))
    changes.removed.update(used_elements(unused))
    return changes, uses_now


def write_table(shape: Shape) -> list[bytes]:
    """Return the messages that create the table, without elements."""
    table = TableWriter(shape.table)
    table.create()
    for family, name in MAPS.items():
        table.add_map(name, FRONTEND[family], x.INET_SERVICE)
        table.add_interval_set(RANGE_MAPS[family], PARTS[family], x.INET_SERVICE)
        table.add_set(CLUSTER_IPS[family], ADDRESS[family])
        table.add_dynamic_set(OTHER_PORTS[family], FRONTEND[family], _OTHERS_MAX)
    table.add_set(GUARDED, PORT)
    table.add_base_chain("prerouting", "nat", PREROUTING, NAT_PRIORITY)
    table.add_base_chain("output", "nat", OUTPUT, NAT_PRIORITY)
    for hook, ranges, refusals in zip(
        (PREROUTING, OUTPUT), RANGE_CHAINS, REFUSAL_CHAINS, strict=True
    ):
        table.add_base_chain(ranges, "nat", hook, RANGE_PRIORITY)
        table.add_base_chain(refusals, "nat", hook, REFUSAL_PRIORITY)
    table.add_base_chain("input", "filter", INPUT, FILTER_PRIORITY)
    _add_prerouting(table, shape)
    for family in IPFamily:
        table.add_rule("output", _HAS_PORTS, _redirect(family, MAPS))
        table.add_rule("output_ranges", _HAS_PORTS, _redirect(family, RANGE_MAPS))
        _add_refusals(table, "output_others", family, shape)
    _add_guard(table, shape)
    return table.messages


def write_prerouting(shape: Shape) -> list[bytes]:
    """Return the messages that rewrite the rules which depend on the node's address."""
    table = TableWriter(shape.table)
    for chain in ("prerouting", "prerouting_ranges", "prerouting_others"):
        table.flush_chain(chain)
    _add_prerouting(table, shape)
    return table.messages


def read_ports(
    elements: Iterable[SetElement], maps: Iterable[str] = ALL_MAPS
) -> dict[Frontend, int]:
    """Return the ports of the frontends in these maps' elements; see :func:`each_port`."""
    return dict(each_port(elements, maps))


def each_port(
    elements: Iterable[SetElement], maps: Iterable[str] = ALL_MAPS
) -> Iterator[tuple[Frontend, int]]:
    """Yield the frontends and ports in these maps' elements; a frontend may occur in several maps.

    Elements that this proxy never writes are skipped.
    """
    named = (*MAPS.items(), *RANGE_MAPS.items())
    families = {name: family for family, name in named if name in maps}
    found = ((read_frontend(k, families[n]), value) for n, k, value in elements if n in families)
    return ((f, int.from_bytes(value, "big")) for f, value in found if f is not None)


def _add_prerouting(table: TableWriter, shape: Shape) -> None:
    """Add the rules for packets from outside or from pods.

    ``redirect`` drops packets from an interface without an IPv4 address; see ``interfaces``.
    """
    for chain, maps in (("prerouting", MAPS), ("prerouting_ranges", RANGE_MAPS)):
        if shape.to_ip:
            to_node = x.put(pack_ip(shape.to_ip)) + _look_up(IPFamily.IPV4, maps, 2) + x.dnat(1, 2)
            table.add_rule(chain, _HAS_PORTS, x.IPV4 + to_node)
        else:
            table.add_rule(chain, _HAS_PORTS, _redirect(IPFamily.IPV4, maps))
        table.add_rule(chain, _HAS_PORTS, _redirect(IPFamily.IPV6, maps))
    _add_refusals(table, "prerouting_others", IPFamily.IPV4, shape, shape.to_ip)
    _add_refusals(table, "prerouting_others", IPFamily.IPV6, shape)


def _add_refusals(
    table: TableWriter, chain: str, family: IPFamily, shape: Shape, to_ip: str = ""
) -> None:
    """Add the rules that refuse clients of a ClusterIP at ports that no frontend has.

    Without them, the packets would leave the node by its default route, and clients would time out.
    A separate rule counts the clients, because a rule ends if the set is full.
    """
    if not shape.refuse_port:
        return
    refused = IS_FAMILY[family] + x.in_set(DIALLED[family][:1], CLUSTER_IPS[family])
    if shape.checks_sockets:
        counted = x.load_slots(DIALLED[family], 0)
        counted += x.remember(OTHER_PORTS[family], 0, _OTHERS_S, counts=True)
        table.add_rule(chain, _HAS_PORTS, refused + counted)
    port = shape.refuse_port.to_bytes(2, "big")
    to_port = x.put(pack_ip(to_ip)) + x.put(port, 2) + x.dnat(1, 2) if to_ip else b""
    table.add_rule(chain, _HAS_PORTS, refused + (to_port or x.put(port) + x.redirect()))


def _redirect(family: IPFamily, maps: Mapping[IPFamily, str]) -> bytes:
    return IS_FAMILY[family] + _look_up(family, maps, 1) + x.redirect()


def _look_up(family: IPFamily, maps: Mapping[IPFamily, str], register: int) -> bytes:
    return x.look_up(DIALLED[family], maps[family], register)


def _add_guard(table: TableWriter, shape: Shape) -> None:
    """Add the rules that limit access to ports to which frontends are steered.

    Only the SYN of TCP is checked, because every connection begins with it: the kernel's own stack
    refuses other segments. UDP has no such packet, so every packet is checked. Each SYN or datagram
    costs up to two set look-ups. The set's key has two parts, because a set of ports alone would be
    a bitmap, and inserting 10,000 ports into a bitmap takes the kernel half a second (measured).

    Steered packets are admitted only to transparent sockets, which require a privilege that this
    proxy has, because after a crash any process may listen on the ports. Packets to another
    program's socket are refused by ICMP, because a RST from a rule doesn't reach pods on a bridge.
    Source: docs/adr/0013.

    TCP that was steered to the refuse port is admitted: it has no listener, and the RST of the
    kernel's own stack reaches every client. Source: docs/adr/0004.
    """
    used = x.in_set((x.L4PROTO, x.DPORT), GUARDED)
    guarded = used + _NOT_TRANSLATED
    table.add_rule("input", SYN + guarded + x.reject(with_tcp_reset=True))
    table.add_rule("input", x.UDP + guarded + x.reject())
    to_other_socket = TO_OTHER_SOCKET + x.reject()
    if shape.checks_sockets:
        for packets in (SYN, x.UDP):
            table.add_rule("input", packets + used + to_other_socket)
    if shape.refuse_port:
        if shape.checks_sockets:
            to_refuse = SYN + x.match(x.DPORT, shape.refuse_port) + _TRANSLATED
            table.add_rule("input", to_refuse + to_other_socket)
        to_refuse = x.UDP + x.match(x.DPORT, shape.refuse_port) + _TRANSLATED
        table.add_rule("input", to_refuse + x.reject())


def _value(one: Expression, kind: int) -> bytes:
    return read_all(one.attributes().get(kind, b"")).get(x.DATA_VALUE, b"")
