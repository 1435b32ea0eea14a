"""Tests of finding other programs' chains that drop packets steered to the proxy."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.unit.filters.usual import CLIENT, DOCKER_0, FILTER, LINKS, POD, UPLINK, chains
from tests.unit.filters.written import nft
from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.filters.node import FIREWALLD, Firewall, find_firewalls, find_unfollowed
from userspace_proxy.model import IPFamily, Protocol
from userspace_proxy.policy.locality import PodLink

LEGACY_FILTER = ChainTable("ip", "filter", is_legacy=True)
INPUT = Chain(FILTER, "INPUT", "filter", "input", policy="drop")
PORTS = (17000, 29999)


def test_a_chain_that_drops_steered_packets_is_reported_with_an_admitting_rule():
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


@pytest.mark.parametrize(("family", "tool"), [("ip", "iptables"), ("ip6", "ip6tables")])
def test_a_rule_for_a_legacy_table_has_the_syntax_of_its_tool(family, tool):
    legacy = replace(INPUT, table=ChainTable(family, "filter", is_legacy=True))
    (found,) = find_firewalls({}, {legacy.table: {legacy.name: legacy}}, "nftables", PORTS)
    assert found.hint == (
        f"{tool}-legacy -I INPUT -m conntrack --ctstate DNAT -j ACCEPT; "
        f"{tool}-legacy -I INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    )


def test_names_of_other_programs_are_quoted_in_a_suggested_rule():
    chain = replace(INPUT, table=ChainTable("ip", "$(a)"), name="b c")
    (found,) = find_firewalls({chain.table: {chain.name: chain}}, {}, "nftables", PORTS)
    assert found.hint.startswith("nft insert rule ip '$(a)' 'b c' ct status dnat accept; ")


@pytest.mark.parametrize(
    ("table", "family"), [(ChainTable("ip6", "x"), IPFamily.IPV6), (FIREWALLD, None)]
)
def test_a_chain_is_reported_with_the_family_of_dropped_packets(table, family):
    chain = replace(INPUT, table=table)
    (found,) = find_firewalls({table: {chain.name: chain}}, {}, "nftables", PORTS)
    assert (found.family, found.hint.count("nft insert rule")) == (family, 2)


def test_no_firewall_is_reported_without_steering():
    assert find_firewalls({INPUT.table: {INPUT.name: INPUT}}, {}, "none", PORTS) == []


def test_this_proxys_legacy_chains_accept_clients_but_not_replies():
    opens = nft("accept", "ct state established,related")
    legacy = Chain(LEGACY_FILTER, "INPUT", "filter", "input", policy="drop")
    tables = {legacy.table: {legacy.name: legacy}}
    assert [f.hint for f in find_firewalls({}, tables, "iptables", PORTS)] == [
        "iptables-legacy -I INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    ]
    tables = {legacy.table: {legacy.name: replace(legacy, steps=(opens,))}}
    assert find_firewalls({}, tables, "iptables", PORTS) == []
    assert [f.chain for f in find_firewalls({}, tables, "nftables", PORTS)] == [str(legacy)]


@pytest.mark.parametrize(
    ("steps", "policy", "expected"),
    [
        pytest.param([nft("reject", "ct state new")], "drop", "rule ct state new reject", id="new"),
        pytest.param([nft("drop", "tcp dport 22-65535")], "accept", "rule tcp dport 22-65535 drop"),
        ([nft("accept", "ct status dnat"), nft("drop")], "drop", ""),
        pytest.param([nft("jump zone")], "drop", "chain zone: rule drop", id="below"),
        pytest.param([nft("accept", "tcp dport 22")], "drop", "its policy is drop", id="policy"),
    ],
)
def test_a_firewall_is_reported_only_if_it_certainly_drops_steered_packets(steps, policy, expected):
    opens = nft("accept", "ct state established")
    zone = Chain(FILTER, "zone", steps=(nft("accept", "tcp dport 22"), nft("drop")))
    chain = replace(INPUT, policy=policy, steps=(opens, *steps))
    found = find_firewalls({FILTER: {"INPUT": chain, "zone": zone}}, {}, "nftables", PORTS)
    assert [one.why for one in found] == ([expected] if expected else [])


LISTED = "ip saddr 10.244.0.0/16,198.51.100.0/24: accept"


# The chains of Calico, without irrelevant rules.
CALICO = {
    "cali-wl-to-host": ["jump cali-from-wl-dispatch", "drop"],
    "cali-from-wl-dispatch": ["iifname cali1: goto cali-fw", "iifname cali2: goto cali-fw", "drop"],
    "cali-fw": ["ct state related,established: accept", "…: return", "drop"],
}


@pytest.mark.parametrize("table", [FILTER, LEGACY_FILTER, ChainTable("ip6", "filter")])
def test_a_rule_dropping_packets_of_all_pods_is_found(table):
    rules = ["iifname cali*: goto cali-wl-to-host"]
    tables = chains("input", rules, CALICO, table=table)
    both = ({}, tables) if table.is_legacy else (tables, {})
    assert find_firewalls(*both, "nftables", PORTS, [UPLINK]) == []
    (found,) = find_firewalls(*both, "nftables", PORTS, [POD, CLIENT, UPLINK])
    assert (found.chain, found.why) == (
        f"{table} INPUT",
        "chain cali-wl-to-host: rule drop, for packets of this node's pods",
    )
    assert "defaultEndpointToHostAction" in found.hint


def test_a_rule_that_drops_packets_of_interfaces_with_pods_is_reported():
    tables = chains("input", ["iifname cali*: drop"], {})
    ports = [PodLink(number, f"veth{number}") for number in (6, 7)]
    for links in ([POD, *ports], [POD, DOCKER_0]):
        (found,) = find_firewalls(tables, {}, "nftables", PORTS, links)
        assert found.why == "rule iifname cali* drop, for packets of this node's pods"
    other = PodLink(4, "cni0", (ip_network("10.244.2.0/24"),))
    (found,) = find_firewalls(tables, {}, "nftables", PORTS, [POD, other])
    some = "for packets of some of this node's pods, for example 10.244.1.1"
    assert found.why == f"rule iifname cali* drop, {some}"
    assert find_firewalls(tables, {}, "nftables", PORTS, [other]) == []
    assert find_firewalls(tables, {}, "nftables", PORTS, ports) == []


BRIDGE = PodLink(4, "cni0", (ip_network("10.244.2.0/24"), ip_network("fd00:2::/64")))
ONE_POD = "ip saddr 10.244.2.9/32"


@pytest.mark.parametrize(
    ("rules", "policy", "expected"),
    [
        ([f"{ONE_POD} ct state new: drop"], "accept", "rule ip saddr 10.244.2.9/32 ct state new"),
        (["ip saddr 203.0.113.7/32,10.244.2.9/32: jump x"], "accept", "chain x: rule reject"),
        (["ip6 saddr fd00:2::9/128: drop"], "accept", "rule ip6 saddr fd00:2::9/128 drop"),
        (["ip saddr 10.244.1.2/32 meta l4proto udp: drop"], "accept", "for example 10.244.1.2"),
        ([f"{ONE_POD}: accept"], "drop", "its policy is drop"),
        (["ip saddr 10.244.2.0/32,10.244.2.255/32: drop"], "accept", None),
        (["ip saddr 10.244.0.0/16,10.244.2.9/32: accept"], "drop", None),
        (["ip saddr 10.244.0.0/23,10.244.2.0/25,10.244.2.128/25: accept"], "drop", None),
        ([f"{ONE_POD} …: drop"], "accept", None),
        ([f"{ONE_POD} tcp dport 80: drop"], "accept", None),
        (["ip saddr 192.168.0.0/16,172.17.0.0/16: drop"], "accept", None),
    ],
)
def test_a_chain_that_drops_packets_of_some_pods_is_found(rules, policy, expected):
    rules, inet = ["ct state established: accept", *rules], ChainTable("inet", "cnp")
    tables = chains("input", rules, {"x": ["reject"]}, policy, table=inet)
    found = find_firewalls(tables, {}, "nftables", PORTS, [*LINKS, BRIDGE])
    assert [one.is_for_all for one in found] == [False] * (expected is not None)
    for one in found:
        assert str(expected) in one.why
        assert one.hint.startswith("Change it if these clients may use Services, as `nft list ")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["numgen/hash: drop"], ", for some packets"),
        (["numgen/hash: accept", "drop"], ", for some packets"),
        (["iifname cali1 limit: drop"], ", for packets beyond a limit"),
        (["ct state new limit: accept", "ct state new: drop"], ", for packets beyond a limit"),
        (["meta l4proto tcp limit: drop"], ", for packets beyond a limit"),
        (["tcp dport 22 limit: accept", "tcp dport 22: drop"], None),
    ],
)
def test_a_chain_that_drops_packets_at_random_or_at_a_limit_is_found(rules, expected):
    found = find_firewalls(chains("input", rules, {}), {}, "nftables", PORTS, LINKS)
    assert [(one.why.partition("drop")[2], one.is_for_all) for one in found] == (
        [(expected, False)] if expected else []
    )
    is_tcp = rules[0].startswith("meta l4proto tcp")
    assert all(one.protocol is (Protocol.TCP if is_tcp else None) for one in found)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("tcp sport 17000-29999: reject", ", for the proxy's answers to clients"),
        ("ip daddr 10.244.0.0/16: drop", ", for answers to this node's pods"),
        (
            "oifname cali1: drop",
            ", for answers to some of this node's pods, for example 10.244.1.1",
        ),
        ("meta l4proto udp ip daddr 10.244.0.0/16: drop", ", for answers to this node's pods"),
        ("ip daddr 127.0.0.0/8: drop", ""),
        ("tcp sport 22,17000: drop", ""),
    ],
)
@pytest.mark.parametrize("table", [FILTER, LEGACY_FILTER])
def test_a_chain_that_drops_answers_to_clients_is_found(table, rule, expected):
    tables = chains("output", [rule], {}, table=table)
    both = ({}, tables) if table.is_legacy else (tables, {})
    found = find_firewalls(*both, "iptables", PORTS, LINKS)
    if table.is_legacy and "17000:" in rule:
        expected = ", for the proxy's answers to clients"
    assert [one.why.endswith(expected) for one in found] == ([True] if expected else [])
    assert [one.is_for_all for one in found] == ["some of" not in expected] * bool(expected)
    assert "udp" not in rule or found[0].protocol is Protocol.UDP
    late = chains("postrouting", ["ct status dnat: accept", "drop"], {})
    assert find_firewalls(late, {}, "iptables", PORTS) == []


def test_legacy_rules_that_drop_packets_before_translation_are_found():
    table, steps = ChainTable("ip", "raw", is_legacy=True), (nft("drop", "iifname cali*"),)
    raw = Chain(table, "PREROUTING", "filter", "prerouting", -300, steps=steps)
    (found,) = find_firewalls({}, {table: {"": raw}}, "local", PORTS, [POD, CLIENT])
    assert found.why == "rule iifname cali* drop, for packets of this node's pods"
    listing = "as `iptables-legacy -t raw -S PREROUTING` shows"
    assert found.hint.startswith(f"Delete what drops these packets, {listing}, or ")


def test_rules_too_expensive_for_many_links_are_skipped():
    tables = chains("input", ["iifname cali*: drop", *["tcp dport 22: accept"] * 999], {})
    pods = ((n, ip_network(f"10.244.{n // 250}.{n % 250}/32")) for n in range(2, 202))
    links = [PodLink(number, f"cali{number}", (network,)) for number, network in pods]
    assert find_firewalls(tables, {}, "nftables", PORTS, links[:-1]) != []
    assert find_firewalls(tables, {}, "nftables", PORTS, links) == []


SHOWN, TO_X = "ip filter INPUT", "ip filter x"
LIST = f"as `nft list chain {SHOWN}` shows"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(["ct state established: accept", "tcp dport 22: accept"], [], id="all"),
        pytest.param(["…: drop"], [f"chain {SHOWN}, rule … drop, {LIST}"], id="a-condition"),
        pytest.param(["queue"], [f"chain {SHOWN}, rule queue, {LIST}"], id="a-queue"),
        pytest.param(["jump gone"], [f"chain {SHOWN}, rule jump gone, {LIST}"], id="a-chain"),
        pytest.param(["…: jump x"], [f"chain {TO_X}, rule drop, as `nft list chain {TO_X}` shows"]),
        pytest.param(["drop"], [], id="certain"),
    ],
)
def test_rules_that_may_drop_are_listed_as_not_followed(rules, expected):
    tables = chains("input", rules, {"x": ["drop"]})
    assert find_unfollowed(tables, {}, "input") == expected
    assert find_unfollowed({}, tables, "forward") == []


def test_a_drop_policy_is_listed_as_not_followed_if_sources_are_admitted():
    tables = chains("forward", [LISTED], {}, "drop")
    (found,) = find_unfollowed(tables, {}, "forward")
    assert found.endswith("FORWARD, its policy drop, as `nft list chain ip filter FORWARD` shows")


def test_endpoint_replies_that_a_rule_may_admit_are_not_reported():
    rules = ["ct status dnat: accept", "ip saddr 10.244.0.0/16: accept"]
    assert find_firewalls(chains("input", rules, {}, "drop"), {}, "nftables", PORTS) == []
