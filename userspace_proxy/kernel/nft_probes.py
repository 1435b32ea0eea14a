"""Defines tables that test whether the kernel supports each expression of this proxy's rules.

Each probe writes one or two tables, and is named after the part in ``offers.NEEDS`` that it needs.
Together they contain every expression that this proxy writes
(``tests/unit/kernel/test_nft_probes.py``).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import partial

from .nf_tables import BRIDGE, INET, TableWriter
from .nf_tables import expressions as x
from .nf_tables.writer import INPUT, OUTPUT, POSTROUTING, PREROUTING, goto_chain

PROBE_TABLE = "userspace-proxy-check"
"""The name of the probe table, which other programs never see."""
_PRIORITY = 10
_PROTOCOLS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
_KEY = (x.IP_DADDR, x.L4PROTO, x.DPORT)
_KEY_PARTS = (x.IPV4_ADDR, x.INET_PROTO, x.INET_SERVICE)
_KEY_TYPE = x.joined(*_KEY_PARTS)


def _table(fill: Callable[[TableWriter], None], family: int = INET) -> list[bytes]:
    table = TableWriter(PROBE_TABLE, family)
    table.create()
    fill(table)
    return table.messages


def _rules(kind: str, hook: int, *rules: bytes) -> list[bytes]:
    def fill(table: TableWriter) -> None:
        table.add_base_chain("chain", kind, hook, _PRIORITY)
        for rule in rules:
            table.add_rule("chain", rule)

    return _table(fill)


def _chains(table: TableWriter) -> None:
    table.add_chain("other")
    for name, hook in (("in", INPUT), ("out", OUTPUT), ("before", PREROUTING)):
        table.add_base_chain(name, "filter", hook, _PRIORITY)


def _sets(table: TableWriter) -> None:
    """Add all kinds of sets without counters, and all expressions that are built into nf_tables."""
    table.add_set("keys", _KEY_TYPE)
    table.add_map("ports", _KEY_TYPE, x.INET_SERVICE)
    table.add_verdict_map("chains", _KEY_TYPE)
    table.add_interval_set("ranges", _KEY_PARTS)
    table.add_interval_set("ports_of_ranges", _KEY_PARTS, x.INET_SERVICE)
    table.add_dynamic_set("pins", x.joined(x.IPV4_ADDR, x.NUMBER), size=1)
    table.add_set("links", x.LINK_INDEX)
    table.add_chain("chain")
    table.add_elements("chains", {bytes(_KEY_TYPE.width): goto_chain("chain")})
    table.add_base_chain("rules", "filter", PREROUTING, _PRIORITY)
    protocols = x.one_of(x.L4PROTO, x.INET_PROTO, *_PROTOCOLS)
    marked = x.set_bits(x.MARK, 1) + x.verdict(x.ACCEPT)
    table.add_rule("rules", protocols, x.IPV4 + x.within(x.DPORT, 1, 2) + marked)
    others = x.one_of(x.L4PROTO, x.INET_PROTO, *_PROTOCOLS, is_inverted=True)
    table.add_rule("rules", others, x.match_network("10.0.0.0/8"))
    table.add_rule("rules", x.IPV4 + x.in_set(_KEY, "keys", is_inverted=True))
    table.add_rule("rules", x.IPV4 + x.look_up(_KEY, "ports"))
    loaded = x.IPV4 + x.load_slots(_KEY, 0)
    table.add_rule("rules", loaded + x.has("keys", 0) + x.find_verdict("chains", 0))
    pinned = x.IPV4 + x.load_slots((x.IP_SADDR,), 0) + x.put_slot(bytes(4), 1)
    table.add_rule("rules", pinned + x.remember("pins", 0, timeout_s=1))
    table.add_rule("rules", x.in_set((x.IN_LINK,), "links"), x.go_by(0, [goto_chain("chain")]))
    table.add_rule("rules", x.match(x.OUT_LINK, 1, op=x.NOT_EQUAL) + x.match(x.PACKET_TYPE, 0))
    table.add_rule("rules", x.TCP + x.match(x.DPORT, 1, op=x.LESS))
    table.add_rule("rules", x.IPV6 + x.match(x.FRAGMENT, 0, mask=x.FRAGMENT_OFFSET))
    table.add_rule("rules", x.match(x.IN_LINK, 1) + x.ETHERNET + x.assign(x.ETHER_DADDR, bytes(6)))


def _counters(table: TableWriter) -> None:
    table.add_set("counted", _KEY_TYPE, counts=True)
    table.add_interval_set("counted_ranges", _KEY_PARTS, counts=True)


def _bridge(table: TableWriter) -> None:
    table.add_base_chain("chain", "filter", PREROUTING, _PRIORITY)
    table.add_rule("chain", x.match(x.ETHER_DADDR, bytes(6)) + x.assign(x.PACKET_TYPE, x.THIS_HOST))


def _owned() -> list[bytes]:
    table = TableWriter(PROBE_TABLE)
    table.create(is_owned=True)
    return table.messages


_TO_ADDRESS = x.IPV4 + x.TCP + x.put(bytes(4)) + x.put(bytes(2), 2) + x.dnat(1, 2)
_TO_ADDRESS6 = x.IPV6 + x.TCP + x.put(bytes(16)) + x.put(bytes(2), 2)

PROBES: Mapping[str, Callable[[], list[bytes]]] = {
    "inet tables": partial(_table, _chains),
    "sets": partial(_table, _sets),
    "nat": lambda: [
        *_rules("nat", PREROUTING, _TO_ADDRESS, _TO_ADDRESS6 + x.dnat(1, 2, socket.AF_INET6)),
        *_rules("nat", OUTPUT, _TO_ADDRESS),
    ],
    "redirect": partial(_rules, "nat", PREROUTING, x.TCP + x.put(b"\0\1") + x.redirect()),
    "ct": partial(
        _rules,
        "filter",
        PREROUTING,
        x.match(x.CT_STATUS, 0, mask=x.STATUS_DNAT),
        x.match(x.CT_STATE, 0, mask=x.STATE_INVALID),
        x.IPV4 + x.load(x.ORIGINAL_IP_DADDR) + x.TCP + x.load(x.ORIGINAL_DPORT),
        x.IPV6 + x.load(x.ORIGINAL_IP6_DADDR),
        x.notrack(),
    ),
    "reject": partial(
        _rules, "filter", INPUT, x.UDP + x.reject(), x.TCP + x.reject(with_tcp_reset=True)
    ),
    "socket": partial(
        _rules,
        "filter",
        INPUT,
        x.TCP + x.match(x.SOCKET_TRANSPARENT, 0),
        x.TCP + x.match(x.SOCKET_WILDCARD, 0),
    ),
    "tproxy": partial(_rules, "filter", PREROUTING, x.UDP + x.tproxy(1)),
    "fib": partial(
        _rules,
        "filter",
        PREROUTING,
        x.match(x.DADDR_TYPE, x.LOCAL),
        x.match(x.SADDR_TYPE, x.LOCAL),
    ),
    "masquerade": partial(_rules, "nat", POSTROUTING, x.TCP + x.masquerade()),
    "numgen": partial(_rules, "filter", INPUT, x.pick(2, 0)),
    "hash": partial(
        _rules, "filter", INPUT, x.put_slot(bytes(4), 1) + x.pick_by(1, 4, 2, 0, seed=1)
    ),
    "counters": partial(_table, _counters),
    "bridge tables": partial(_table, _bridge, BRIDGE),
    "table owner": _owned,
}
"""The messages of each transaction, by the kernel part that they need."""
