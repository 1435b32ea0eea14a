"""Local steering in a real namespace: the contract, its routes and its table."""

from __future__ import annotations

import errno
import subprocess
import sys
from contextlib import contextmanager
from textwrap import dedent

import pytest
import steering_nodes as nodes
from steering_contract import CART, WEB, WEB_6, SelectiveSteeringContract
from steering_traffic import CANARY, FRONTENDS, NODE, RANGES, in_force, our_routes

from userspace_proxy.kernel.offers import KernelOffers
from userspace_proxy.model import Frontend
from userspace_proxy.steering import REFUSE, Steering, SteeringFacts, make_steering
from userspace_proxy.steering.local import LocalSteering
from userspace_proxy.steering.names import owner_number

pytestmark = pytest.mark.netns
WITHOUT = KernelOffers({"nf_tables": errno.EPROTONOSUPPORT})


class TestInANamespaceOfOurs(SelectiveSteeringContract):
    facts = RANGES
    breaking = "ip route flush table local proto 117"

    def make(self) -> Steering:
        return LocalSteering(self.facts, own_namespace=True)

    @pytest.fixture
    def steerings(self, node):
        self.node = node
        return self.make

    def in_force(self) -> str:
        return in_force(self.node)

    def recovers(self, ports: dict[Frontend, int]) -> dict[Frontend, int]:
        return {frontend: frontend.port for frontend, port in ports.items() if port}

    @contextmanager
    def refusal(self, frontend: Frontend):
        metric = owner_number(self.facts.proxy_name)
        route = f"unreachable {frontend.ip} table local proto static metric {metric}"
        self.node.run(f"ip route add {route}")
        yield
        self.node.run(f"ip route del {route}")

    def break_it(self, steering: Steering) -> None:
        self.node.run(self.breaking)


@pytest.mark.long
class TestInANamespaceOfOursWithoutRanges(TestInANamespaceOfOurs):
    facts = SteeringFacts()


@pytest.mark.long
class TestInANamespaceOfOursWithoutNftables(TestInANamespaceOfOurs):
    def make(self) -> Steering:
        return LocalSteering(self.facts, own_namespace=True, kernel=WITHOUT)

    def recovers(self, ports: dict[Frontend, int]) -> dict[Frontend, int]:
        return {}


class TestOnANode(TestInANamespaceOfOurs):
    facts = NODE

    def make(self) -> Steering:
        return LocalSteering(self.facts)


@pytest.mark.long
class TestOnANodeWithoutTheTable(TestOnANode):
    breaking = "nft delete table inet userspace-proxy/local"


@pytest.mark.long
class TestOfAProxyWithAName(TestOnANode):
    facts = CANARY


async def test_only_addresses_with_frontends_are_routed_to_the_node(node):
    steering = LocalSteering(SteeringFacts(RANGES.service_cidrs))
    own = Frontend(nodes.NODE_IP, 30080, WEB.protocol)
    loopback = Frontend("127.0.0.9", 80, WEB.protocol)
    await steering.apply({WEB: 80, CART: REFUSE, WEB_6: 80, own: 30080, loopback: 80})
    assert our_routes(node) == (
        "local 10.96.7.1 dev lo scope host src 10.1.0.1 \n"
        "local 10.96.7.2 dev lo scope host src 10.1.0.1 \n"
        "local fd00:96::1 dev lo src fd00:1::1 metric 1024 pref medium\n"
    )
    assert "127.0.0.9:80" in await steering.render()
    assert "10.1.0.1:30080" in await steering.render()
    await steering.close()


TABLE = dedent("""\
    table inet userspace-proxy/local {
        set addresses4 {
            type ipv4_addr
            elements = {
                10.96.0.10
                10.96.7.1
                10.96.7.2
            }
        }

        set addresses6 {
            type ipv6_addr
            elements = {
                fd00:96::1
                fd00:96::a
            }
        }

        set frontends4 {
            type ipv4_addr . inet_proto . inet_service
            elements = {
                10.96.0.10 . udp . 53
                10.96.7.1 . tcp . 80
            }
        }

        set frontends6 {
            type ipv6_addr . inet_proto . inet_service
            elements = {
                fd00:96::1 . tcp . 80
                fd00:96::a . udp . 53
            }
        }

        chain guard {
            frag frag-off != 0 accept
            tcp flags syn / syn,ack ip daddr . meta l4proto . tcp dport != @frontends4 reject with tcp reset
            tcp flags syn / syn,ack ip6 daddr . meta l4proto . tcp dport != @frontends6 reject with tcp reset
            tcp flags syn / syn,ack socket transparent 0 reject
            ip daddr . meta l4proto . udp dport != @frontends4 reject
            ip6 daddr . meta l4proto . udp dport != @frontends6 reject
            meta l4proto udp socket transparent 0 reject
            meta l4proto != { icmp, tcp, udp, ipv6-icmp } reject
        }

        chain input {
            type filter hook input priority filter - 10; policy accept;
            ip daddr @addresses4 goto guard
            ip6 daddr @addresses6 goto guard
        }
    }
    """)  # noqa: E501 - as nft prints it


async def test_the_nftables_table_matches_the_golden_text(node):
    steering = LocalSteering(NODE)
    await steering.apply(FRONTENDS)
    assert nodes.ruleset(node) == TABLE
    await steering.close()


async def test_a_range_is_routed_with_the_nodes_address_as_source(node):
    facts = SteeringFacts(RANGES.service_cidrs, node_addresses=("192.0.2.9", nodes.NODE_IP))
    steering = make_steering("local", facts, own_namespace=True)
    await steering.apply({WEB: 80})
    assert our_routes(node) == (
        "local 10.96.0.0/16 dev lo scope host src 10.1.0.1 \n"
        "local fd00:96::/112 dev lo src fd00:1::1 metric 1024 pref medium\n"
    )
    assert not nodes.can_dial(node, "10.96.99.99", 80)
    await steering.close()


async def test_routes_are_restored_after_their_source_address_is_replaced(node):
    """The kernel removes IPv4 routes together with their source address, without an event."""
    steering = LocalSteering(SteeringFacts())
    await steering.apply({WEB: 80})
    node.run("ip address add 10.5.0.77/24 dev pod0; ip address del 10.1.0.1/24 dev pod0")
    assert await steering.repair() > 0
    assert "src 10.5.0.77" in our_routes(node)
    await steering.close()


NOBODY = """
import asyncio, sys
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import SteeringFacts, make_steering

async def main():
    steering = make_steering("local", SteeringFacts())
    await steering.start()
    await steering.apply({Frontend(ip, 8080, Protocol.TCP): 8080 for ip in sys.argv[1:]})
    print(await steering.render())
    print(*steering.unsteered.values(), sep="\\n", file=sys.stderr, end="")
    await steering.clean_up()
    await steering.close()

asyncio.run(main())
"""


def as_nobody(*ips: str) -> subprocess.CompletedProcess[str]:
    """Steer TCP port 8080 of these addresses in a process without capabilities."""
    nobody = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable)
    return subprocess.run([*nobody, "-c", NOBODY, *ips], capture_output=True, text=True)


def test_loopback_and_node_addresses_require_no_capability(node):
    done = as_nobody("127.0.0.9", nodes.NODE_IP)
    assert done.stderr == ""
    assert done.stdout == "TCP 10.1.0.1:8080 -> :8080\nTCP 127.0.0.9:8080 -> :8080\n"


def test_without_net_admin_only_frontends_on_loopback_addresses_are_served(node):
    done = as_nobody(WEB.ip, "127.0.0.9")
    assert done.stdout == "TCP 127.0.0.9:8080 -> :8080\n"
    assert done.stderr == (
        "cannot route 10.96.7.1/32 to this node: NET_ADMIN is missing "
        "(run as root or grant NET_ADMIN; loopback addresses need nothing)"
    )
