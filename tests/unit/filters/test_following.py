import pytest

from tests.unit.filters.written import nft, read
from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.filters.following import find_drop, find_drop_for_some, follow
from userspace_proxy.filters.packets import FirstPacket
from userspace_proxy.model import Frontend, Protocol

EVIL = ChainTable("ip", "evil")
WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
NODE_PORT = Frontend("127.0.0.1", 30080, Protocol.TCP)
HERE = "fib daddr type local tcp dport 30080"
NAMED = "ip daddr 10.96.7.1/32 tcp dport 80"
TO_WEB = nft("translate", NAMED)
ALL = nft("translate")


@pytest.mark.parametrize(
    ("steps", "others", "expected"),
    [
        pytest.param([TO_WEB], {}, True, id="named"),
        pytest.param([nft("translate", f"{NAMED} …")], {}, None, id="named-for-some"),
        pytest.param([nft("translate", "…daddr")], {}, None, id="looked-up"),
        pytest.param([nft("translate", "tcp …dport")], {}, None, id="port-looked-up"),
        pytest.param([nft("vmap", "…daddr")], {}, None, id="verdict-looked-up"),
        pytest.param([nft("translate", "…")], {}, False, id="some-clients-of-everything"),
        pytest.param([nft("vmap", "…")], {}, False, id="verdict-by-something-else"),
        pytest.param([nft("accept", NAMED), ALL], {}, False, id="accepted-before"),
        pytest.param([nft("accept"), TO_WEB], {}, False, id="everything-is-accepted-before"),
        pytest.param([nft("accept", "…"), TO_WEB], {}, None, id="some-are-accepted-before"),
        pytest.param([nft("accept", "udp dport 80"), ALL], {}, True, id="others-are-accepted"),
        pytest.param([nft("return", NAMED), ALL], {}, False, id="left-before"),
        pytest.param([nft("jump x", NAMED)], {"x": [ALL]}, True, id="in-another-chain"),
        pytest.param([nft("jump x", "…")], {"x": [TO_WEB]}, None, id="in-a-chain-for-some"),
        pytest.param([nft("jump x", "…")], {"x": [ALL]}, False, id="all-in-a-chain-for-some"),
        pytest.param([nft("jump x"), TO_WEB], {"x": [nft("return")]}, True, id="returns"),
        pytest.param([nft("jump x"), TO_WEB], {"x": [nft("accept")]}, False, id="ends-there"),
        pytest.param([nft("goto x"), TO_WEB], {"x": []}, False, id="never-returns"),
        pytest.param([nft("jump x"), TO_WEB], {"x": [nft("jump x")]}, True, id="circle"),
    ],
)
def test_rules_are_followed_in_their_order(steps, others, expected):
    chains = {name: Chain(EVIL, name, steps=tuple(s)) for name, s in others.items()}
    base = Chain(EVIL, "pre", "nat", "prerouting", -150, steps=tuple(steps))
    outcome = follow(base, chains, FirstPacket(WEB), "nat")
    is_named = bool(outcome.by) and outcome.is_named
    assert (outcome.is_certain or (None if is_named else False)) is expected


def test_a_host_port_at_a_node_port_is_found():
    base = Chain(EVIL, "pre", "nat", "prerouting", -150, steps=(nft("translate", HERE),))
    assert follow(base, {}, FirstPacket(NODE_PORT), "nat").is_certain
    assert follow(base, {}, FirstPacket(WEB), "nat").is_certain is False


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param([nft("notrack", NAMED)], True, id="named"),
        pytest.param([nft("drop", NAMED), nft("notrack")], False, id="dropped-before"),
        pytest.param([nft("vmap", "…daddr"), nft("notrack")], False, id="looked-up-before"),
        pytest.param([TO_WEB], False, id="does-something-else"),
    ],
)
def test_what_a_chain_does_to_connection_tracking_is_followed_likewise(rules, expected):
    base = Chain(EVIL, "raw", "filter", "prerouting", -300, steps=tuple(rules))
    assert follow(base, {}, FirstPacket(WEB), "untracked").is_certain is expected


HALF = ["…: return", "drop"]


@pytest.mark.parametrize(
    ("rules", "others", "expected"),
    [
        pytest.param(["jump w", "drop"], {"w": HALF}, "rule drop", id="both-ways"),
        pytest.param(["goto w"], {"w": ["jump x", "drop"], "x": HALF}, "chain w: rule drop"),
        pytest.param(["goto w", "drop"], {"w": HALF}, None, id="goto-does-not-return"),
        pytest.param(["jump w", "drop"], {"w": ["…: accept", "drop"]}, None, id="one-way-out"),
        pytest.param(["…: vmap", "drop"], {}, None, id="any-verdict"),
        pytest.param(["jump gone", "drop"], {}, None, id="not-read"),
    ],
)
def test_a_packet_is_dropped_where_all_ways_end_so(rules, others, expected):
    found = find_drop(*chains_of(rules, others), FirstPacket(WEB))
    assert (found and str(found)) == expected


def chains_of(rules, others):
    chains = {
        name: Chain(EVIL, name, steps=tuple(read(line) for line in lines))
        for name, lines in {"in": rules, **others}.items()
    }
    return chains["in"], chains


DIALLED = "ct original ip daddr 10.96.7.1/32"
FROM_3 = "ip saddr 10.244.3.0/24"
SOME = f"rule {FROM_3} {DIALLED} drop"
REST = f"rule {DIALLED} drop"


@pytest.mark.parametrize(
    ("rules", "inner", "expected"),
    [
        pytest.param([f"{FROM_3} {DIALLED}: drop"], [], SOME, id="source"),
        pytest.param(["…: drop", f"{FROM_3} {DIALLED}: drop"], [], SOME, id="drops-too"),
        pytest.param(
            ["iifname eth1: drop", f"{FROM_3} {DIALLED}: drop"], [], SOME, id="others-too"
        ),
        pytest.param([f"iifname eth1 {DIALLED}: drop"], [], f"rule iifname eth1 {DIALLED} drop"),
        pytest.param([f"…saddr {DIALLED}: drop"], [], f"rule …saddr {DIALLED} drop", id="set"),
        pytest.param([f"{FROM_3}: accept", f"{DIALLED}: drop"], [], REST, id="admitted-before"),
        pytest.param([f"{FROM_3}: return", f"{DIALLED}: drop"], [], REST, id="gone-before"),
        pytest.param([f"{FROM_3}: jump x"], [f"{DIALLED}: drop"], f"chain x: {REST}", id="jump"),
        pytest.param(
            [f"{DIALLED}: goto x"], [f"{FROM_3}: drop"], f"chain x: rule {FROM_3} drop", id="goto"
        ),
        pytest.param(
            [f"{DIALLED}: jump x", "drop"], [f"{FROM_3}: return", "drop"], "chain x: rule drop"
        ),
        pytest.param([f"{FROM_3}: jump x", f"{DIALLED}: drop"], ["accept"], REST, id="admits"),
        pytest.param([f"{FROM_3}: goto x", f"{DIALLED}: drop"], [], REST, id="leaves"),
        pytest.param(["jump x", f"{FROM_3} {DIALLED}: drop"], ["accept"], None, id="admits-all"),
        pytest.param([f"{FROM_3}: jump x"], [f"{FROM_3}: jump x"], None, id="circle"),
        pytest.param([f"{FROM_3}: drop"], [], None, id="list-for-all"),
        pytest.param([f"{FROM_3} tcp dport 80: drop"], [], None, id="a-port-of-many-services"),
        pytest.param([f"{FROM_3} ct original ip daddr 10.96.0.0/12: drop"], [], None, id="network"),
        pytest.param([f"{FROM_3} {DIALLED} …: drop"], [], None, id="not-understood"),
        pytest.param(["…: accept", f"{FROM_3} {DIALLED}: drop"], [], None, id="maybe-admitted"),
        pytest.param(["…saddr: vmap", f"{FROM_3} {DIALLED}: drop"], [], None, id="looked-up"),
        pytest.param(["ct status dnat: accept", f"{FROM_3} {DIALLED}: drop"], [], None),
        pytest.param([f"{FROM_3}: accept", "drop"], [], None, id="allow-list-for-all"),
        pytest.param([f"{FROM_3} {DIALLED}: jump gone"], [], None, id="chain-that-was-removed"),
    ],
)
def test_a_rule_that_names_the_frontend_drops_packets_of_some_clients(rules, inner, expected):
    found = find_drop_for_some(*chains_of(rules, {"x": inner}), FirstPacket(WEB, 36001))
    assert (found and str(found)) == expected
