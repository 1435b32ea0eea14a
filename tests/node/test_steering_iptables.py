"""Steering by iptables in real namespaces: the contract, and the rules as text."""

from __future__ import annotations

from textwrap import dedent

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, WEB, WEB_6, AtomicSteeringContract
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


async def test_only_the_proxys_own_chains_are_changed(node, steering):
    foreign = """
        iptables-legacy -t nat -N OTHERS
        iptables-legacy -t nat -A OTHERS -p tcp --dport 1:99 -j RETURN
        iptables-legacy -t nat -A PREROUTING -j OTHERS
        iptables-legacy -A INPUT -p icmp -m limit --limit 1/s -j ACCEPT
        iptables-legacy -P FORWARD DROP
        iptables-legacy -t mangle -A FORWARD -j MARK --set-mark 1"""
    node.run(foreign)
    before = nodes.tables(node)
    await steering.apply({WEB: 36001})
    await steering.apply({DNS: 36001})
    await steering.clean_up()
    assert nodes.tables(node) == before


@pytest.mark.parametrize(
    ("command", "drifted"),
    [
        pytest.param("iptables-legacy -t nat -F UPROXY-PRE", 2, id="chain-flushed"),
        pytest.param("iptables-legacy -t nat -D UPROXY-OUT 1", 1, id="rule-removed"),
        pytest.param("iptables-legacy -t nat -D PREROUTING 1", 1, id="jump-removed"),
        pytest.param("iptables-legacy -t nat -A OUTPUT -j UPROXY-OUT", 1, id="jump-doubled"),
        pytest.param("iptables-legacy -t nat -A UPROXY-OUT -j RETURN", 1, id="rule-added"),
        pytest.param("iptables-legacy -D UPROXY-UDP 1", 1, id="guard-rule-removed"),
        pytest.param("iptables-legacy -F UPROXY-TCP", 7, id="guard-flushed"),
        pytest.param("iptables-legacy -D INPUT 1", 1, id="guard-jump-removed"),
        pytest.param("iptables-legacy -F INPUT", 2, id="both-guard-jumps-removed"),
        pytest.param(
            "iptables-legacy -I INPUT -p tcp -j UPROXY-TCP", 1, id="a-jump-without-a-range"
        ),
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
    ("program", "frontend"),
    [
        pytest.param("iptables-legacy", WEB, id="IPv4"),
        pytest.param("ip6tables-legacy", WEB_6, id="IPv6"),
    ],
)
async def test_a_full_comparison_detects_a_replaced_rule_of_the_same_size(
    node, steering, program, frontend
):
    await steering.apply({frontend: 36001})
    save = f"{program}-save -t nat | grep UPROXY"
    before = node.run(save)
    node.run(
        f"{program} -t nat -R UPROXY-PRE 1 -d {frontend.ip} -p tcp --dport 80"
        " -j REDIRECT --to-ports 6666"
    )
    drifted = [await steering.repair() for _ in range(FULL_COMPARISON_EVERY)]
    assert drifted == [0] * (FULL_COMPARISON_EVERY - 1) + [2]
    assert node.run(save) == before


@pytest.mark.parametrize(
    ("chain", "drifted"), [("-t nat -I PREROUTING", 1), ("-t nat -I OUTPUT", 1), ("-I INPUT", 2)]
)
async def test_a_rule_inserted_before_the_proxys_rule_is_overtaken_only_once(
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


async def test_a_change_removes_a_rule_that_another_program_replaced(node, steering):
    await steering.apply({WEB: 36001, DNS: 36002})
    node.run(
        "iptables-legacy -t nat -R UPROXY-PRE 1 -d 10.96.7.1 -p tcp --dport 80"
        " -j REDIRECT --to-ports 6666"
    )
    await steering.apply({DNS: 36002})
    assert "6666" not in nodes.tables(node)
    assert await steering.render() == "UDP 10.96.0.10:53 -> :36002"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("-F", id="everything-flushed"),
        pytest.param("-F; iptables-legacy -t nat -X", id="everything-gone"),
        pytest.param("-F {chain}", id="chain-flushed"),
        pytest.param("-F {chain}; {jump}; iptables-legacy -t nat -X {chain}", id="chain-deleted"),
        pytest.param("-A {chain} -j RETURN", id="rule-added"),
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


async def test_only_changed_chains_of_a_tree_are_written(node, steering):
    await steering.apply(TREE)
    before = set(node.run("iptables-legacy -t nat -S").splitlines())
    await steering.change({Frontend("10.96.6.2", 53, Protocol.UDP): 36500}, ())
    after = set(node.run("iptables-legacy -t nat -S").splitlines())
    assert before <= after
    (rule,) = after - before
    assert rule.endswith("-d 10.96.6.2/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 36500")


async def test_the_flat_chains_of_an_earlier_version_are_read_and_replaced(node, steering):
    rules = "\n".join(
        f"-A UPROXY-{chain} -d {f.ip}/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports {port}"
        for chain in ("PRE", "OUT")
        for f, port in TREE.items()
    )
    node.run(f"""iptables-legacy-restore --noflush <<'END'
*nat
:UPROXY-PRE -
:UPROXY-OUT -
{rules}
-A PREROUTING -m comment --comment userspace-proxy -j UPROXY-PRE
-A OUTPUT -m comment --comment userspace-proxy -j UPROXY-OUT
COMMIT
END""")
    assert await steering.start() == TREE
    await steering.apply(TREE)
    assert len(node.run("iptables-legacy -t nat -S UPROXY-PRE").splitlines()) < 20
    assert len((await steering.render()).splitlines()) == len(TREE)
    await steering.clean_up()
    assert "UPROXY" not in nodes.tables(node)


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


@pytest.mark.long
async def test_with_ten_thousand_services_a_packet_traverses_a_few_dozen_rules(cluster, steering):
    many = {
        Frontend(f"10.96.{i >> 8}.{i & 255}", 80, Protocol.TCP): 36001 for i in range(0, 60_000, 6)
    }
    await steering.apply(many)
    with nodes.proxy_listener(cluster.node, 36001):
        for frontend in list(many)[::3333]:
            cluster.node.run("iptables-legacy -t nat -Z")
            assert nodes.can_dial(cluster.node, frontend.ip, 80)
            assert walked(cluster.node) <= 40


def walked(node: nodes.Net) -> int:
    """Return how many of the proxy's rules the only packet since the counters' reset met."""
    met, place = 0, {}
    for line in node.run("iptables-legacy-save -c -t nat").splitlines():
        if line.startswith("["):
            counters, _, chain, *_ = line.split()
            place[chain] = place.get(chain, 0) + 1
            if chain.startswith("UPROXY-") and counters.startswith("[1:"):
                met += place[chain]
    assert met
    return met
