from contextlib import closing
from dataclasses import replace

import pytest

from tests.unit.filters.usual import PODS, USUAL
from tests.unit.filters.written import nft
from userspace_proxy.errors import SteeringError
from userspace_proxy.filters import frontends
from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.filters.endpoints import find_pod_rules
from userspace_proxy.filters.following import ALL_NAT, WAYS
from userspace_proxy.filters.frontends import (
    EarlierChains,
    Translation,
    explain_chain,
    first_packets,
    places_to_follow,
)
from userspace_proxy.filters.node import find_firewalls
from userspace_proxy.filters.reading import read_chains
from userspace_proxy.model import Frontend, FrontendKind, Protocol
from userspace_proxy.steering.names import is_own_table
from userspace_proxy.steering.pod_links import read_client_links

EVIL = ChainTable("ip", "evil")
WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
NODE_PORT = Frontend("192.0.2.9", 30080, Protocol.TCP, FrontendKind.NODE_PORT)
LOOPBACK = Frontend("127.0.0.1", 30080, Protocol.TCP, FrontendKind.NODE_PORT)


PROXIED = Translation(-110, 36001)


def translation_of(_frontend: Frontend) -> Translation:
    return PROXIED


NAMED = "ip daddr 10.96.7.1/32 tcp dport 80"
TO_TWO = "numgen random mod 2 map { 0 : 10.244.9.8, 1 : 10.244.9.9 }"
NFT_WEB = "ip daddr 10.96.7.1 tcp dport 80"
TO_WEB = nft("translate", NAMED)
NAT = "type nat hook prerouting priority -150;"
FILTER = "type filter hook input priority 0;"
FILTER_FIRST = "type filter hook prerouting priority -150;"


DROPS_WEB = nft("drop", NAMED)
RAW = Chain(EVIL, "pre", "filter", "prerouting", -300)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        pytest.param("ip", {WEB}, id="ipv4"),
        pytest.param("ip6", {WEB_6}, id="ipv6"),
        pytest.param("inet", {WEB, WEB_6}, id="both"),
        pytest.param("bridge", set(), id="no-ip"),
    ],
)
def test_a_chain_affects_only_the_family_of_its_table(node, family, expected):
    hook = "type filter hook prerouting priority -300; policy drop;"
    node.run(f"nft 'table {family} admin {{ chain pre {{ {hook} }}; }}'")
    with closing(EarlierChains(translation_of, is_own_table)) as earlier:
        assert earlier.look([WEB, WEB_6]).keys() == expected


OWN_TOO = ""
OTHERS_ONLY = ", except those of this node's own programs"


@pytest.mark.parametrize(
    ("hook", "rules", "besides"),
    [
        pytest.param("input", ["drop: tcp dport 36001"], OWN_TOO, id="proxy-port"),
        pytest.param("input", ["drop: ct original ip daddr 10.96.7.1/32"], OWN_TOO, id="dialled"),
        pytest.param("input", ["drop: tcp dport 80"], None, id="translated-port"),
        pytest.param("input", ["drop: ip daddr 10.96.7.1/32"], None, id="translated-address"),
        pytest.param("input", ["accept: ct status dnat", "drop"], None, id="as-firewalld"),
        pytest.param("input", ["accept: tcp dport 22,80", "drop"], OWN_TOO, id="other-ports"),
        pytest.param("input", ["accept: iif lo", "drop"], OTHERS_ONLY, id="open-for-own"),
        pytest.param("input", ["drop: iif lo"], None, id="closed-for-own-only"),
        pytest.param("input", ["accept: tcp …", "drop"], None, id="maybe-admitted"),
        pytest.param("prerouting", ["drop: tcp dport 36001"], OWN_TOO, id="after-translation"),
        pytest.param("prerouting", ["drop: tcp dport 80"], None, id="before-translation"),
    ],
)
def test_a_translated_packet_is_evaluated_with_the_proxy_port(hook, rules, besides):
    steps = tuple(nft(*rule.split(": ")) for rule in rules)
    chain = Chain(EVIL, "in", "filter", hook, 0, steps=steps)
    cause = explain_chain(chain, {"in": chain}, WEB, PROXIED)
    assert (cause is None) == (besides is None)
    if cause is not None:
        assert cause.chain == "ip evil in"
        assert cause.what.endswith(f" ({hook}, priority 0) drops packets to it{besides}")
        shown = "as `nft list chain ip evil in` shows"
        rules = "`ct status dnat accept` and `ct state established accept` in that chain"
        assert (
            cause.hint == f"Delete what drops these packets, {shown}, or insert the rules {rules}"
        )


@pytest.mark.parametrize(
    ("priority", "rules", "translation", "expected"),
    [
        pytest.param(-300, [f"notrack: {NAMED}"], PROXIED, True, id="named"),
        pytest.param(-300, [f"notrack: {NAMED}"], Translation(), False, id="local"),
        pytest.param(-150, [f"notrack: {NAMED}"], PROXIED, False, id="tracked-already"),
        pytest.param(-300, [f"accept: {NAMED}", "notrack"], PROXIED, False, id="accepted-before"),
        pytest.param(-300, ["notrack: …"], PROXIED, False, id="some"),
    ],
)
def test_notrack_rules_before_tracking_prevent_translation(priority, rules, translation, expected):
    steps = tuple(nft(*rule.split(": ")) for rule in rules)
    chain = replace(RAW, priority=priority, steps=steps)
    cause = explain_chain(chain, {"pre": chain}, WEB, translation)
    assert ("keeps packets to it from being tracked (notrack)" in str(cause)) == expected
    assert bool(cause) == expected


def test_both_chains_that_keep_packets_from_being_tracked_are_reported(node):
    rule = "-d 10.96.7.1 -p tcp --dport 80 -j CT --notrack"
    node.run(f"for chain in PREROUTING OUTPUT; do iptables-nft -t raw -A $chain {rule}; done")
    with closing(EarlierChains(translation_of, is_own_table)) as earlier:
        taken = earlier.look([WEB])[WEB]
    assert taken.what.endswith(" so that they aren't translated; so does chain ip raw OUTPUT")
    where = "in both chains, as `nft list chain ip raw PREROUTING` shows"
    assert taken.hint == f"Delete that rule {where}, or accept these packets before it"


@pytest.mark.parametrize(
    ("translation", "hook", "priority", "expected"),
    [
        pytest.param(PROXIED, "prerouting", -100, [], id="beside"),
        pytest.param(Translation(-111), "prerouting", -101, [0], id="kernel-path-before"),
        pytest.param(Translation(-111), "input", 0, [], id="kernel-path-never-comes-in"),
        pytest.param(Translation(), "prerouting", 0, [0, 0], id="local"),
        pytest.param(Translation(), "input", 0, [0, 0], id="local-input"),
    ],
)
def test_a_chains_hook_determines_the_port_of_first_packets(translation, hook, priority, expected):
    chain = Chain(EVIL, "chain", "filter", hook, priority)
    packets = first_packets(chain, WEB, translation)
    assert [packet.port for packet in packets] == expected
    assert [packet.is_own for packet in packets] == [False, True][: len(packets)]


LIST = "as `nft list chain ip evil pre` shows"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param("ip daddr 10.96.7.1 meta mark 5", "ip daddr 10.96.7.1/32 …", id="mark"),
        pytest.param("ip daddr 10.96.7.2 meta mark 5", "", id="another-frontend"),
        pytest.param("ip saddr 203.0.113.7", "", id="some-clients"),
        pytest.param("ip daddr 10.96.7.1", "", id="certain"),
    ],
)
def test_a_rule_that_may_intercept_packets_is_listed_as_not_followed(node, rule, expected):
    hooks = "type filter hook prerouting priority -300;", NAT
    for hook, verdict in zip(hooks, ("drop", "redirect to 9"), strict=True):
        protocol = "" if verdict == "drop" else "meta l4proto tcp "
        node.run("nft delete table ip evil 2>/dev/null || true")
        node.run(f"nft 'table ip evil {{ chain pre {{ {hook} {protocol}{rule} {verdict}; }}; }}'")
        with closing(EarlierChains(translation_of, is_own_table)) as earlier:
            earlier.look([WEB])
            found = earlier.unfollowed([WEB])
        done = "drop" if verdict == "drop" else "translate"
        rules = f"chain ip evil pre, rule {protocol}{expected} {done}, {LIST}"
        assert found == ([rules] if expected else [])


def test_legacy_rules_are_followed_as_of_their_last_reading(node):
    table = ChainTable("ip", "raw", is_legacy=True)
    with closing(EarlierChains(translation_of, is_own_table)) as earlier:
        assert earlier.look([WEB]) == {}
        earlier.take_legacy({table: {"": replace(RAW, table=table, steps=(DROPS_WEB,))}})
        assert earlier.look([WEB])[WEB].what.startswith(
            "chain legacy ip raw pre of another program"
        )
        earlier.take_legacy({})
        assert earlier.look([WEB]) == {}


def test_unreadable_nftables_yield_no_earlier_chains(node, monkeypatch):
    def refuse(_is_own: object) -> None:
        raise SteeringError("permission denied")

    node.run(f"nft 'table ip evil {{ chain pre {{ {NAT} tcp dport 80 redirect to 9; }}; }}'")
    node.run(f"nft 'table ip evil {{ chain in {{ {FILTER} meta mark 5 drop; }}; }}'")
    with closing(EarlierChains(translation_of, is_own_table)) as earlier:
        assert all((earlier.look([WEB]), earlier.filters, earlier.unfollowed([WEB])))
        earlier.close()
        monkeypatch.setattr(frontends, "NftReader", refuse)
        assert (earlier.look([WEB]), earlier.filters, earlier.unfollowed([WEB])) == ({}, (), [])


def test_rules_too_expensive_to_evaluate_are_skipped():
    some = replace(RAW, steps=(DROPS_WEB,) * 100_000)
    web, other = (WEB, PROXIED), (Frontend("10.96.7.2", 80, Protocol.TCP), Translation(-110, 36002))
    assert places_to_follow(some, {"pre": some}, [web, other]) == [web]
    # A node port has addresses that a rule needn't name.
    at_node = Frontend("192.0.2.1", 80, Protocol.TCP, FrontendKind.NODE_PORT), other[1]
    assert places_to_follow(some, {"pre": some}, [at_node, other]) == [at_node]
    many = replace(RAW, steps=some.steps * 2)
    assert places_to_follow(many, {"pre": many}, [web]) == ()


TRANSLATED = (PROXIED, Translation(ALL_NAT, 36001), Translation())


@pytest.mark.parametrize("rules", [pytest.param(rules, id=name) for name, rules in USUAL.items()])
@pytest.mark.parametrize("translation", TRANSLATED)
def test_common_harmless_rulesets_are_not_reported(node, rules, translation):
    node.run(PODS)
    node.run(rules)
    # Without translation, packets have no conntrack status dnat, which firewalld accepts.
    is_rejected = "firewalld" in rules and translation == Translation()
    with closing(
        EarlierChains(lambda _one: translation, is_own_table, read_client_links)
    ) as earlier:
        found = earlier.look([WEB, WEB_6, LOOPBACK, NODE_PORT])
        certain = {frontend for frontend, taken in found.items() if taken.is_certain}
        assert certain == ({WEB, WEB_6, NODE_PORT} if is_rejected else set())
        # Rules with a limit may drop packets to the address that they name.
        assert found.keys() - certain == ({WEB} if "limit rate" in rules else set())
    nft, links = read_chains(is_own_table, *WAYS, "forward"), read_client_links()
    assert find_firewalls(nft, {}, "nftables", (17000, 29999), links) == []
    assert find_pod_rules(nft, {}, links) == {}


OF_PODS, OF_ALL, PERHAPS, SOME = " from this node's pods", "", "may ", " it: "
ALL_PODS = "ip saddr 10.244.0.0/16"


@pytest.mark.parametrize(
    ("hook", "rule", "expected"),
    [
        pytest.param(FILTER_FIRST, f"{ALL_PODS} ip daddr 10.96.0.0/16 drop", OF_PODS, id="sources"),
        pytest.param(FILTER_FIRST, f"iifname cni0 {NFT_WEB} drop", PERHAPS, id="one-link"),
        pytest.param(FILTER_FIRST, "ip saddr 10.244.2.9 ip daddr 10.96.7.1 drop", SOME, id="a-pod"),
        (FILTER, "numgen random mod 3 { 0, 1 } ct original ip daddr 10.96.7.1 drop", SOME),
        pytest.param(FILTER_FIRST, "meta mark 5 drop", None, id="unnamed"),
        pytest.param("type filter hook forward priority 0;", "drop", None, id="forward"),
        pytest.param("type nat hook postrouting priority -150;", "snat to 192.0.2.7", None),
        pytest.param(FILTER_FIRST, "ip daddr 10.96.7.1 meta mark 5 drop", PERHAPS, id="mark"),
        pytest.param(NAT, f"{ALL_PODS} {NFT_WEB} redirect to 9", OF_PODS, id="nat-of-sources"),
        (FILTER_FIRST, f"{ALL_PODS} tcp dport 80 drop", OF_PODS),
        (FILTER_FIRST, "ip saddr 10.244.2.9 tcp dport 80 drop", None),
        pytest.param(NAT, f"{NFT_WEB} meta mark 5 redirect to 9", PERHAPS, id="nat-mark"),
        pytest.param(NAT.replace("150", "109"), f"{NFT_WEB} redirect to 9", None, id="after"),
        (NAT, "dnat ip to ip daddr . tcp dport map { 10.96.7.1 . 80 : 10.244.9.9 . 80 }", OF_ALL),
        (NAT, f"{NFT_WEB} dnat to {TO_TWO}", OF_ALL),
        (FILTER_FIRST, f"{NFT_WEB} limit rate over 1/second drop", SOME),
    ],
)
def test_a_rule_naming_a_frontend_is_reported_with_its_clients(node, hook, rule, expected):
    node.run(PODS)
    node.run(f"nft 'table ip evil {{ chain pre {{ {hook} {rule}; }}; }}'")
    with closing(EarlierChains(translation_of, is_own_table, read_client_links)) as earlier:
        taken = earlier.look([WEB]).get(WEB)
    assert (taken is None) == (expected is None)
    if taken is not None:
        is_doubt = expected in (PERHAPS, SOME)
        assert taken.is_certain != is_doubt
        assert (expected if is_doubt else f" it{expected}") in taken.what
        assert taken.is_certain or taken.hint.endswith(LIST)


@pytest.mark.parametrize("priority", [-110, ALL_NAT])
@pytest.mark.parametrize("tables", [("userspace-proxy", "evil"), ("evil", "userspace-proxy")])
def test_of_nat_chains_with_equal_priority_the_newer_tables_chain_is_first(node, tables, priority):
    rules = f"type nat hook prerouting priority {priority}; {NFT_WEB} redirect to 9;"
    for table in tables:
        node.run(f"nft 'table inet {table} {{ chain pre {{ {rules} }}; }}'")
    with closing(EarlierChains(lambda _one: Translation(priority, 36001), is_own_table)) as earlier:
        taken = earlier.look([WEB])[WEB]
    # The proxy's chain of priority -100 is in a legacy table.
    assert taken.is_certain is (tables[-1] == "evil" and priority != ALL_NAT)


LATE = "type filter hook postrouting priority 200;"
OUT = "type filter hook output priority 0;"
DIALLED = "meta l4proto tcp ct original proto-dst 80"


@pytest.mark.parametrize(
    ("hook", "rule", "expected"),
    [
        (LATE, "ip saddr 10.96.7.1 drop", "drops its answers"),
        (LATE, "oifname != eth0 ip saddr 10.96.7.1 tcp sport 80 drop", " to this node's pods"),
        (LATE, "oifname cni0 ip saddr 10.96.7.1 drop", "may drop its answers"),
        (LATE, "ip saddr 10.96.7.1 ip length > 1000 drop", "may drop its answers: rule ip saddr"),
        (LATE, "ip saddr 10.96.7.1 tcp sport 81 drop", ""),
        (LATE, "ip saddr 10.96.7.1 ct state new drop", ""),
        (LATE, "oifname eth0 ip saddr 10.96.0.0/12 drop", ""),
        (LATE.replace("200", "100"), "ip saddr 10.96.7.1 drop", ""),
        (LATE.replace("200", "99"), "tcp sport 36001 drop", "drops its answers"),
        (OUT, "tcp sport 36001 reject", "drops its answers"),
        (OUT, "ct original ip daddr 10.96.7.1 drop", "drops its answers"),
        (OUT.replace("filter", "route", 1), "ct state established drop", "drops its answers"),
        (f"{OUT} policy drop;", "oif lo accept", "answers, except those to this node's own"),
        (OUT, "tcp sport 36001 ip daddr 10.244.0.0/16 drop", " to this node's pods"),
        (OUT, "tcp sport 36001 ip daddr 10.244.2.9 drop", " to some of this node's pods"),
        (OUT, f"{DIALLED} ip daddr 10.244.0.0/16 drop", " to this node's pods"),
        (OUT, "tcp sport 80 drop", ""),
        (OUT, "ct state new drop", ""),
        (OUT, "ct status dnat accept; drop", ""),
    ],
)
def test_a_rule_that_drops_a_frontends_answers_is_reported(node, hook, rule, expected):
    node.run(PODS)
    node.run(f"nft 'table ip evil {{ chain post {{ {hook} {rule}; }}; }}'")
    with closing(EarlierChains(translation_of, is_own_table, read_client_links)) as earlier:
        taken = earlier.look([WEB]).get(WEB)
    assert expected in (taken.what if taken else "")
    assert bool(taken) is bool(expected)
    is_doubt = taken is not None and ("may drop" in taken.what or "some of" in taken.what)
    assert taken is None or taken.is_certain is not is_doubt


FOR_OTHERS = "iif lo accept; iifname cni0 accept; tcp dport { 22, 30000-32767 } accept"


@pytest.mark.parametrize(
    ("hook", "rules", "expected"),
    [
        pytest.param(f"{FILTER} policy drop;", FOR_OTHERS, {NODE_PORT}, id="policy"),
        pytest.param(FILTER, f"{FOR_OTHERS}; counter drop", {NODE_PORT}, id="last-rule"),
        pytest.param(FILTER, "iifname eth0 tcp dport 36001 drop", {NODE_PORT}, id="one-link"),
        pytest.param(NAT, "iifname eth0 tcp dport 30080 redirect to 9", {NODE_PORT}, id="nat"),
        pytest.param(FILTER, f"ct status dnat accept; {FOR_OTHERS}; drop", set(), id="admitted"),
        (FILTER, f"ip saddr 198.51.100.0/24 accept; {FOR_OTHERS}; drop", set()),
        (FILTER, "iif lo accept; ip saddr 10.244.0.0/16 accept; drop", {NODE_PORT}),
        pytest.param(FILTER, "iifname cni0 drop", set(), id="pods"),
    ],
)
def test_a_chain_taking_other_hosts_packets_is_reported_for_node_ports(node, hook, rules, expected):
    node.run(PODS)
    node.run(f"nft 'table ip evil {{ chain pre {{ {hook} {rules}; }}; }}'")
    with closing(EarlierChains(translation_of, is_own_table, read_client_links)) as earlier:
        found = earlier.look([WEB, LOOPBACK, NODE_PORT])
    named = " node port 30080 from other hosts"
    assert {at for at, one in found.items() if named in one.what} == expected
    assert not any(one.is_certain for one in found.values())


@pytest.mark.parametrize("frontend", [NODE_PORT, WEB])
def test_a_rule_naming_only_a_port_is_reported_only_for_node_ports(node, frontend):
    rule = f"tcp dport {frontend.port} limit rate over 1/second drop"
    node.run(f"nft 'table ip evil {{ chain pre {{ {FILTER_FIRST} {rule}; }}; }}'")
    with closing(EarlierChains(translation_of, is_own_table)) as earlier:
        assert bool(earlier.look([frontend])) == (frontend is NODE_PORT)
