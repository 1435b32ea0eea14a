"""Steering by nftables in real namespaces: the contract, and the table as text."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from textwrap import dedent

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, WEB, WEB_6, AtomicSteeringContract
from steering_traffic import FACTS

from userspace_proxy.errors import SteeringConflict, SteeringError
from userspace_proxy.model import Frontend
from userspace_proxy.steering import REFUSE, Steering, make_steering

pytestmark = pytest.mark.netns
# Another firewall before and after the proxy's, with sets, counters, and a chain of the same name.
FOREIGN = """
    nft '
        table inet firewall {
            set ports { type inet_service; elements = { 22, 443 }; }
            chain prerouting {
                type nat hook prerouting priority -100
                tcp dport 9 redirect to :10
            }
            chain input {
                type filter hook input priority 0
                tcp dport @ports counter accept
            }
        }
        table ip userspace-proxy {
            chain prerouting {
                ip saddr 10.9.9.0/24 return
            }
        }'
    iptables-legacy -t nat -A PREROUTING -s 10.9.9.0/24 -j RETURN"""


@pytest.fixture
def kind():
    return "nftables"


@contextmanager
def no_more_descriptors():
    """Prevent this process from opening sockets, such as that for connection tracking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def last_words_without_net_admin(program: str) -> str:
    """Return the last output line of a Python program that may not change rules."""
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable]
    done = subprocess.run([*command, "-c", program], capture_output=True, text=True)
    return done.stderr.splitlines()[-1]


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

            chain output_ranges {
                type nat hook output priority -108; policy accept;
                meta l4proto { tcp, udp } meta nfproto ipv4 redirect to :ip daddr . meta l4proto . th dport map @ranges4
                meta l4proto { tcp, udp } meta nfproto ipv6 redirect to :ip6 daddr . meta l4proto . th dport map @ranges6
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


@pytest.mark.needs("legacy tables")
async def test_only_the_proxys_own_table_is_changed(node, steering):
    node.run(FOREIGN)
    before = nodes.ruleset(node), nodes.tables(node)
    await steering.apply({WEB: 36001})
    await steering.apply({DNS: 36001})
    node.run("nft flush table inet userspace-proxy")
    assert await steering.repair() > 0
    await steering.clean_up()
    assert (nodes.ruleset(node), nodes.tables(node)) == before


@pytest.mark.parametrize(
    ("command", "drifted"),
    [
        pytest.param("flush chain inet userspace-proxy prerouting", 2, id="chain-flushed"),
        pytest.param("insert rule inet userspace-proxy output return", 1, id="rule-added"),
        pytest.param("add chain inet userspace-proxy more", 1, id="chain-added"),
        pytest.param("flush map inet userspace-proxy frontends4", 2, id="map-flushed"),
        pytest.param("flush set inet userspace-proxy guarded", 2, id="guard-flushed"),
        pytest.param(
            "delete element inet userspace-proxy frontends4 { 10.96.7.1 . tcp . 80 }",
            1,
            id="element-removed",
        ),
        pytest.param(
            "add element inet userspace-proxy frontends4 { 10.96.9.9 . tcp . 80 : 1 }",
            1,
            id="element-added",
        ),
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


@pytest.mark.needs("legacy tables")
async def test_changes_of_other_tables_are_not_drift(node, steering):
    await steering.apply({WEB: 36001})
    node.run(FOREIGN)
    before = nodes.ruleset(node)
    assert await steering.repair() == 0
    assert nodes.ruleset(node) == before


async def test_a_change_tolerates_elements_removed_or_replaced_by_another_program(node, steering):
    await steering.apply({WEB: 36001, DNS: 36002})
    node.run(
        "nft 'delete element inet userspace-proxy frontends4 { 10.96.7.1 . tcp . 80 };"
        "add element inet userspace-proxy frontends4 { 10.96.7.2 . tcp . 80 : 6666 }'"
    )
    await steering.apply({CART: 36003, DNS: 36002})
    assert await steering.render() == "TCP 10.96.7.2:80 -> :36003\nUDP 10.96.0.10:53 -> :36002"
    assert await steering.repair() == 0


async def test_a_change_rewrites_no_rules(node, steering):
    """A rewritten rule would have a new handle."""
    await steering.apply({WEB: 36001, DNS: 36002})
    before = node.run("nft -a list chains; nft -a list chain inet userspace-proxy prerouting")
    await steering.apply({WEB: 36003, CART: REFUSE})
    after = node.run("nft -a list chains; nft -a list chain inet userspace-proxy prerouting")
    assert "# handle" in after
    assert after == before


async def test_a_change_skips_the_conntrack_search_and_a_failed_search_is_retried(steering):
    await steering.apply({WEB: 36001})
    with no_more_descriptors():
        await steering.change({DNS: 36002}, ())
        await steering.forget_stale()
        with pytest.raises(SteeringError, match="cannot remove conntrack entries"):
            await steering.repair()
    assert await steering.repair() == 0
    assert await steering.render() == "TCP 10.96.7.1:80 -> :36001\nUDP 10.96.0.10:53 -> :36002"


@pytest.mark.kernel
@pytest.mark.needs("table owner")
async def test_a_table_owned_by_another_program_is_a_conflict(node):
    steering = make_steering("nftables", FACTS)
    with nodes.owned_table("userspace-proxy"):
        with pytest.raises(SteeringConflict, match="another program owns it"):
            await steering.start()
        with pytest.raises(SteeringError):
            await steering.apply({WEB: 36001})
    await steering.close()


async def test_a_missing_privilege_is_reported_in_one_line(node):
    program = dedent("""
        import asyncio
        from userspace_proxy.steering import SteeringFacts, make_steering
        asyncio.run(make_steering("nftables", SteeringFacts(refuse_port=35999)).start())
    """)
    assert last_words_without_net_admin(program) == (
        "userspace_proxy.errors.SteeringError: cannot query nftables: Operation not permitted "
        "(run as root or grant NET_ADMIN, or run with --steering=none)"
    )
