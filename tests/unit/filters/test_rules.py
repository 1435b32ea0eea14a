"""Tests of parsing rules; tests/node/test_check.py parses rules of nft and iptables-nft."""

import ipaddress
import struct
import sys

import pytest

from tests.unit.filters.written import read
from userspace_proxy.filters.rules import read_step
from userspace_proxy.kernel.netlink.messages import attribute, number, text
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.nf_tables.reader import ListedRule

ACCEPT = x.verdict(x.ACCEPT)
DROP = x.verdict(x.DROP)
NEW = x.match(x.CT_STATE, 0, mask=x.STATE_NEW, op=x.NOT_EQUAL)
ANY_NEW = x.match(x.CT_STATE, 0, mask=x.STATE_NEW | x.STATE_ESTABLISHED, op=x.NOT_EQUAL)
TRANSLATED = x.match(x.CT_STATUS, 0, mask=x.STATUS_DNAT, op=x.NOT_EQUAL)
LIMIT = x.expression("limit", number(5, 0))
COMMENT = x.expression("match", text(1, "comment"))
COUNTER = x.expression("counter")
REJECT_OF_XTABLES = x.expression("target", text(1, "REJECT"))
VERDICT_MAP = x.expression("lookup", text(1, "verdicts") + number(2, 1) + number(3, 0))


def target_ct(flags):
    return x.expression("target", text(1, "CT") + attribute(3, flags + bytes(71)))


RANGE, OUTSIDE = (
    x.expression(
        "range",
        number(2, op)
        + attribute(3, attribute(1, bytes([0, 80])))
        + attribute(4, attribute(1, bytes([0, 90]))),
    )
    for op in (x.EQUAL, x.NOT_EQUAL)
)
TCP_FLAGS = x._payload(2, 13, 1)
IN_NAME = x._meta(6, 16)
BEYOND_DADDR = x._payload(1, 16, 8)
HASH_OF_SOURCE = x.load(x._payload(1, 12, 4)) + x.expression("hash", number(2, 1) + number(4, 2))


def xtables(kind, name, data):
    """Return an expression with a match or target of iptables."""
    return x.expression(kind, text(1, name) + attribute(3, data))


def multiport(*ports, spans, is_inverted=0):
    """Return the data of xt_multiport_v1; ``spans`` has a 1 for each first port of a range."""
    fields = (*ports, *(0,) * (15 - len(ports)), *spans, *(0,) * (15 - len(spans)))
    return struct.pack("=BB15H15BB", 1, len(ports), *fields, is_inverted)


def conntrack(states, *, is_inverted=False, flags=1):
    """Return the match ``conntrack --ctstate`` of iptables; see xt_conntrack_mtinfo3."""
    data = bytes(146) + struct.pack("=3H", flags, int(is_inverted), states) + bytes(10)
    return x.expression("match", text(1, "conntrack") + attribute(3, data))


def dialled(address="", mask=b"", ports=(), *, is_inverted=False):
    """Return the match ``conntrack --ctorigdst --ctorigdstport`` of iptables."""
    packed = ipaddress.ip_address(address).packed.ljust(16, bytes(1)) if address else bytes(16)
    flags = (bool(address) << 3) | (bool(ports) << 9)
    first, last = ports or (0, 0)
    data = struct.pack("=32x16s16s76xH4x", packed, mask.ljust(16, mask[-1:] or bytes(1)), first)
    data += struct.pack("=3H", flags, int(is_inverted) << 3, 0) + struct.pack("=4xH4x", last)
    return x.expression("match", text(1, "conntrack") + attribute(3, data))


def read_rule(*parts):
    return read_step(ListedRule("", b"".join(parts)).expressions())


@pytest.mark.parametrize(
    ("expected", "rule"),
    [
        ("accept", ACCEPT),
        ("…: vmap", VERDICT_MAP),
        (
            "meta nfproto ipv4 ip daddr . th dport @services: translate",
            x.IPV4 + x.in_set((x.IP_DADDR, x.DPORT), "services") + x.redirect(),
        ),
        (
            "meta nfproto ipv4 ip daddr != 0.0.0.0/32: translate",
            x.IPV4 + x.match(x.IP_DADDR, bytes(4), op=x.NOT_EQUAL) + x.redirect(),
        ),
        ("…: drop", x.match(BEYOND_DADDR, bytes([10, 0, 0, 1, 1, 2, 3, 4])) + DROP),
        ("…: accept", x.match(x.L4PROTO, b"") + ACCEPT),
        ("tcp dport @web: translate", x.TCP + x.in_set((x.DPORT,), "web") + x.redirect()),
        (
            "tcp dport != @web: accept",
            x.TCP + x.in_set((x.DPORT,), "web", is_inverted=True) + ACCEPT,
        ),
        ("tcp dport @web: translate", x.TCP + x.look_up((x.DPORT,), "web") + x.redirect()),
        ("numgen @pods: translate", HASH_OF_SOURCE + x.look_up((), "pods") + x.redirect()),
        (
            "ct original ip daddr 10.96.7.1/32: drop",
            x.match(x.ORIGINAL_IP_DADDR, bytes([10, 96, 7, 1])) + DROP,
        ),
        ("ct original ip6 daddr ::/128: drop", x.match(x.ORIGINAL_IP6_DADDR, bytes(16)) + DROP),
        ("ct original proto-dst 80: drop", x.match(x.ORIGINAL_DPORT, 80) + DROP),
        ("iif lo: accept", x.match(x.IN_LINK, (1).to_bytes(4, sys.byteorder)) + ACCEPT),
        ("iif lo: accept", x.match(IN_NAME, b"lo".ljust(16, bytes(1))) + ACCEPT),
        ("oif lo: accept", x.match(x._meta(7, 16), b"lo".ljust(16, bytes(1))) + ACCEPT),
        ("iifname lo*: accept", x.match(IN_NAME._replace(width=2), b"lo") + ACCEPT),
        ("iif 2: accept", x.match(x.IN_LINK, (2).to_bytes(4, sys.byteorder)) + ACCEPT),
        (
            "iifname != eth1: accept",
            x.match(IN_NAME, b"eth1".ljust(16, bytes(1)), op=x.NOT_EQUAL) + ACCEPT,
        ),
        ("iif != lo: accept", x.match(IN_NAME, b"lo".ljust(16, bytes(1)), op=x.NOT_EQUAL) + ACCEPT),
        ("…: accept", x.match(IN_NAME, b"a b".ljust(16, bytes(1))) + ACCEPT),
        (
            "ip saddr 10.244.3.0/24: drop",
            x.match(x.IP_SADDR._replace(width=3), bytes([10, 244, 3])) + DROP,
        ),
        (
            "ip saddr != 10.244.3.7/32: drop",
            x.match(x.IP_SADDR, bytes([10, 244, 3, 7]), op=x.NOT_EQUAL) + DROP,
        ),
        ("…: drop", x.match(x.IP_SADDR, bytes(5)) + DROP),
        ("ip saddr != @clients: drop", x.in_set((x.IP_SADDR,), "clients", is_inverted=True) + DROP),
        ("…: drop", x.load(x.IP_SADDR) + x.expression("dynset") + DROP),
        (
            "ip daddr 10.96.7.1/32 iifname @links: drop",
            x.match(x.IP_DADDR, bytes([10, 96, 7, 1])) + x.in_set((IN_NAME,), "links") + DROP,
        ),
        (
            "fib daddr type local meta l4proto tcp: translate",
            x.match(x.DADDR_TYPE, x.LOCAL) + x.TCP + x.redirect(),
        ),
        ("accept", COUNTER + ACCEPT),
        ("notrack", x.expression("notrack")),
        ("notrack", target_ct(b"\1")),
        ("reject", COMMENT + REJECT_OF_XTABLES),
        ("reject", x.reject()),
        ("drop", DROP),
        ("jump zone", x.verdict(x.JUMP, "zone")),
        ("goto zone", x.verdict(x.GOTO, "zone")),
        ("…: accept", x.match(x.MARK, 1, mask=3) + ACCEPT),
        ("…: accept", xtables("match", "mark", struct.pack("=IIB", 1, 3, 1)) + ACCEPT),
        (
            "th dport 22,80-90 th dport != 53: accept",
            xtables("match", "multiport", multiport(22, 80, 90, spans=(0, 1)))
            + xtables("match", "multiport", multiport(53, spans=(), is_inverted=1))
            + ACCEPT,
        ),
        ("queue", xtables("target", "NFQUEUE", bytes(8))),
        ("ct status dnat: accept", TRANSLATED + ACCEPT),
        ("ct status ! dnat: accept", x.match(x.CT_STATUS, 0, mask=x.STATUS_DNAT) + ACCEPT),
        ("ct state new: accept", NEW + ACCEPT),
        ("ct state @states: accept", x.in_set((x.CT_STATE,), "states") + ACCEPT),
        ("ct state @verdicts: vmap", x.load(x.CT_STATE) + VERDICT_MAP),
        (
            "meta l4proto @both th dport 53: accept",
            x.in_set((x.L4PROTO,), "both") + x.match(x.DPORT, 53) + ACCEPT,
        ),
        ("tcp dport 80-90: accept", x.TCP + x.load(x.DPORT) + RANGE + ACCEPT),
        ("tcp dport != 80-90: accept", x.TCP + x.load(x.DPORT) + OUTSIDE + ACCEPT),
        ("…: accept", x.load(x.CT_STATE) + RANGE + ACCEPT),
        ("ct state established,related: accept", conntrack(0b110) + ACCEPT),
        ("ct state established,dnat: accept", conntrack(0b10000010) + ACCEPT),
        ("ct state new: accept", conntrack(1 << 3, flags=0x2001) + ACCEPT),
        *(
            (rule, xtables("match", "addrtype", struct.pack("=HHI", *fields)) + DROP)
            for rule, fields in (
                ("fib daddr type != local: drop", (0, 4, 2)),
                ("…: drop", (4, 4, 0)),
            )
        ),
        ("ct status dnat: accept", conntrack(1 << 7) + ACCEPT),
        ("ct state != established,related: accept", conntrack(0b110, is_inverted=True) + ACCEPT),
        ("ct original ip daddr 10.96.7.1/32: accept", dialled("10.96.7.1", b"\xff") + ACCEPT),
        (
            "ct original ip daddr 10.96.0.0/16 ct original proto-dst 80: accept",
            dialled("10.96.0.0", b"\xff\xff\0", (80, 80)) + ACCEPT,
        ),
        (
            "ct original ip6 daddr fd00:96::/112: accept",
            dialled("fd00:96::", b"\xff" * 14 + b"\0") + ACCEPT,
        ),
        ("…: accept", dialled(ports=(80, 90)) + ACCEPT),
        ("…: accept", dialled("10.96.7.1", b"\xff", is_inverted=True) + ACCEPT),
        ("ct state established,new: accept", ANY_NEW + ACCEPT),
        ("tcp dport 10000-30000: accept", x.TCP + x.within(x.DPORT, 10000, 30000) + ACCEPT),
        ("ip daddr 10.96.0.0/16: accept", x.within(x.IP_DADDR, 0x0A600000, 0x0A60FFFF) + ACCEPT),
        ("…: accept", x.within(x.IP_DADDR, 2, 1) + ACCEPT),
        ("tcp …: drop", x.TCP + x.load(x.DPORT) + x._compare(b"u0", x.AT_LEAST) + DROP),
        ("numgen/hash: drop", HASH_OF_SOURCE + x._compare(bytes(4), x.AT_LEAST) + DROP),
        ("numgen/hash: drop", HASH_OF_SOURCE + x.expression("byteorder") + RANGE + DROP),
        ("numgen/hash: drop", xtables("match", "statistic", bytes(24)) + DROP),
        ("udp dport 53: accept", x.UDP + x.match(x.DPORT, 53) + ACCEPT),
        ("tcp sport 80: accept", x.TCP + x.match(x.SPORT, 80) + ACCEPT),
        (
            "meta nfproto ipv4 ip daddr 10.96.0.0/12: translate",
            x.IPV4 + x.match_network("10.96.0.0/12") + x.redirect(),
        ),
        ("th dport != 9: accept", x.match(x.DPORT, 9, op=x.NOT_EQUAL) + ACCEPT),
        (
            "meta l4proto . th dport @ports ct state new: accept",
            x.in_set((x.L4PROTO, x.DPORT), "ports") + NEW + ACCEPT,
        ),
        ("limit: accept", LIMIT + ACCEPT),
        ("limit: drop", xtables("match", "hashlimit", bytes(96)) + DROP),
        ("limit: drop", x.expression("dynset", attribute(7, text(1, "limit"))) + DROP),
        ("…: drop", x.expression("dynset") + DROP),
        ("tcp flags 2 != 0: accept", x.match(TCP_FLAGS, 0, mask=2, op=x.NOT_EQUAL) + ACCEPT),
        ("tcp flags 255 == 2: accept", x.match(TCP_FLAGS, 2) + ACCEPT),
        ("translate", x.expression("nat", number(1, 1) + number(2, 2))),
        ("snat", x.expression("masq")),
        ("snat", x.expression("nat", number(1, 0) + number(2, 2))),
        ("snat", xtables("target", "SNAT", bytes(8) + bytes([192, 0, 2, 77, 192, 0, 2, 78]))),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_rule_is_parsed_into_its_conditions_and_verdict(expected, rule):
    assert read_rule(rule) == read(expected)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(COUNTER, id="counts"),
        pytest.param(target_ct(b"\0"), id="zone"),
        pytest.param(x.set_bits(x.MARK, 1), id="marks"),
        pytest.param(x.expression("target", text(1, "LOG")), id="logs"),
        pytest.param(x.expression("unheard-of", attribute(1, b"?")), id="newer-kernel"),
    ],
)
def test_a_rule_without_a_verdict_is_skipped(rule):
    assert read_rule(rule) is None
