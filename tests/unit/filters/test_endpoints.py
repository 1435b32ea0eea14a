"""Tests of finding other programs' chains that drop packets to or from endpoints."""

from contextlib import closing
from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.unit.filters.usual import FILTER, LINKS, POD, UPLINK, chains
from userspace_proxy.filters.chains import ChainTable
from userspace_proxy.filters.endpoints import dropping_chain, find_forward_firewalls, find_pod_rules
from userspace_proxy.filters.frontends import EarlierChains, Followed, Translation
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.steering.names import is_own_table

WEB = SocketAddress("10.244.1.1", 8080)


def test_chains_dropping_or_translating_packets_or_answers_of_an_endpoint_are_found(node):
    pod, other = SocketAddress("10.244.0.7", 80), SocketAddress("10.244.0.8", 80)
    pod_6 = SocketAddress("fd00:244::7", 80)
    with closing(EarlierChains(lambda _frontend: Translation(), is_own_table)) as earlier:
        assert earlier.look([]) == {}
        assert dropping_chain(earlier.filters, pod, Protocol.TCP) == ""
        node.run(
            "nft 'table inet evil { "
            "chain out { type filter hook output priority 0; ip daddr 10.244.0.7 drop; }; "
            "chain post { type filter hook postrouting priority 9; ip6 daddr fd00::/16 drop; }; "
            "chain nat { type nat hook output priority 0; "
            "ip daddr 10.244.0.20 dnat ip to 10.0.0.9; }; "
            "chain in { type filter hook input priority 0; ct state new drop; tcp dport 22 drop; "
            "numgen random mod 9 < 3 ip saddr 10.244.0.11 drop; "
            "ip saddr 10.244.0.9 drop; ip saddr 10.244.0.10 tcp dport 30000-40000 drop; "
            "tcp sport 8080 drop; udp sport 53 drop; }; }'"
        )
        node.run("nft 'table ip evil { chain out { type route hook output priority 5; }; }'")
        earlier.look([])
        nine = SocketAddress("10.244.0.9", 80)
        found = [
            dropping_chain(earlier.filters, one, Protocol.TCP) for one in (pod, other, pod_6, nine)
        ]
        chain = "nftables chain inet evil {} of another program ({}, priority {}) drops"
        assert found == [
            f"{chain.format('out', 'output', 0)} packets to it",
            "",
            f"{chain.format('post', 'postrouting', 9)} packets to it",
            f"{chain.format('in', 'input', 0)} its answers",
        ]
        translated = dropping_chain(earlier.filters, SocketAddress("10.244.0.20", 80), Protocol.TCP)
        text = f"{chain.format('nat', 'output', 0)} packets to it"
        assert translated == text.replace("drops", "translates")
        assert dropping_chain(earlier.filters, SocketAddress("10.244.0.10", 80), Protocol.TCP) == ""
        some = dropping_chain(earlier.filters, SocketAddress("10.244.0.11", 80), Protocol.TCP)
        assert some == f"{chain.format('in', 'input', 0)} its answers, but not all of them"
        by_port = dropping_chain(earlier.filters, SocketAddress("10.244.0.10", 8080), Protocol.TCP)
        assert by_port == f"{chain.format('in', 'input', 0)} its answers"
        dns = SocketAddress("10.244.0.8", 53)
        of = {one: dropping_chain(earlier.filters, dns, one) for one in Protocol}
        assert of == {"TCP": "", "UDP": by_port}
        node.run("iptables-nft -t nat -A POSTROUTING -d 10.245.0.8 -j SNAT --to-source 192.0.2.77")
        node.run("nft add rule ip nat POSTROUTING ip daddr 10.245.0.9 snat to 192.0.2.78")
        earlier.look([])
        for ip, source in (("10.245.0.8", " 192.0.2.77,"), ("10.245.0.9", " 192.0.2.78,")):
            assert source in dropping_chain(earlier.filters, SocketAddress(ip, 8), Protocol.TCP)
        node.run("nft add rule ip evil out tcp dport 80 drop")
        earlier.look([])
        assert "ip evil out" in dropping_chain(earlier.filters, other, Protocol.TCP)
        assert "inet evil post" in dropping_chain(earlier.filters, pod_6, Protocol.TCP)
        earlier.forget()
        assert dropping_chain(earlier.filters, pod, Protocol.TCP), "forgotten chains are gone"


@pytest.mark.parametrize(
    ("hook", "rules", "endpoint", "expected"),
    [
        ("output", ["oifname cali1: reject"], WEB, " rejects packets to it"),
        ("postrouting", ["oifname eth0 tcp dport 8080: drop"], WEB, ""),
        ("input", ["iifname cali1 tcp sport 8080: drop"], WEB, " drops its answers"),
        ("input", ["iifname lo: accept", "drop"], SocketAddress("127.0.0.1", 80), ""),
    ],
)
def test_rules_for_the_link_to_an_endpoint_are_followed(hook, rules, endpoint, expected):
    tables = chains(hook, rules, {})[FILTER]
    found = dropping_chain([Followed(tables[hook.upper()], tables)], endpoint, Protocol.TCP, POD)
    assert found.partition(")")[2] == expected


TO_77 = "ip daddr 10.244.0.0/16: snat 192.0.2.77"


@pytest.mark.parametrize(
    ("rules", "others", "is_named"),
    [
        pytest.param(["oifname eth0: snat", TO_77], ["tcp dport 22: snat"], True, id="after"),
        pytest.param(["…: accept", TO_77], [], False, id="some"),
        pytest.param(["snat", TO_77], [], False, id="masquerades-before"),
        pytest.param(["snat 127.0.0.1"], [], False, id="own"),
        pytest.param([TO_77], ["…: snat"], False, id="another-chain-may-come-first"),
    ],
)
def test_a_chain_that_gives_packets_a_source_that_is_not_this_nodes_is_found(
    rules, others, is_named
):
    filters = []
    for table, lines in ((FILTER, rules), (ChainTable("inet", "x"), others)):
        base = chains("postrouting", lines, {}, table=table)[table]["POSTROUTING"]
        base = replace(base, kind="nat", priority=100)
        filters.append(Followed(base, {base.name: base}))
    found = dropping_chain(filters, WEB, Protocol.TCP, POD)
    source = "gives packets to it the source 192.0.2.77, which is no address of this node"
    assert found.partition(") ")[2] == (source if is_named else "")
    assert dropping_chain(filters, WEB, Protocol.TCP, POD, lambda: LINKS) == ""


DOCKER = [
    "jump DOCKER-USER",
    "oifname docker0 ct state related,established: accept",
    "oifname docker0: jump DOCKER",
    "iifname docker0 oifname != docker0: accept",
    "iifname docker0 oifname docker0: accept",
]
DOCKERS = {"DOCKER-USER": ["return"], "DOCKER": ["iifname != docker0 oifname docker0: drop"]}
LISTED = "ip saddr 10.244.0.0/16,198.51.100.0/24: accept"
ADMITTED = ["ct state related,established: accept", "ct status dnat: accept"]


@pytest.mark.parametrize(
    ("rules", "others", "policy", "expected"),
    [
        pytest.param(DOCKER, DOCKERS, "drop", "its policy is drop", id="docker"),
        pytest.param([*ADMITTED, *DOCKER], DOCKERS, "drop", None, id="docker-and-admitted"),
        pytest.param([*ADMITTED, "reject"], {}, "accept", None, id="firewalld"),
        (["ip daddr 10.244.1.1/32: drop"], {}, "accept", "rule ip daddr 10.244.1.1/32 drop"),
        pytest.param(["tcp dport != 8080: drop"], {}, "accept", None, id="all-but-its-port"),
        pytest.param(["iifname cali2 oifname eth0: drop"], {}, "accept", None, id="another-way"),
        pytest.param(["iifname eth0: drop"], {}, "accept", None, id="one-link"),
        (["iifname eth0: drop", "iifname cali*: drop"], {}, "accept", "rule iifname cali* drop"),
        pytest.param([LISTED], {}, "drop", None, id="sources-that-may-be-all"),
        pytest.param(
            ["ip saddr 198.51.100.0/24: accept"],
            {},
            "drop",
            "its policy is drop, for the endpoint's answers",
            id="a-lan-is-admitted",
        ),
        (["ct state new: accept", "oifname eth0: accept"], {}, "drop", None),
    ],
)
def test_a_rule_dropping_all_forwarded_client_packets_is_found(rules, others, policy, expected):
    tables = chains("forward", rules, others, policy)
    found = find_forward_firewalls(tables, {}, WEB, Protocol.TCP, LINKS)
    assert [one.why for one in found] == ([expected] if expected else [])
    both = [one._replace(networks=(*one.networks, ip_network("fd00:1::/64"))) for one in LINKS]
    assert find_forward_firewalls(tables, {}, WEB, Protocol.TCP, both) == found
    hint = "nft insert rule ip filter FORWARD ct status dnat accept; "
    assert all(one.hint.startswith(hint) for one in found)


@pytest.mark.parametrize(("priority", "expected"), [(99, ["rule tcp dport 8080 drop"]), (100, [])])
def test_postrouting_chains_drop_forwarded_packets_before_source_translation(priority, expected):
    table = chains("postrouting", ["tcp dport 8080: drop"], {})[FILTER]
    late = {FILTER: {name: replace(one, priority=priority) for name, one in table.items()}}
    found = find_forward_firewalls(late, {}, WEB, Protocol.TCP, LINKS)
    assert [one.why for one in found] == expected


def test_forwarded_packets_skip_chains_of_another_family():
    six = SocketAddress("fd00::1", 8080)
    tables = chains("forward", [], {}, "drop")
    assert find_forward_firewalls(tables, {}, six, Protocol.TCP, [UPLINK]) == []


@pytest.mark.parametrize(
    ("rules", "others", "expected"),
    [
        pytest.param(["ip daddr 10.244.1.1 ip saddr 192.0.2.7: reject"], {}, "to", id="client"),
        pytest.param(["ip saddr 10.244.1.1 udp sport 53: drop"], {}, "from", id="answers"),
        pytest.param(["ip daddr 10.244.1.1: jump x"], {"x": ["…: drop"]}, "to", id="policy"),
        pytest.param(["…: jump x"], {"x": ["ip daddr 10.244.1.1: drop"]}, "to", id="jump"),
        pytest.param(["ip daddr 10.244.1.1: accept", "drop"], {}, None, id="accepted"),
        pytest.param(["accept", "ip daddr 10.244.1.1: drop"], {}, None, id="accepted-before"),
        pytest.param(["ip daddr != 10.244.1.1: drop"], {}, None, id="others"),
        pytest.param(["ip daddr 10.244.9.1: drop"], {}, None, id="another-nodes-pod"),
    ],
)
def test_rules_that_name_a_pod_and_may_drop_its_packets_are_found(rules, others, expected):
    for tables in (({}, chains("forward", rules, others)), (chains("forward", rules, others), {})):
        found = find_pod_rules(*tables, LINKS)
        assert [*found] == (["10.244.1.1"] if expected else [])
        assert all(f"packets {expected} 10.244.1.1: " in one.what for one in found.values())


@pytest.mark.parametrize(
    ("hook", "rules", "expected"),
    [
        ("forward", ["ip daddr 10.9.3.0/24 tcp dport 80 …: drop"], "to 10.9.3.0/24: rule ip daddr"),
        ("output", ["ip daddr 10.9.3.0/24 tcp dport 80 …: drop"], "to 10.9.3.0/24: rule ip daddr"),
        ("input", ["ip saddr 10.9.3.0/24: jump x"], "from 10.9.3.0/24: chain x: rule limit drop"),
        ("output", ["ip saddr 10.9.3.0/24: jump x"], None),
        ("forward", ["ip daddr 10.9.3.0/24 ip saddr 192.0.2.7: drop", "…: drop"], None),
        ("forward", ["ip daddr 10.9.3.0/24: accept", "ip daddr 10.9.3.0/24 …: drop"], None),
        ("forward", ["ip daddr 0.0.0.0/0 …: drop"], None),
    ],
)
def test_rules_that_name_a_network_and_may_drop_its_packets_are_found(hook, rules, expected):
    found = find_pod_rules(chains(hook, rules, {"x": ["limit: drop"]}), {}, LINKS)
    assert [*found] == (["10.9.3.0/24"] if expected else [])
    assert all(f" may drop packets {expected}" in one.what for one in found.values())


def test_a_forward_policy_that_drops_packets_to_a_network_of_pods_is_found():
    networks = ["10.244.1.1/32", "10.244.1.2/32"]
    for rules, found in (([], networks), (DOCKER, networks), (["…: accept"], [])):
        tables = chains("forward", rules, DOCKERS, "drop")
        assert [*find_pod_rules(tables, {}, LINKS)] == found
