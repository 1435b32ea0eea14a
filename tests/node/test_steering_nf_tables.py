"""Kernel tables: rules as ``nft`` prints them, reading tables back, and detecting changes."""

from __future__ import annotations

from contextlib import closing
from textwrap import dedent

import pytest
import steering_nodes as nodes

from tests.node.testbed import as_older_nft_prints
from userspace_proxy.kernel.nf_tables import (
    BRIDGE,
    Ruleset,
    TableWriter,
)
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.nf_tables import writer as w
from userspace_proxy.kernel.nf_tables.nft_table import NftTable

pytestmark = pytest.mark.netns
KEY = x.joined(x.IPV4_ADDR, x.INET_PROTO, x.INET_SERVICE)
FRONTEND = (x.IP_DADDR, x.L4PROTO, x.DPORT)
WEB = bytes([10, 96, 7, 1, 6, 0, 0, 0, 0, 80, 0, 0])
PORT = (36001).to_bytes(2, "big")


@pytest.fixture
def node():
    """A node; the test's thread is in its namespace."""
    nodes.need_namespaces()
    net = nodes.Net("node")
    with net:
        yield net
    net.close()


@pytest.fixture
def ruleset(node):
    with Ruleset() as ruleset:
        yield ruleset


def table_with_map() -> TableWriter:
    table = TableWriter("ours")
    table.create()
    table.add_map("frontends", KEY, x.INET_SERVICE)
    return table


RULES = dedent("""\
    table inet ours {
        map frontends {
            type ipv4_addr . inet_proto . inet_service : inet_service
            elements = { 10.96.7.1 . tcp . 80 : 36001 }
        }

        set guarded {
            type inet_proto . inet_service
        }

        set addresses {
            type ipv6_addr
        }

        chain nat {
            type nat hook prerouting priority dstnat - 10; policy accept;
            meta l4proto { tcp, udp } meta nfproto ipv4 redirect to :ip daddr . meta l4proto . th dport map @frontends
            meta l4proto tcp meta nfproto ipv4 dnat ip to 10.1.0.1:ip daddr . meta l4proto . tcp dport map @frontends
        }

        chain filter {
            type filter hook prerouting priority filter; policy accept;
            socket wildcard 1 return
            th dport 61000-65535 meta mark set meta mark | 0x00000040
            meta l4proto udp tproxy to :1
            frag frag-off != 0 return
            tcp flags syn / syn,ack reject with tcp reset
            meta l4proto . th dport != @guarded reject
            ip6 daddr @addresses goto refuse
            ip daddr 10.96.0.0/16 jump refuse
            ip daddr 10.96.0.0/12 drop
            ip6 daddr fd00:96::/108 accept
            udp dport 9 ct status ! dnat
            ct state invalid drop
        }

        chain refuse {
            meta l4proto != { tcp, udp } reject
        }
    }
""")  # noqa: E501 - as nft prints it


@pytest.mark.kernel
def test_nft_lists_written_rules_as_the_golden_text(node, ruleset):
    table = table_with_map()
    table.add_set("guarded", x.joined(x.INET_PROTO, x.INET_SERVICE))
    table.add_set("addresses", x.IPV6_ADDR)
    table.add_base_chain("nat", "nat", w.PREROUTING, -110)
    table.add_base_chain("filter", "filter", w.PREROUTING, 0)
    table.add_chain("refuse")
    to_port = x.IPV4 + x.look_up(FRONTEND, "frontends") + x.redirect()
    table.add_rule("nat", x.one_of(x.L4PROTO, x.INET_PROTO, 6, 17), to_port)
    to_node = x.put(bytes([10, 1, 0, 1])) + x.look_up(FRONTEND, "frontends", 2) + x.dnat(1, 2)
    table.add_rule("nat", x.TCP + x.IPV4 + to_node)
    for rule in (
        x.match(x.SOCKET_WILDCARD, 1) + x.verdict(x.RETURN),
        x.within(x.DPORT, 61000, 65535) + x.set_bits(x.MARK, 0x40),
        x.UDP + x.tproxy(1),
        x.IPV6
        + x.match(x.FRAGMENT, 0, mask=x.FRAGMENT_OFFSET, op=x.NOT_EQUAL)
        + x.verdict(x.RETURN),
        x.TCP + x.match(x.TCP_FLAGS, 2, mask=0x12) + x.reject(with_tcp_reset=True),
        x.in_set((x.L4PROTO, x.DPORT), "guarded", is_inverted=True) + x.reject(),
        x.IPV6 + x.in_set((x.IP6_DADDR,), "addresses") + x.verdict(x.GOTO, "refuse"),
        x.IPV4 + x.match_network("10.96.0.0/16") + x.verdict(x.JUMP, "refuse"),
        x.IPV4 + x.match_network("10.96.0.0/12") + x.verdict(x.DROP),
        x.IPV6 + x.match_network("fd00:96::/108") + x.verdict(x.ACCEPT),
        x.UDP + x.match(x.DPORT, 9) + x.match(x.CT_STATUS, 0, mask=x.STATUS_DNAT),
        x.match(x.CT_STATE, 0, mask=x.STATE_INVALID, op=x.NOT_EQUAL) + x.verdict(x.DROP),
    ):
        table.add_rule("filter", rule)
    table.add_rule("refuse", x.one_of(x.L4PROTO, x.INET_PROTO, 6, 17, is_inverted=True), x.reject())
    table.add_elements("frontends", {WEB: PORT})
    ruleset.commit(table.messages)
    assert as_older_nft_prints(node.run("nft -s list table inet ours").expandtabs(4)) == RULES


@pytest.mark.kernel
@pytest.mark.needs("bridge tables")
def test_a_bridge_table_rewrites_forwarded_frames(node, ruleset):
    table = TableWriter("ours", BRIDGE)
    table.create()
    table.add_base_chain("prerouting", "filter", w.PREROUTING, 10)
    table.add_rule(
        "prerouting",
        x.match(x.MARK, 0x40, mask=0x40),
        x.assign(x.ETHER_DADDR, 0x020000000001) + x.assign(x.PACKET_TYPE, x.THIS_HOST),
    )
    ruleset.commit(table.messages)
    assert node.run("nft list table bridge ours").expandtabs(4) == dedent("""\
        table bridge ours {
            chain prerouting {
                type filter hook prerouting priority 10; policy accept;
                meta mark & 0x00000040 == 0x00000040 ether daddr set 02:00:00:00:00:01 meta pkttype set host
            }
        }
    """)  # noqa: E501


def test_thirty_thousand_elements_are_added_and_removed_in_one_transaction(node, ruleset):
    ruleset.commit(table_with_map().messages)
    many = {number.to_bytes(4, "big") + WEB[4:]: PORT for number in range(30_000)}
    table = TableWriter("ours")
    table.add_elements("frontends", many)
    ruleset.commit(table.messages)
    assert ruleset.elements(w.INET, "ours", "frontends") == many
    table = TableWriter("ours")
    table.delete_elements("frontends", many)
    ruleset.commit(table.messages)
    assert ruleset.elements(w.INET, "ours", "frontends") == {}


@pytest.mark.kernel
def test_a_table_is_read_back_and_differs_after_any_change(node):
    with closing(NftTable("ours")) as table:
        assert table.read() is None
        change = table_with_map()
        change.add_base_chain("input", "filter", w.INPUT, -10)
        change.add_rule("input", x.UDP + x.match(x.DPORT, 9), x.reject())
        change.add_elements("frontends", {WEB: PORT})
        table.write([change.messages])
        listing = table.read()
        assert listing is not None
        assert listing.elements == {"frontends": {WEB: PORT}}
        names = [[expression.name for expression in rule] for rule in listing.rules("input")]
        assert names == [["meta", "cmp", "payload", "cmp", "reject"]]
        before = table.read_definitions()
        for command in (
            "add rule inet ours input counter",
            "add set inet ours more { type mark; }",
            "add chain inet ours more",
            "chain inet ours input { policy drop; }",
        ):
            node.run(f"nft '{command}'")
            assert table.read_definitions() is None
            table.read()
            assert table.read_definitions() != before
            before = table.read_definitions()
