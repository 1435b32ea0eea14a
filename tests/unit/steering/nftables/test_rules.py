"""Rule text as golden strings, and the way there and back of elements."""

from __future__ import annotations

from collections import Counter
from textwrap import dedent

import pytest

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.nftables.rules import (
    Shape,
    all_elements,
    count_uses,
    differing_elements,
    differing_frontends,
    frontend_element,
    read_listing,
    read_ports,
    write_changes,
    write_prerouting,
    write_table,
)

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
DNS = Frontend("10.96.0.10", 53, Protocol.UDP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
REFUSE_PORT = 35999
SHAPE = Shape("userspace-proxy", REFUSE_PORT)
PORTS = {WEB: 36001, CART: REFUSE_PORT, DNS: 36002, WEB_6: 36001}
# As libnftables 1.0.6 prints it, with protocols as numbers.
LISTING = dedent("""\
    table inet userspace-proxy {
    \tmap frontends4 {
    \t\ttype ipv4_addr . inet_proto . inet_service : inet_service
    \t\telements = { 10.96.7.1 . 6 . 80 : 36001,
    \t\t\t     10.96.0.10 . 17 . 53 : 36002 }
    \t}

    \tmap frontends6 {
    \t\ttype ipv6_addr . inet_proto . inet_service : inet_service
    \t}

    \tset guarded {
    \t\ttype inet_proto . inet_service
    \t\telements = { 6 . 36001,
    \t\t\t     17 . 36002 }
    \t}

    \tchain prerouting {
    \t\ttype nat hook prerouting priority dstnat - 10; policy accept;
    \t\tmeta l4proto { 6, 17 } dnat ip to 10.1.0.1:ip daddr . th dport map @frontends4
    \t}

    \tchain output {
    \t\ttype nat hook output priority -110; policy accept;
    \t\tmeta l4proto { 6, 17 } redirect to :ip daddr . meta l4proto . th dport map @frontends4
    \t\tmeta l4proto { 6, 17 } redirect to :ip6 daddr . meta l4proto . th dport map @frontends6
    \t}

    \tchain input {
    \t\ttype filter hook input priority filter - 10; policy accept;
    \t\tudp dport 35999 ct status dnat reject
    \t}
    }
""")


def test_the_table_as_text():
    assert write_table(SHAPE).expandtabs(4) == dedent("""\
        add table inet userspace-proxy
        delete table inet userspace-proxy
        table inet userspace-proxy {
            map frontends4 {
                type ipv4_addr . inet_proto . inet_service : inet_service
            }
            map frontends6 {
                type ipv6_addr . inet_proto . inet_service : inet_service
            }
            set guarded {
                type inet_proto . inet_service
            }
            chain prerouting {
                type nat hook prerouting priority -110
                meta l4proto { tcp, udp } redirect to : ip daddr . meta l4proto . th dport map @frontends4
                meta l4proto { tcp, udp } redirect to : ip6 daddr . meta l4proto . th dport map @frontends6
            }
            chain output {
                type nat hook output priority -110
                meta l4proto { tcp, udp } redirect to : ip daddr . meta l4proto . th dport map @frontends4
                meta l4proto { tcp, udp } redirect to : ip6 daddr . meta l4proto . th dport map @frontends6
            }
            chain input {
                type filter hook input priority -10
                tcp flags & (syn | ack) == syn meta l4proto . th dport @guarded ct status & dnat == 0 reject with tcp reset
                meta l4proto udp meta l4proto . th dport @guarded ct status & dnat == 0 reject
                udp dport 35999 ct status dnat reject
            }
        }""")  # noqa: E501


def test_without_a_refuse_port_nothing_is_refused_there():
    assert "udp dport" not in write_table(SHAPE._replace(refuse_port=0))


def test_while_an_interface_has_no_address_ipv4_goes_to_the_nodes():
    flush, to_node, redirect = write_prerouting(SHAPE._replace(to_ip="10.1.0.1")).splitlines()
    add = "add rule inet userspace-proxy prerouting meta l4proto { tcp, udp }"
    port = "daddr . meta l4proto . th dport map"
    assert flush == "flush chain inet userspace-proxy prerouting"
    assert to_node == f"{add} dnat ip to 10.1.0.1 : ip {port} @frontends4"
    assert redirect == f"{add} redirect to : ip6 {port} @frontends6"


def test_all_elements_go_in_by_three_commands_the_guard_first():
    changes = differing_elements({}, all_elements(PORTS, REFUSE_PORT))
    assert write_changes("userspace-proxy", changes) == [
        "add element inet userspace-proxy guarded { 6 . 36001, 17 . 36002 }",
        "add element inet userspace-proxy frontends4 { 10.96.7.1 . 6 . 80 : 36001, "
        "10.96.7.2 . 6 . 80 : 35999, 10.96.0.10 . 17 . 53 : 36002 }",
        "add element inet userspace-proxy frontends6 { fd00:96::1 . 6 . 80 : 36001 }",
    ]


@pytest.mark.parametrize(
    ("touched", "commands"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param(
            {WEB: 36005},
            [
                "delete element inet t frontends4 { 10.96.7.1 . 6 . 80 : 36001 }",
                "add element inet t guarded { 6 . 36005 }",
                "add element inet t frontends4 { 10.96.7.1 . 6 . 80 : 36005 }",
            ],
            id="another-port-while-the-old-one-is-in-use",
        ),
        pytest.param(
            {DNS: REFUSE_PORT},
            [
                "delete element inet t frontends4 { 10.96.0.10 . 17 . 53 : 36002 }",
                "delete element inet t guarded { 17 . 36002 }",
                "add element inet t frontends4 { 10.96.0.10 . 17 . 53 : 35999 }",
            ],
            id="no-endpoint-left",
        ),
        pytest.param(
            {WEB: None, WEB_6: None},
            [
                "delete element inet t frontends4 { 10.96.7.1 . 6 . 80 : 36001 }",
                "delete element inet t frontends6 { fd00:96::1 . 6 . 80 : 36001 }",
                "delete element inet t guarded { 6 . 36001 }",
            ],
            id="both-families-gone",
        ),
        pytest.param(
            {WEB: None, CART: 36001},
            [
                "delete element inet t frontends4 "
                "{ 10.96.7.1 . 6 . 80 : 36001, 10.96.7.2 . 6 . 80 : 35999 }",
                "add element inet t frontends4 { 10.96.7.2 . 6 . 80 : 36001 }",
            ],
            id="a-port-that-another-takes-over",
        ),
    ],
)
def test_a_difference_as_text(touched, commands):
    uses = count_uses(PORTS, REFUSE_PORT)
    changes, uses_now = differing_frontends(PORTS, touched, uses, REFUSE_PORT)
    assert write_changes("t", changes) == commands
    after = {f: p for f, p in (PORTS | touched).items() if p is not None}
    assert +Counter(uses | uses_now) == count_uses(after, REFUSE_PORT)


def test_a_listing_is_its_rules_and_its_elements():
    listing = read_listing(LISTING)
    assert listing.elements == {
        "frontends4": {"10.96.7.1 . 6 . 80": "36001", "10.96.0.10 . 17 . 53": "36002"},
        "frontends6": {},
        "guarded": {"6 . 36001": "", "17 . 36002": ""},
    }
    assert "10.96" not in listing.rules
    assert "36001" not in listing.rules
    assert "{ 6, 17 } redirect" in listing.rules


def test_a_listing_tells_what_whoever_wrote_it_knew():
    listing = read_listing(LISTING)
    assert (listing.refuse_port(), listing.to_ip()) == (35999, "10.1.0.1")
    empty = read_listing("table inet userspace-proxy {\n}\n")
    assert (empty.refuse_port(), empty.to_ip(), read_ports(empty.elements)) == (0, "", {})


def test_a_map_steers_where_both_nat_chains_look_it_up():
    listing = read_listing(LISTING)
    assert listing.is_looked_up("frontends4")
    assert not listing.is_looked_up("frontends6")


def test_ports_come_back_from_elements():
    assert read_ports(all_elements(PORTS, REFUSE_PORT)) == PORTS


@pytest.mark.parametrize(
    "element",
    [
        pytest.param({"10.96.7.1 . 132 . 80": "36001"}, id="another-protocol"),
        pytest.param({'10.96.7.1 . 6 . 80 comment "a': "b"}, id="a-comment"),
        pytest.param({"10.96.7.1": "36001"}, id="another-type"),
    ],
)
def test_elements_that_we_would_never_write_are_passed_over(element):
    assert read_ports({"frontends4": element}) == {}


def test_ipv6_addresses_are_written_as_the_kernels_tools_print_them():
    assert frontend_element(Frontend("::ffff:a00:1", 80, Protocol.TCP)) == (
        "frontends6",
        "::ffff:10.0.0.1 . 6 . 80",
    )


def test_differing_elements_are_counted_once():
    have = {"frontends4": {"a": "1", "b": "2", "c": "3"}}
    want = {"frontends4": {"a": "1", "b": "9", "d": "4"}, "frontends6": {}, "guarded": {}}
    changes = differing_elements(have, want)
    assert changes.count() == 3
    assert changes.gone == {"frontends4": {"b": "2", "c": "3"}}
    assert changes.come == {"frontends4": {"b": "9", "d": "4"}}
