"""Steering by iptables in real namespaces: the contract, and the rules as text."""

from __future__ import annotations

from textwrap import dedent

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, WEB, AtomicSteeringContract
from steering_traffic import FACTS, MANY, TREE, TREE_6

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import REFUSE, Steering, SteeringFacts, make_steering
from userspace_proxy.steering.iptables.helper import FULL_COMPARISON_EVERY

pytestmark = [pytest.mark.netns, pytest.mark.needs("legacy tables")]


@pytest.fixture
def kind():
    return "iptables"


@pytest.mark.long
class TestIptablesSteering(AtomicSteeringContract):
    @pytest.fixture
    def steerings(self, node, lock_file, monkeypatch):
        self.node, self.lock_file, self.monkeypatch = node, lock_file, monkeypatch
        # Tables that existed before the test stay afterwards.
        nodes.tables(node)
        return lambda: make_steering("iptables", FACTS)

    def in_force(self) -> str:
        return nodes.tables(self.node)

    def obstacle(self, _frontend: Frontend):
        return nodes.unusable_lock(self.lock_file)

    def break_it(self, steering: Steering) -> None:
        self.node.run("iptables-legacy -t nat -F; ip6tables-legacy -t nat -F")


@pytest.mark.kernel
async def test_the_iptables_rules_match_the_golden_text(node, steering):
    await steering.apply({WEB: 36001, CART: REFUSE, DNS: 36002})
    assert nodes.tables(node) == dedent("""\
        *nat
        :PREROUTING ACCEPT
        :INPUT ACCEPT
        :OUTPUT ACCEPT
        :POSTROUTING ACCEPT
        :UPROXY-OUT -
        :UPROXY-PRE -
        -A PREROUTING -m comment --comment userspace-proxy -j UPROXY-PRE
        -A OUTPUT -m comment --comment userspace-proxy -j UPROXY-OUT
        -A UPROXY-OUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 36002
        -A UPROXY-OUT -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001
        -A UPROXY-OUT -d 10.96.7.2/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 35999
        -A UPROXY-PRE -d 10.96.0.10/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 36002
        -A UPROXY-PRE -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001
        -A UPROXY-PRE -d 10.96.7.2/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 35999
        COMMIT
        *filter
        :INPUT ACCEPT
        :FORWARD ACCEPT
        :OUTPUT ACCEPT
        :UPROXY-TCP -
        :UPROXY-UDP -
        -A INPUT -p tcp -m tcp --dport 35999:36999 -j UPROXY-TCP
        -A INPUT -p udp -m udp --dport 35999:36999 -j UPROXY-UDP
        -A UPROXY-TCP -p tcp -m tcp ! --tcp-flags SYN,ACK SYN -j ACCEPT
        -A UPROXY-TCP -p tcp -m conntrack --ctstate DNAT -m socket --transparent --nowildcard -j ACCEPT
        -A UPROXY-TCP -p tcp -m multiport --dports 36001 -m conntrack --ctstate DNAT -m socket --nowildcard -j REJECT --reject-with icmp-port-unreachable
        -A UPROXY-TCP -p tcp -m multiport --dports 36001 -m conntrack --ctstate DNAT -j ACCEPT
        -A UPROXY-TCP -p tcp -m multiport --dports 36001 -j REJECT --reject-with tcp-reset
        -A UPROXY-TCP -p tcp -m tcp --dport 35999 -m conntrack --ctstate DNAT -m socket --nowildcard -j REJECT --reject-with icmp-port-unreachable
        -A UPROXY-TCP -p tcp -m tcp --dport 35999 -m conntrack --ctstate DNAT -j ACCEPT
        -A UPROXY-UDP -p udp -m multiport --dports 36002 -m conntrack --ctstate DNAT -m socket --transparent --nowildcard -j ACCEPT
        -A UPROXY-UDP -p udp -m multiport --dports 36002 -j REJECT --reject-with icmp-port-unreachable
        -A UPROXY-UDP -p udp -m udp --dport 35999 -m conntrack --ctstate DNAT -j REJECT --reject-with icmp-port-unreachable
        COMMIT
    """)  # noqa: E501


@pytest.mark.parametrize(
    ("command", "drifted"),
    [
        pytest.param("iptables-legacy -t nat -F UPROXY-PRE", 2, id="chain-flushed"),
        pytest.param("iptables-legacy -t nat -A UPROXY-OUT -j RETURN", 1, id="rule-added"),
        pytest.param("iptables-legacy -F UPROXY-TCP", 7, id="guard-flushed"),
        pytest.param("iptables-legacy -F INPUT", 2, id="both-guard-jumps-removed"),
        pytest.param(
            "iptables-legacy -t nat -F; iptables-legacy -t nat -X", 6, id="everything-of-nat-gone"
        ),
    ],
)
async def test_drift_is_counted_per_rule(node, steering, command, drifted):
    await steering.apply({WEB: 36001, DNS: 36002})
    before = nodes.tables(node)
    node.run(command)
    assert await steering.repair() == drifted
    assert sorted(nodes.tables(node).splitlines()) == sorted(before.splitlines())
    assert await steering.repair() == 0


@pytest.mark.parametrize(
    ("chain", "drifted"), [("-t nat -I PREROUTING", 1), ("-t nat -I OUTPUT", 1), ("-I INPUT", 2)]
)
async def test_the_proxys_rule_is_moved_before_a_newly_inserted_rule_only_once(
    node, steering, chain, drifted
):
    await steering.apply({WEB: 36001})
    node.run(f"iptables-legacy {chain} -d 10.96.0.0/16 -j RETURN")
    assert await steering.repair() == drifted
    last = node.run(f"iptables-legacy {chain.replace('-I', '-S')}").splitlines()[-1]
    assert last.endswith("-d 10.96.0.0/16 -j RETURN")
    # A program that inserts its rule again does so on purpose.
    node.run(f"iptables-legacy {chain} -d 10.96.0.0/16 -j RETURN")
    before = nodes.tables(node)
    assert await steering.repair() == 0
    assert nodes.tables(node) == before


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("-F; iptables-legacy -t nat -X", id="everything-gone"),
        pytest.param("-F {chain}; {jump}; iptables-legacy -t nat -X {chain}", id="chain-deleted"),
    ],
)
async def test_a_chain_tree_damaged_by_another_program_is_repaired(node, steering, command):
    await steering.apply(TREE)
    before = nodes.tables(node)
    rule = node.run("iptables-legacy -t nat -S | grep -e '-A UPROXY-O.* -j UPROXY-O' | tail -1")
    chain = rule.split()[-1]
    jump = f"iptables-legacy -t nat {rule.strip().replace('-A', '-D')}"
    node.run(f"iptables-legacy -t nat {command.format(chain=chain, jump=jump)}")
    assert nodes.tables(node) != before
    assert await steering.repair() > 0
    assert sorted(nodes.tables(node).splitlines()) == sorted(before.splitlines())
    assert await steering.repair() == 0


@pytest.mark.kernel
async def test_rules_are_written_as_iptables_save_prints_them(node, steering):
    await steering.apply(MANY | TREE_6 | {CART: REFUSE, DNS: 36002})
    assert not any([await steering.repair() for _ in range(FULL_COMPARISON_EVERY)])
    node_ports = {Frontend(nodes.NODE_IP, port, Protocol.TCP): port for port in range(0, 65535, 60)}
    node_ports |= {
        Frontend(nodes.NODE_IP6, port, Protocol.UDP): port for port in range(30000, 32768, 9)
    }
    node_ports.pop(Frontend(nodes.NODE_IP, 0, Protocol.TCP))
    await steering.apply(node_ports)
    assert not any([await steering.repair() for _ in range(FULL_COMPARISON_EVERY)])


async def test_a_single_port_guard_is_written_as_iptables_save_prints_it(node):
    steering = make_steering("iptables", SteeringFacts(refuse_port=35888))
    await steering.apply({CART: REFUSE})
    assert not any([await steering.repair() for _ in range(FULL_COMPARISON_EVERY)])
    await steering.close()
