from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.steering.iptables.nat import (
    LAY_OUT_ABOVE,
    NatChains,
    all_rules,
    reached_rules,
    rules_among,
)
from userspace_proxy.steering.iptables.rules import OUT, PRE, NatRule

WEB = NatRule("tcp", "10.96.7.1", 80, 36001)
CART = NatRule("tcp", "10.96.7.2", 80, 36002)
NODE = "192.0.2.1"
MANY = [NatRule("tcp", f"10.96.{i >> 4}.{i & 15}", 80, 36000 + i) for i in range(400)]


def as_text(layout: NatChains) -> str:
    return "".join(
        f"-A {chain} {line}\n" for chain, lines in layout.chains.items() for line in lines
    )


def test_few_rules_are_in_the_two_chains_to_which_the_built_in_ones_jump():
    assert as_text(NatChains(4, [CART, WEB])) == dedent("""\
        -A UPROXY-PRE -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001
        -A UPROXY-PRE -d 10.96.7.2/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36002
        -A UPROXY-OUT -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001
        -A UPROXY-OUT -d 10.96.7.2/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36002
    """)


def test_prerouting_leads_to_an_address_where_one_is_needed():
    assert as_text(NatChains(4, [WEB], NODE)) == dedent("""\
        -A UPROXY-PRE -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.1:36001
        -A UPROXY-OUT -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001
    """)  # noqa: E501


def test_without_rules_both_chains_are_there():
    assert NatChains(4).chains == {PRE: (), OUT: ()}


@pytest.mark.parametrize(("to_ip", "sides"), [("", {"O"}), (NODE, {"O", "P"})])
def test_many_rules_are_a_tree_for_each_side_that_differs(to_ip, sides):
    layout = NatChains(4, MANY, to_ip)
    assert {chain.removeprefix("UPROXY-")[0] for chain in layout.chains if len(chain) > 11} == sides
    assert set(all_rules(layout.chains)) >= set(MANY)
    found = reached_rules(layout.chains)
    assert sorted(found[OUT]) == sorted(MANY)
    assert sorted(rule._replace(to_ip="") for rule in found[PRE]) == sorted(MANY)
    assert {rule.to_ip for rule in found[PRE]} == {to_ip}


@pytest.mark.parametrize("to_ip", ["", NODE])
@given(
    before=st.sets(st.sampled_from(MANY), max_size=60),
    after=st.sets(st.sampled_from(MANY), max_size=60),
)
def test_a_change_leads_to_the_same_chains_as_a_new_layout(to_ip, before, after):
    layout = NatChains(4, before, to_ip)
    layout.change(before - after, after - before)
    assert layout.chains == NatChains(4, after, to_ip).chains


def test_a_change_of_much_does_so_too():
    layout = NatChains(4, MANY)
    moved = [rule._replace(to_port=1) for rule in MANY[: LAY_OUT_ABOVE // 2]]
    gone = MANY[: LAY_OUT_ABOVE // 2 + 10]
    layout.change(gone, moved)
    kept = MANY[len(gone) :]
    assert layout.chains == NatChains(4, [*moved, *kept]).chains


def test_chains_that_were_handed_out_stay_as_they_were():
    layout = NatChains(4, [WEB])
    before = layout.chains
    layout.change((), [CART])
    assert before == NatChains(4, [WEB]).chains


def test_a_rule_that_a_jump_does_not_lead_to_is_in_force_nowhere():
    chains = {
        PRE: ("-d 10.96.8.0/24 -j UPROXY-O1abcd", str(CART)),
        OUT: (),
        "UPROXY-O1abcd": (str(WEB), "-j RETURN"),
    }
    assert reached_rules(chains) == {PRE: [CART], OUT: []}
    assert all_rules(chains) == [CART, WEB]


def test_lines_that_are_no_rules_are_passed_over():
    assert rules_among(["-j RETURN", str(WEB), f"{WEB} --random"]) == [WEB]
