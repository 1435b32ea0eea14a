import pytest

from tests.unit.filters.written import nft, read
from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.filters.following import find_drop, follow
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
        pytest.param([nft("accept", NAMED), ALL], {}, False, id="accepted-before"),
        pytest.param([nft("accept", "…"), TO_WEB], {}, False, id="some-are-accepted-before"),
        pytest.param([nft("accept", "udp dport 80"), ALL], {}, True, id="others-are-accepted"),
        pytest.param([nft("return", NAMED), ALL], {}, False, id="left-before"),
        pytest.param([nft("jump x", NAMED)], {"x": [ALL]}, True, id="in-another-chain"),
        pytest.param([nft("jump x", "…")], {"x": [ALL]}, False, id="all-in-a-chain-for-some"),
        pytest.param([nft("jump x"), TO_WEB], {"x": [nft("return")]}, True, id="returns"),
        pytest.param([nft("jump x"), TO_WEB], {"x": [nft("accept")]}, False, id="ends-there"),
        pytest.param([nft("goto x"), TO_WEB], {"x": []}, False, id="never-returns"),
        pytest.param([nft("jump x"), TO_WEB], {"x": [nft("jump x")]}, True, id="circle"),
    ],
)
def test_rules_are_evaluated_in_order_across_jumps_and_returns(steps, others, expected):
    chains = {name: Chain(EVIL, name, steps=tuple(s)) for name, s in others.items()}
    base = Chain(EVIL, "pre", "nat", "prerouting", -150, steps=tuple(steps))
    outcome = follow(base, chains, FirstPacket(WEB), "nat")
    assert outcome.is_certain is expected


def test_a_rule_for_local_addresses_certainly_matches_only_node_ports():
    base = Chain(EVIL, "pre", "nat", "prerouting", -150, steps=(nft("translate", HERE),))
    assert follow(base, {}, FirstPacket(NODE_PORT), "nat").is_certain
    assert follow(base, {}, FirstPacket(WEB), "nat").is_certain is False


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
def test_a_packet_counts_as_dropped_if_all_paths_drop_it(rules, others, expected):
    found = find_drop(*chains_of(rules, others), FirstPacket(WEB))
    assert (found and str(found)) == expected


@pytest.mark.parametrize(
    ("hook", "priority", "is_dropped"),
    [
        ("prerouting", -200, False),
        ("prerouting", -199, True),
        ("output", -300, False),
        ("forward", -300, True),
    ],
)
def test_a_rule_about_new_connections_drops_only_tracked_packets(hook, priority, is_dropped):
    steps = (nft("drop", "ct state new"),)
    base = Chain(EVIL, "first", "filter", hook, priority, steps=steps)
    assert (find_drop(base, {}, FirstPacket(WEB)) is not None) is is_dropped


def chains_of(rules, others):
    chains = {
        name: Chain(EVIL, name, steps=tuple(read(line) for line in lines))
        for name, lines in {"in": rules, **others}.items()
    }
    return chains["in"], chains
