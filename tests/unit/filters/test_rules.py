"""Rules in words; tests/node/test_check.py has those that ``nft`` and ``iptables-nft`` make."""

import ipaddress
import struct
import sys

import pytest

from tests.unit.filters.written import nft
from userspace_proxy.filters.rules import read_step
from userspace_proxy.kernel.netlink.messages import attribute, number, text
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.nf_tables.reader import ListedRule

ACCEPT = x.verdict(x.ACCEPT)
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
OPEN = "ct state established,related"


def xtables(kind, name, data):
    """Return a match or target of iptables."""
    return x.expression(kind, text(1, name) + attribute(3, data))


def multiport(*ports, spans):
    """Return xt_multiport_v1; ``spans`` has a 1 for each port that is the first of a span."""
    fields = (*ports, *(0,) * (15 - len(ports)), *spans, *(0,) * (15 - len(spans)))
    return struct.pack("=BB15H15BB", 1, len(ports), *fields, 0)


def conntrack(states, *, is_inverted=False):
    """Return iptables' match ``conntrack --ctstate``; see xt_conntrack_mtinfo3."""
    data = bytes(146) + struct.pack("=3H", 1, int(is_inverted), states) + bytes(10)
    return x.expression("match", text(1, "conntrack") + attribute(3, data))


def dialled(address="", mask=b"", ports=(), *, is_inverted=False):
    """Return iptables' match ``conntrack --ctorigdst --ctorigdstport``."""
    packed = ipaddress.ip_address(address).packed.ljust(16, bytes(1)) if address else bytes(16)
    flags = (bool(address) << 3) | (bool(ports) << 9)
    first, last = ports or (0, 0)
    data = struct.pack("=32x16s16s76xH4x", packed, mask.ljust(16, mask[-1:] or bytes(1)), first)
    data += struct.pack("=3H", flags, int(is_inverted) << 3, 0) + struct.pack("=4xH4x", last)
    return x.expression("match", text(1, "conntrack") + attribute(3, data))


def read_rule(*parts):
    return read_step(ListedRule("", b"".join(parts)).expressions())


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param(ACCEPT, nft("accept"), id="everything"),
        pytest.param(VERDICT_MAP, nft("vmap", "…"), id="verdict-of-a-map"),
        pytest.param(
            x.IPV4 + x.in_set((x.IP_DADDR, x.DPORT), "services") + x.redirect(),
            nft("translate", "meta nfproto ipv4 ip daddr . th dport @services"),
            id="address-in-a-set",
        ),
        pytest.param(
            x.IPV4 + x.match(x.IP_DADDR, bytes(4), op=x.NOT_EQUAL) + x.redirect(),
            nft("translate", "meta nfproto ipv4 ip daddr != 0.0.0.0/32"),
            id="any-other-address",
        ),
        pytest.param(
            x.match(BEYOND_DADDR, bytes([10, 0, 0, 1, 1, 2, 3, 4])) + x.verdict(x.DROP),
            nft("drop", "…daddr"),
            id="more-than-an-address",
        ),
        pytest.param(x.match(x.L4PROTO, b"") + ACCEPT, nft("accept", "…"), id="without-a-value"),
        pytest.param(
            x.TCP + x.in_set((x.DPORT,), "web") + x.redirect(),
            nft("translate", "tcp dport @web"),
            id="port-in-a-set",
        ),
        pytest.param(
            x.TCP + x.in_set((x.DPORT,), "web", is_inverted=True) + ACCEPT,
            nft("accept", "tcp dport != @web"),
            id="port-not-in-a-set",
        ),
        pytest.param(
            x.TCP + x.look_up((x.DPORT,), "web") + x.redirect(),
            nft("translate", "meta l4proto tcp …dport"),
            id="port-in-a-map",
        ),
        pytest.param(
            x.match(x.ORIGINAL_IP_DADDR, bytes([10, 96, 7, 1])) + x.verdict(x.DROP),
            nft("drop", "ct original ip daddr 10.96.7.1/32"),
            id="dialled-address",
        ),
        pytest.param(
            x.match(x.ORIGINAL_IP6_DADDR, bytes(16)) + x.verdict(x.DROP),
            nft("drop", "ct original ip6 daddr ::/128"),
            id="dialled-address-6",
        ),
        pytest.param(
            x.match(x.ORIGINAL_DPORT, 80) + x.verdict(x.DROP),
            nft("drop", "ct original proto-dst 80"),
            id="dialled-port",
        ),
        pytest.param(
            x.match(x.IN_LINK, (1).to_bytes(4, sys.byteorder)) + ACCEPT,
            nft("accept", "iif lo"),
            id="loopback-by-number",
        ),
        pytest.param(
            x.match(IN_NAME, b"lo".ljust(16, bytes(1))) + ACCEPT,
            nft("accept", "iif lo"),
            id="loopback-by-name",
        ),
        pytest.param(
            x.match(x._meta(7, 16), b"lo".ljust(16, bytes(1))) + ACCEPT,
            nft("accept", "oif lo"),
            id="out-by-loopback",
        ),
        pytest.param(
            x.match(IN_NAME._replace(width=2), b"lo") + ACCEPT,
            nft("accept", "iifname lo*"),
            id="names-that-begin-so",
        ),
        pytest.param(
            x.match(x.IN_LINK, (2).to_bytes(4, sys.byteorder)) + ACCEPT,
            nft("accept", "iif 2"),
            id="another-interface",
        ),
        pytest.param(
            x.match(IN_NAME, b"eth1".ljust(16, bytes(1)), op=x.NOT_EQUAL) + ACCEPT,
            nft("accept", "iifname != eth1"),
            id="not-this-interface",
        ),
        pytest.param(
            x.match(IN_NAME, b"lo".ljust(16, bytes(1)), op=x.NOT_EQUAL) + ACCEPT,
            nft("accept", "iif != lo"),
            id="not-loopback",
        ),
        pytest.param(
            x.match(IN_NAME, b"a b".ljust(16, bytes(1))) + ACCEPT,
            nft("accept", "…saddr"),
            id="a-name-with-a-space",
        ),
        pytest.param(
            x.match(x.IP_SADDR._replace(width=3), bytes([10, 244, 3])) + x.verdict(x.DROP),
            nft("drop", "ip saddr 10.244.3.0/24"),
            id="source",
        ),
        pytest.param(
            x.match(x.IP_SADDR, bytes([10, 244, 3, 7]), op=x.NOT_EQUAL) + x.verdict(x.DROP),
            nft("drop", "ip saddr != 10.244.3.7/32"),
            id="not-this-source",
        ),
        pytest.param(
            x.match(x.IP_SADDR, bytes(5)) + x.verdict(x.DROP),
            nft("drop", "…"),
            id="more-than-a-source",
        ),
        pytest.param(
            x.in_set((x.IP_SADDR,), "clients", is_inverted=True) + x.verdict(x.DROP),
            nft("drop", "ip saddr != @clients"),
            id="source-not-in-a-set",
        ),
        pytest.param(
            x.load(x.IP_SADDR) + x.expression("dynset") + x.verdict(x.DROP),
            nft("drop", "…"),
            id="limit-of-each-source",
        ),
        pytest.param(
            x.match(x.IP_DADDR, bytes([10, 96, 7, 1]))
            + x.in_set((IN_NAME,), "links")
            + x.verdict(x.DROP),
            nft("drop", "ip daddr 10.96.7.1/32 iifname @links"),
            id="interface-in-a-set",
        ),
        pytest.param(
            x.match(x.DADDR_TYPE, x.LOCAL) + x.TCP + x.redirect(),
            nft("translate", "fib daddr type local meta l4proto tcp"),
            id="addresses-of-this-node",
        ),
        pytest.param(COUNTER + ACCEPT, nft("accept"), id="counted"),
        pytest.param(x.expression("notrack"), nft("notrack"), id="not-tracked"),
        pytest.param(target_ct(b"\1"), nft("notrack"), id="not-tracked-by-xtables"),
        pytest.param(COMMENT + REJECT_OF_XTABLES, nft("reject"), id="xtables-reject"),
        pytest.param(x.reject(), nft("reject"), id="reject"),
        pytest.param(x.verdict(x.DROP), nft("drop"), id="drop"),
        pytest.param(x.verdict(x.JUMP, "zone"), nft("jump zone"), id="jump"),
        pytest.param(x.verdict(x.GOTO, "zone"), nft("goto zone"), id="goto"),
        pytest.param(x.match(x.MARK, 1, mask=3) + ACCEPT, nft("accept", "…"), id="mark"),
        pytest.param(
            xtables("match", "mark", struct.pack("=IIB", 1, 3, 1)) + ACCEPT,
            nft("accept", "…"),
            id="xtables-mark",
        ),
        pytest.param(
            xtables("match", "multiport", multiport(22, 80, 90, spans=(0, 1))) + ACCEPT,
            nft("accept", "th dport 22,80-90"),
            id="xtables-ports",
        ),
        pytest.param(
            xtables("target", "NFQUEUE", bytes(8)), nft("queue"), id="another-program-decides"
        ),
        pytest.param(TRANSLATED + ACCEPT, nft("accept", "ct status dnat"), id="translated"),
        pytest.param(
            x.match(x.CT_STATUS, 0, mask=x.STATUS_DNAT) + ACCEPT,
            nft("accept", "ct status ! dnat"),
            id="not-translated",
        ),
        pytest.param(NEW + ACCEPT, nft("accept", "ct state new"), id="new"),
        pytest.param(
            x.in_set((x.CT_STATE,), "states") + ACCEPT,
            nft("accept", "ct state @states"),
            id="states-in-a-set",
        ),
        pytest.param(
            x.load(x.CT_STATE) + VERDICT_MAP, nft("vmap", "ct state @verdicts"), id="state-map"
        ),
        pytest.param(
            x.in_set((x.L4PROTO,), "both") + x.match(x.DPORT, 53) + ACCEPT,
            nft("accept", "meta l4proto @both th dport 53"),
            id="protocols-in-a-set",
        ),
        pytest.param(
            x.TCP + x.load(x.DPORT) + RANGE + ACCEPT,
            nft("accept", "tcp dport 80-90"),
            id="range-of-xtables",
        ),
        pytest.param(
            x.TCP + x.load(x.DPORT) + OUTSIDE + ACCEPT,
            nft("accept", "tcp dport != 80-90"),
            id="outside-a-range",
        ),
        pytest.param(
            x.load(x.CT_STATE) + RANGE + ACCEPT, nft("accept", "…state"), id="range-of-states"
        ),
        pytest.param(conntrack(0b110) + ACCEPT, nft("accept", OPEN), id="xtables-states"),
        pytest.param(
            conntrack(0b10000010) + ACCEPT,
            nft("accept", "ct state established,dnat"),
            id="xtables-states-and-translated",
        ),
        pytest.param(
            conntrack(1 << 7) + ACCEPT, nft("accept", "ct status dnat"), id="xtables-translated"
        ),
        pytest.param(
            conntrack(0b110, is_inverted=True) + ACCEPT,
            nft("accept", "ct state != established,related"),
            id="xtables-other-states",
        ),
        pytest.param(
            dialled("10.96.7.1", b"\xff") + ACCEPT,
            nft("accept", "ct original ip daddr 10.96.7.1/32"),
            id="xtables-dialled",
        ),
        pytest.param(
            dialled("10.96.0.0", b"\xff\xff\0", (80, 80)) + ACCEPT,
            nft("accept", "ct original ip daddr 10.96.0.0/16 ct original proto-dst 80"),
            id="xtables-dialled-network-and-port",
        ),
        pytest.param(
            dialled("fd00:96::", b"\xff" * 14 + b"\0") + ACCEPT,
            nft("accept", "ct original ip6 daddr fd00:96::/112"),
            id="xtables-dialled-network-6",
        ),
        pytest.param(
            dialled(ports=(80, 90)) + ACCEPT, nft("accept", "…"), id="xtables-dialled-ports"
        ),
        pytest.param(
            dialled("10.96.7.1", b"\xff", is_inverted=True) + ACCEPT,
            nft("accept", "…conntrack"),
            id="xtables-not-dialled",
        ),
        pytest.param(ANY_NEW + ACCEPT, nft("accept", "ct state established,new"), id="states"),
        pytest.param(
            x.TCP + x.within(x.DPORT, 10000, 30000) + ACCEPT,
            nft("accept", "tcp dport 10000-30000"),
            id="ports",
        ),
        pytest.param(
            x.within(x.IP_DADDR, 0x0A600000, 0x0A60FFFF) + ACCEPT,
            nft("accept", "ip daddr 10.96.0.0/16"),
            id="addresses",
        ),
        pytest.param(
            x.within(x.IP_DADDR, 2, 1) + ACCEPT, nft("accept", "…daddr"), id="no-addresses"
        ),
        pytest.param(
            x.within(x.CT_STATE, 1, 2) + ACCEPT, nft("accept", "…state"), id="span-of-states"
        ),
        pytest.param(
            x.UDP + x.match(x.DPORT, 53) + ACCEPT, nft("accept", "udp dport 53"), id="port"
        ),
        pytest.param(
            x.within(x.DPORT, 1, 2) + ACCEPT, nft("accept", "th dport 1-2"), id="any-protocol"
        ),
        pytest.param(
            x.TCP + x.match(x.SPORT, 80) + ACCEPT, nft("accept", "tcp sport 80"), id="source-port"
        ),
        pytest.param(
            x.within(x.SPORT, 1, 2) + ACCEPT, nft("accept", "th sport 1-2"), id="source-ports"
        ),
        pytest.param(
            x.IPV4 + x.match_network("10.96.0.0/12") + x.redirect(),
            nft("translate", "meta nfproto ipv4 ip daddr 10.96.0.0/12"),
            id="a-range-is-translated",
        ),
        pytest.param(
            x.match(x.DPORT, 9, op=x.NOT_EQUAL) + ACCEPT,
            nft("accept", "th dport != 9"),
            id="any-other-port",
        ),
        pytest.param(
            x.in_set((x.L4PROTO, x.DPORT), "ports") + NEW + ACCEPT,
            nft("accept", "meta l4proto . th dport @ports ct state new"),
            id="set",
        ),
        pytest.param(LIMIT + ACCEPT, nft("accept", "…"), id="limit"),
        pytest.param(x.expression("connlimit") + ACCEPT, nft("accept", "…"), id="connections"),
        pytest.param(
            x.match(TCP_FLAGS, 0, mask=2, op=x.NOT_EQUAL) + ACCEPT,
            nft("accept", "tcp flags 2 != 0"),
            id="syn",
        ),
        pytest.param(
            x.match(TCP_FLAGS, 2) + ACCEPT, nft("accept", "tcp flags 255 == 2"), id="only-syn"
        ),
    ],
)
def test_a_rule_is_its_condition_and_its_verdict(rule, expected):
    assert read_rule(rule) == expected


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(COUNTER, id="counts"),
        pytest.param(target_ct(b"\0"), id="zone"),
        pytest.param(x.set_bits(x.MARK, 1), id="marks"),
        pytest.param(x.expression("masq"), id="masquerades"),
        pytest.param(x.expression("nat", number(1, 0) + number(2, 2)), id="source-nat"),
        pytest.param(x.expression("target", text(1, "LOG")), id="logs"),
        pytest.param(x.expression("unheard-of", attribute(1, b"?")), id="newer-kernel"),
    ],
)
def test_a_rule_without_a_verdict_is_no_step(rule):
    assert read_rule(rule) is None
