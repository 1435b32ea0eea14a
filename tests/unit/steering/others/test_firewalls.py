"""Which chain of others drops what is steered to the proxy."""

from dataclasses import replace

import pytest

from tests.unit.chains.rules import nft
from userspace_proxy.kernel.nf_tables.chains import Chain, ChainTable
from userspace_proxy.model import IPFamily
from userspace_proxy.steering.others import Firewall, find_firewalls

LEGACY_FILTER = ChainTable("ip", "filter", is_legacy=True)
FILTER = ChainTable("ip", "filter")
INPUT = Chain(FILTER, "INPUT", "filter", "input", policy="drop")
PORTS = (17000, 29999)


def test_a_chain_that_drops_is_reported_with_the_rule_that_admits():
    tables = {INPUT.table: {INPUT.name: INPUT}}
    assert find_firewalls(tables, {}, "nftables", PORTS) == [
        Firewall(
            "ip filter INPUT",
            "its policy is drop",
            "nft insert rule ip filter INPUT ct status dnat accept; "
            "nft insert rule ip filter INPUT ct state established,related accept",
            IPFamily.IPV4,
        )
    ]


def test_names_of_others_are_quoted_in_a_rule():
    chain = replace(INPUT, table=ChainTable("ip", "$(a)"), name="b c")
    (found,) = find_firewalls({chain.table: {chain.name: chain}}, {}, "nftables", PORTS)
    assert found.hint.startswith("nft insert rule ip '$(a)' 'b c' ct status dnat accept; ")


@pytest.mark.parametrize(
    ("table", "family"),
    [
        (ChainTable("ip6", "x"), IPFamily.IPV6),
        (ChainTable("inet", "x"), None),
        (LEGACY_FILTER, IPFamily.IPV4),
    ],
)
def test_a_chain_has_the_family_of_the_packets_that_it_drops(table, family):
    chain = replace(INPUT, table=table)
    (found,) = find_firewalls({table: {chain.name: chain}}, {}, "nftables", PORTS)
    assert found.family is family


def test_without_steering_no_firewall_is_reported():
    assert find_firewalls({INPUT.table: {INPUT.name: INPUT}}, {}, "none", PORTS) == []


def test_this_proxys_legacy_chains_accept_clients_and_not_replies():
    opens = nft("accept", "ct state established,related")
    legacy = Chain(LEGACY_FILTER, "INPUT", "filter", "input", policy="drop")
    tables = {legacy.table: {legacy.name: legacy}}
    assert [f.hint for f in find_firewalls({}, tables, "iptables", PORTS)] == [
        "iptables-legacy -I INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    ]
    tables = {legacy.table: {legacy.name: replace(legacy, steps=(opens,))}}
    assert find_firewalls({}, tables, "iptables", PORTS) == []
    assert [f.chain for f in find_firewalls({}, tables, "nftables", PORTS)] == [str(legacy)]


CHAINS = {
    "zone": Chain(FILTER, "zone", steps=(nft("accept", "tcp dport 22"), nft("drop"))),
    "back": Chain(FILTER, "back", steps=(nft("return"), nft("drop"))),
    "loop": Chain(FILTER, "loop", steps=(nft("jump loop"),)),
}


def why(*steps, policy="accept"):
    """Return why first packets are dropped; answers are admitted."""
    opens = nft("accept", "ct state established")
    chain = replace(INPUT, policy=policy, steps=(opens, *steps))
    found = find_firewalls({FILTER: {"INPUT": chain, **CHAINS}}, {}, "nftables", PORTS)
    return found[0].why if found else ""


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([], "", id="nothing"),
        pytest.param([nft("drop", "ip saddr 192.0.2.1")], "", id="perhaps"),
        pytest.param([nft("drop")], "rule drop", id="all"),
        pytest.param([nft("reject", "ct state new")], "rule ct state new reject", id="new"),
        pytest.param(
            [nft("drop", "tcp dport 1024-65535")], "rule tcp dport 1024-65535 drop", id="ports"
        ),
        pytest.param([nft("accept", "ct status dnat"), nft("drop")], "", id="let-in-before"),
        pytest.param([nft("jump zone")], "chain zone: rule drop", id="below"),
        pytest.param([nft("notrack"), nft("drop")], "rule drop", id="not-tracked"),
        pytest.param([nft("jump back"), nft("reject")], "rule reject", id="returns"),
        pytest.param([nft("goto back"), nft("reject")], "", id="goto-never-returns"),
        pytest.param([nft("jump loop"), nft("jump gone")], "", id="loop-and-gone"),
    ],
)
def test_a_rule_that_certainly_drops_is_found(steps, expected):
    assert why(*steps) == expected


def test_without_a_verdict_the_policy_decides():
    assert why(nft("accept", "tcp dport 22"), policy="drop") == "its policy is drop"
    assert why(nft("accept"), policy="drop") == ""
