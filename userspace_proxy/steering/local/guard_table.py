"""The table that rejects traffic to Service addresses that isn't for a frontend.

    addresses4  10.96.7.1                addresses of Services that are routed to this node
    frontends4  10.96.7.1 . tcp . 80     the admitted frontends

Only the SYN of TCP is checked, because every connection begins with it: open connections continue.
UDP has no such packet, so every packet is checked. An IPv6 fragment without ports passes: it has no
effect without the first fragment. A frontend's packets are admitted only to transparent sockets,
such as the proxy's, because after a crash any process may listen on its port (ADR 0013). ICMP is
admitted, because a ping to a Service's address is harmless. Other protocols are rejected, because
no Service uses them.

Rule 1: this module doesn't access the kernel; it converts values.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from ...kernel.nf_tables import TableWriter
from ...kernel.nf_tables import expressions as x
from ...kernel.nf_tables.writer import INPUT, SetElement
from ...model import Frontend, IPFamily, pack_ip
from ..nftables.rules import (
    ADDRESS,
    DIALLED,
    FILTER_PRIORITY,
    FRONTEND,
    IS_FAMILY,
    SYN,
    TO_OTHER_SOCKET,
    frontend_key,
    read_frontend,
)

ADDRESSES = {IPFamily.IPV4: "addresses4", IPFamily.IPV6: "addresses6"}
FRONTENDS = {IPFamily.IPV4: "frontends4", IPFamily.IPV6: "frontends6"}
SETS = (*FRONTENDS.values(), *ADDRESSES.values())
_DADDR = {IPFamily.IPV4: x.IP_DADDR, IPFamily.IPV6: x.IP6_DADDR}
_ADMITTED_PROTOCOLS = (
    *(socket.IPPROTO_TCP, socket.IPPROTO_UDP),
    *(socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6),
)


def frontend_element(frontend: Frontend) -> SetElement:
    """Return the element that admits a frontend."""
    return FRONTENDS[frontend.family], frontend_key(frontend), b""


def address_element(network: str) -> SetElement:
    """Return the element that guards an address, given as a network."""
    ip = network.partition("/")[0]
    return ADDRESSES[IPFamily.of(ip)], pack_ip(ip), b""


def all_elements(networks: Iterable[str], frontends: Iterable[Frontend]) -> set[SetElement]:
    """Return the elements of all sets."""
    return {address_element(n) for n in networks} | {frontend_element(f) for f in frontends}


def read_frontends(elements: Iterable[SetElement]) -> list[Frontend]:
    """Return the frontends that the elements of the frontend sets admit."""
    families = {name: family for family, name in FRONTENDS.items()}
    found = (read_frontend(key, families[name]) for name, key, _ in elements)
    return [frontend for frontend in found if frontend is not None]


def write_guard(name: str, ranges: Iterable[str], *, checks_sockets: bool = True) -> list[bytes]:
    """Return the messages that create the table; the table guards each range as a whole."""
    table = TableWriter(name)
    table.create()
    for family in IPFamily:
        table.add_set(ADDRESSES[family], ADDRESS[family])
    for family in IPFamily:
        table.add_set(FRONTENDS[family], FRONTEND[family])
    table.add_chain("guard")
    table.add_base_chain("input", "filter", INPUT, FILTER_PRIORITY)
    _add_guard(table, checks_sockets=checks_sockets)
    _add_input(table, ranges)
    return table.messages


def _add_input(table: TableWriter, ranges: Iterable[str]) -> None:
    to_guard = x.verdict(x.GOTO, "guard")
    for family in IPFamily:
        is_guarded = x.in_set((_DADDR[family],), ADDRESSES[family])
        table.add_rule("input", IS_FAMILY[family] + is_guarded + to_guard)
    for network in ranges:
        family = IPFamily.of(network.partition("/")[0])
        table.add_rule("input", IS_FAMILY[family] + x.match_network(network) + to_guard)


def _add_guard(table: TableWriter, *, checks_sockets: bool) -> None:
    # Linux 6.18 reads ports from fragments, although these have none, so accept fragments first.
    is_fragment = x.match(x.FRAGMENT, 0, mask=x.FRAGMENT_OFFSET, op=x.NOT_EQUAL)
    table.add_rule("guard", x.IPV6 + is_fragment + x.verdict(x.ACCEPT))
    for packets, refusal in ((SYN, x.reject(with_tcp_reset=True)), (x.UDP, x.reject())):
        for family in IPFamily:
            is_other = x.in_set(DIALLED[family], FRONTENDS[family], is_inverted=True)
            table.add_rule("guard", packets + IS_FAMILY[family] + is_other + refusal)
        if checks_sockets:
            # TCP is also rejected by ICMP, because a RST from a rule doesn't reach pods on a
            # bridge.
            table.add_rule("guard", packets + TO_OTHER_SOCKET + x.reject())
    table.add_rule(
        "guard",
        x.one_of(x.L4PROTO, x.INET_PROTO, *_ADMITTED_PROTOCOLS, is_inverted=True),
        x.reject(),
    )
