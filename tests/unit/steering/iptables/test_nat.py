"""The chains of the nat table: their layout, changes, and how many rules a packet traverses."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.steering.iptables.nat import (
    LAY_OUT_ABOVE,
    LEAF,
    ROOT,
    ChainLine,
    Line,
    NatChains,
    Tree,
    all_rules,
    reached_rules,
)
from userspace_proxy.steering.iptables.rules import OUT, PRE, Jump, NatRule

WEB = NatRule("tcp", "10.96.7.1", 80, 36001)
CART = NatRule("tcp", "10.96.7.2", 80, 36002)
NODE = "192.0.2.1"
MANY = [NatRule("tcp", f"10.96.{i >> 4}.{i & 15}", 80, 36000 + i) for i in range(400)]
# One address has more rules than an undivided chain may have.
MANY_RANGES = [
    NatRule("tcp", f"10.96.{i % 9}.1", 1 + i, 37000 + i, last=9 + i) for i in range(0, 4000, 10)
]


def as_text(layout: NatChains) -> str:
    return "".join(
        f"-A {chain} {line}\n" for chain, lines in layout.chains.items() for line in lines
    )


def test_a_few_rules_fit_in_the_first_two_nat_chains():
    assert as_text(NatChains(4, [CART, WEB])) == dedent("""\
        -A UPROXY-PRE -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001
        -A UPROXY-PRE -d 10.96.7.2/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36002
        -A UPROXY-OUT -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001
        -A UPROXY-OUT -d 10.96.7.2/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36002
    """)


def test_rules_for_port_ranges_follow_rules_for_single_ports():
    passive = NatRule("tcp", WEB.ip, 1, 36003, last=30100)
    layout = NatChains(4, [passive, WEB])
    expected = {chain: (str(WEB), str(passive)) for chain in (PRE, OUT)}
    assert layout.chains == expected
    layout.change([WEB], [CART])
    assert layout.chains == NatChains(4, [passive, CART]).chains
    layout.change([passive], [passive._replace(last=30200)])
    assert layout.chains == NatChains(4, [passive._replace(last=30200), CART]).chains


def test_both_nat_chains_exist_and_are_empty_without_rules():
    assert NatChains(4).chains == {PRE: (), OUT: ()}


@pytest.mark.parametrize(
    ("many", "to_ip", "sides"),
    [
        (MANY, "", {"O"}),
        (MANY, NODE, {"O", "P"}),
        (MANY_RANGES, "", {"R"}),
        (MANY_RANGES, NODE, {"R", "Q"}),
        (MANY + MANY_RANGES, NODE, {"O", "P", "R", "Q"}),
    ],
)
def test_many_nat_rules_form_a_tree_per_address_translation_and_kind_of_port(many, to_ip, sides):
    layout = NatChains(4, many, to_ip)
    assert {chain.removeprefix("UPROXY-")[0] for chain in layout.chains if len(chain) > 11} == sides
    assert set(all_rules(layout.chains)) >= set(many)
    found = reached_rules(layout.chains)
    assert sorted(found[OUT]) == sorted(many)
    assert sorted(rule._replace(to_ip="") for rule in found[PRE]) == sorted(many)
    assert {rule.to_ip for rule in found[PRE]} == {to_ip}


@pytest.mark.parametrize("to_ip", ["", NODE])
@given(
    before=st.sets(st.sampled_from(MANY + MANY_RANGES), max_size=60),
    after=st.sets(st.sampled_from(MANY + MANY_RANGES), max_size=60),
)
def test_a_change_yields_the_same_chains_as_a_new_layout(to_ip, before, after):
    layout = NatChains(4, before, to_ip)
    layout.change(before - after, after - before)
    assert layout.chains == NatChains(4, after, to_ip).chains


def test_a_large_change_yields_the_same_chains_as_a_new_layout():
    layout = NatChains(4, MANY)
    moved = [rule._replace(to_port=1) for rule in MANY[: LAY_OUT_ABOVE // 2]]
    gone = MANY[: LAY_OUT_ABOVE // 2 + 10]
    layout.change(gone, moved)
    kept = MANY[len(gone) :]
    assert layout.chains == NatChains(4, [*moved, *kept]).chains


def test_a_later_change_does_not_modify_returned_chains():
    layout = NatChains(4, [WEB])
    before = layout.chains
    layout.change((), [CART])
    assert before == NatChains(4, [WEB]).chains


def test_an_unreachable_rule_does_not_count_as_active():
    chains = {
        PRE: ("-d 10.96.8.0/24 -j UPROXY-O1abcd", str(CART)),
        OUT: (),
        "UPROXY-O1abcd": (str(WEB), "-j RETURN"),
    }
    assert reached_rules(chains) == {PRE: [CART], OUT: []}
    assert all_rules(chains) == [CART, WEB]


DICE = random.Random(6)
SERVICES = [
    NatRule("tcp", f"10.96.{number >> 8}.{number & 255}", 80, 36001)
    for number in DICE.sample(range(1 << 16), 10_000)
]
SERVICES_6 = [
    NatRule("tcp", f"fd00:96::{number:x}", 80, 36001)
    for number in DICE.sample(range(1, 1 << 16), 10_000)
]
NODE_PORTS = [
    NatRule(protocol, "192.0.2.1", port, 36001)
    for port in range(30000, 32768)
    for protocol in ("tcp", "udp")
]
EXTERNAL = [
    NatRule("tcp", ".".join(str(DICE.randrange(1, 224)) for _ in range(4)), 443, 36001)
    for _ in range(10_000)
]
EXTERNAL_6 = [
    NatRule("tcp", f"2001:db8:{DICE.randrange(1 << 16):x}::{host:x}", 443, 36001)
    for _ in range(500)
    for host in range(1, 21)
]
POD = NatRule("tcp", "10.244.3.4", 8080, 0)
POD_6 = NatRule("tcp", "fd00:244::4", 8080, 0)


def by_chain(lines: Iterable[ChainLine]) -> Mapping[str, Sequence[Line]]:
    found = defaultdict(list)
    for chain, line in lines:
        found[chain].append(line)
    return found


def walked(tree: Mapping[str, Sequence[Line]], packet: NatRule) -> tuple[int, bool]:
    """Traverse the rules; return how many were compared, and whether one matched the packet."""
    met = 0
    ways = [iter(tree.get(ROOT, ()))]
    while ways:
        for line in ways[-1]:
            met += 1
            if not isinstance(line, Jump):
                if line.frontend == packet.frontend:
                    return met, True
            elif line.covers(packet):
                ways.append(iter(tree[line.chain]))
                break
        else:
            ways.pop()
    return met, False


@pytest.mark.parametrize(
    ("version", "rules", "longest"),
    [
        pytest.param(4, SERVICES, 36, id="services-of-a-16"),
        pytest.param(6, SERVICES_6, 36, id="services-of-a-112"),
        pytest.param(4, [*NODE_PORTS, *SERVICES], 40, id="node-ports-on-one-address"),
        pytest.param(4, EXTERNAL, 36, id="addresses-from-anywhere"),
        pytest.param(6, EXTERNAL_6, 52, id="ipv6-addresses-of-many-networks"),
    ],
)
def test_a_packet_traverses_at_most_a_few_dozen_rules(version, rules, longest):
    tree = by_chain(Tree(version, rules).lines())
    walks = [walked(tree, rule) for rule in rules[::7]]
    assert all(is_taken for _, is_taken in walks)
    assert max(met for met, _ in walks) <= longest


@pytest.mark.parametrize(
    ("version", "rules", "packet"),
    [pytest.param(4, SERVICES, POD, id="ipv4"), pytest.param(6, SERVICES_6, POD_6, id="ipv6")],
)
def test_a_packet_to_another_address_is_compared_with_only_one_rule(version, rules, packet):
    assert walked(by_chain(Tree(version, rules).lines()), packet) == (1, False)


def test_a_tree_branches_by_network_prefix_and_then_by_port_range():
    dns = NatRule("udp", "10.96.0.10", 53, 36002)
    many = [NatRule("tcp", "10.96.7.1", port, 36001) for port in range(8000, 8000 + LEAF)]
    root, first, second, *others = list(Tree(4, [*many, dns]).lines())
    assert f"{root[0]}: {root[1]}" == ": -d 10.96.0.0/20 -j a6cmj"
    assert first == ("a6cmj", dns)
    assert f"{second[0]}: {second[1]}" == (
        "a6cmj: -d 10.96.7.1/32 -p tcp -m tcp --dport 8000:8015 -j nf7aq"
    )
    assert others == [("nf7aq", rule) for rule in many]


def random_rule(version: int) -> NatRule:
    ips = {
        4: [f"10.96.0.{DICE.randrange(60)}", "192.0.2.1", f"{DICE.randrange(1, 200)}.1.1.1"],
        6: [f"fd00::{DICE.randrange(1, 300):x}", f"2001:{DICE.randrange(1, 99):x}::1", "fd00::1"],
    }
    port = DICE.randrange(1, DICE.choice([5, 1 << 16]))
    return NatRule(
        DICE.choice(["tcp", "udp"]), DICE.choice(ips[version]), port, DICE.randrange(36001, 36004)
    )


@pytest.mark.parametrize("version", [4, 6])
def test_a_changed_tree_equals_a_newly_built_tree(version):
    tree, rules, places = Tree(version), {}, set()
    for _ in range(400):
        gone = DICE.sample(sorted(rules), min(len(rules), DICE.randrange(4)))
        for frontend in gone:
            del rules[frontend]
        come = {rule.frontend: rule for rule in map(random_rule, [version] * DICE.randrange(6))}
        rules |= come
        change = tree.change(gone, come.values())
        assert change.removed <= places
        assert not change.added & places
        places = places - change.removed | change.added
        assert places == set(Tree(version, rules.values()).lines())


def test_a_new_target_of_a_rule_changes_a_single_line():
    tree = Tree(4, SERVICES)
    renewed = SERVICES[0]._replace(to_port=35999)
    change = tree.change([], [renewed])
    assert [line for _, line in change.removed] == [SERVICES[0]]
    assert [line for _, line in change.added] == [renewed]


def test_removing_a_nonexistent_rule_is_not_an_error():
    assert not any(Tree(4, SERVICES[:3]).change([POD.frontend], []))
