"""Steering by nftables in real namespaces: the contract, and the table as text."""

from __future__ import annotations

from textwrap import dedent

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, WEB, WEB_6, AtomicSteeringContract
from steering_traffic import FACTS

from userspace_proxy.model import Frontend
from userspace_proxy.steering import REFUSE, Steering, make_steering

pytestmark = pytest.mark.netns


@pytest.fixture
def kind():
    return "nftables"


class TestNftablesSteering(AtomicSteeringContract):
    @pytest.fixture
    def steerings(self, node):
        self.node = node
        return lambda: make_steering("nftables", FACTS)

    def in_force(self) -> str:
        return nodes.ruleset(self.node)

    def obstacle(self, _frontend: Frontend):
        return nodes.refused_transactions()

    def break_it(self, steering: Steering) -> None:
        self.node.run("nft flush ruleset")


TABLE_OF_A_NODE = dedent("""\
        table inet userspace-proxy {
            map frontends4 {
                type ipv4_addr . inet_proto . inet_service : inet_service
                elements = {
                    10.96.0.10 . udp . 53 : 36002
                    10.96.7.1 . tcp . 80 : 36001
                    10.96.7.2 . tcp . 80 : 35999
                }
            }

            map ranges4 {
                type ipv4_addr . inet_proto . inet_service : inet_service
                flags interval
            }

            set cluster_ips4 {
                type ipv4_addr
                elements = {
                    10.96.0.10
                    10.96.7.1
                    10.96.7.2
                }
            }

            set other_ports4 {
                type ipv4_addr . inet_proto . inet_service
                size 1024
                flags dynamic,timeout
            }

            map frontends6 {
                type ipv6_addr . inet_proto . inet_service : inet_service
                elements = {
                    fd00:96::1 . tcp . 80 : 36001
                }
            }

            map ranges6 {
                type ipv6_addr . inet_proto . inet_service : inet_service
                flags interval
            }

            set cluster_ips6 {
                type ipv6_addr
                elements = {
                    fd00:96::1
                }
            }

            set other_ports6 {
                type ipv6_addr . inet_proto . inet_service
                size 1024
                flags dynamic,timeout
            }

            set guarded {
                type inet_proto . inet_service
                elements = {
                    tcp . 36001
                    udp . 36002
                }
            }

            chain prerouting {
                type nat hook prerouting priority dstnat - 10; policy accept;
                meta l4proto { tcp, udp } meta nfproto ipv4 redirect to :ip daddr . meta l4proto . th dport map @frontends4
                meta l4proto { tcp, udp } meta nfproto ipv6 redirect to :ip6 daddr . meta l4proto . th dport map @frontends6
            }

            chain output {
                type nat hook output priority -110; policy accept;
                meta l4proto { tcp, udp } meta nfproto ipv4 redirect to :ip daddr . meta l4proto . th dport map @frontends4
                meta l4proto { tcp, udp } meta nfproto ipv6 redirect to :ip6 daddr . meta l4proto . th dport map @frontends6
            }

            chain prerouting_ranges {
                type nat hook prerouting priority dstnat - 8; policy accept;
                meta l4proto { tcp, udp } meta nfproto ipv4 redirect to :ip daddr . meta l4proto . th dport map @ranges4
                meta l4proto { tcp, udp } meta nfproto ipv6 redirect to :ip6 daddr . meta l4proto . th dport map @ranges6
            }

            chain prerouting_others {
                type nat hook prerouting priority dstnat + 10; policy accept;
                meta l4proto { tcp, udp } ip daddr @cluster_ips4 update @other_ports4 { ip daddr . meta l4proto . th dport timeout 1m counter }
                meta l4proto { tcp, udp } ip daddr @cluster_ips4 redirect to :35999
                meta l4proto { tcp, udp } ip6 daddr @cluster_ips6 update @other_ports6 { ip6 daddr . meta l4proto . th dport timeout 1m counter }
                meta l4proto { tcp, udp } ip6 daddr @cluster_ips6 redirect to :35999
            }

            chain output_ranges {
                type nat hook output priority -108; policy accept;
                meta l4proto { tcp, udp } meta nfproto ipv4 redirect to :ip daddr . meta l4proto . th dport map @ranges4
                meta l4proto { tcp, udp } meta nfproto ipv6 redirect to :ip6 daddr . meta l4proto . th dport map @ranges6
            }

            chain output_others {
                type nat hook output priority -90; policy accept;
                meta l4proto { tcp, udp } ip daddr @cluster_ips4 update @other_ports4 { ip daddr . meta l4proto . th dport timeout 1m counter }
                meta l4proto { tcp, udp } ip daddr @cluster_ips4 redirect to :35999
                meta l4proto { tcp, udp } ip6 daddr @cluster_ips6 update @other_ports6 { ip6 daddr . meta l4proto . th dport timeout 1m counter }
                meta l4proto { tcp, udp } ip6 daddr @cluster_ips6 redirect to :35999
            }

            chain input {
                type filter hook input priority filter - 10; policy accept;
                tcp flags syn / syn,ack meta l4proto . tcp dport @guarded ct status ! dnat reject with tcp reset
                meta l4proto . udp dport @guarded ct status ! dnat reject
                tcp flags syn / syn,ack meta l4proto . tcp dport @guarded socket transparent 0 reject
                meta l4proto . udp dport @guarded socket transparent 0 reject
                tcp flags syn / syn,ack tcp dport 35999 ct status dnat socket transparent 0 reject
                udp dport 35999 ct status dnat reject
            }
        }
    """)  # noqa: E501


@pytest.mark.kernel
async def test_the_nftables_table_matches_the_golden_text(node, steering):
    await steering.apply({WEB: 36001, CART: REFUSE, DNS: 36002, WEB_6: 36001})
    assert nodes.ruleset(node) == TABLE_OF_A_NODE


@pytest.mark.parametrize(
    ("command", "drifted"),
    [
        pytest.param("flush chain inet userspace-proxy prerouting", 2, id="chain-flushed"),
        pytest.param("flush set inet userspace-proxy guarded", 2, id="guard-flushed"),
        pytest.param(
            "delete element inet userspace-proxy frontends4 { 10.96.7.1 . tcp . 80 };"
            "add element inet userspace-proxy frontends4 { 10.96.7.1 . tcp . 80 : 6666 }",
            1,
            id="element-changed",
        ),
    ],
)
async def test_drift_is_counted_in_elements_and_lines(node, steering, command, drifted):
    await steering.apply({WEB: 36001, DNS: 36002})
    before = nodes.ruleset(node)
    node.run(f"nft '{command}'")
    assert await steering.repair() == drifted
    assert nodes.ruleset(node) == before
    assert await steering.repair() == 0
