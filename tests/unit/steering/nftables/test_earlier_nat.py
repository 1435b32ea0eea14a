import pytest

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.nftables.earlier_nat import earlier_chains, translates
from userspace_proxy.steering.others import Chain

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)


@pytest.mark.parametrize(
    ("condition", "frontend", "expected"),
    [
        pytest.param("", WEB, True, id="everything"),
        pytest.param("ip daddr 10.96.7.1/32 tcp dport 80", WEB, True, id="its-address"),
        pytest.param("ip daddr 10.96.0.0/12", WEB, True, id="its-range"),
        pytest.param("ip6 daddr fd00:96::/108", WEB_6, True, id="its-range-6"),
        pytest.param("ip daddr 10.96.7.1/32 …", WEB, True, id="its-address-for-some"),
        pytest.param("tcp dport 80-90", WEB, True, id="its-port"),
        pytest.param("th dport 80", WEB, True, id="its-port-of-any-protocol"),
        pytest.param("ct state new", WEB, True, id="new-connections"),
        pytest.param("… tcp dport 80", WEB, False, id="its-port-for-some"),
        pytest.param("…", WEB, False, id="not-understood"),
        pytest.param("ip daddr 10.96.7.2/32", WEB, False, id="another-address"),
        pytest.param("ip daddr 10.96.0.0/12 ip daddr 10.97.0.0/16", WEB, False, id="not-both"),
        pytest.param("ip daddr 0.0.0.0/0", WEB_6, False, id="another-family"),
        pytest.param("meta nfproto ipv4", WEB_6, False, id="another-family-in-words"),
        pytest.param("udp dport 80", WEB, False, id="another-protocol"),
        pytest.param("meta l4proto udp", WEB, False, id="another-protocol-without-port"),
        pytest.param("tcp dport 81", WEB, False, id="another-port"),
    ],
)
def test_a_rule_translates_what_it_names_or_surely_meets(condition, frontend, expected):
    assert translates(condition, frontend) == expected


@pytest.mark.parametrize(
    ("table", "chain", "is_earlier"),
    [
        pytest.param("ip evil", ("nat", "prerouting", -150), True, id="before"),
        pytest.param("ip evil", ("nat", "output", -110), True, id="beside"),
        pytest.param("ip nat", ("nat", "prerouting", -100), False, id="docker"),
        pytest.param("inet firewalld", ("nat", "prerouting", -90), False, id="firewalld"),
        pytest.param("ip evil", ("nat", "postrouting", -150), False, id="masquerades"),
        pytest.param("ip evil", ("filter", "prerouting", -300), False, id="filters"),
        pytest.param("inet userspace-proxy-canary", ("nat", "output", -110), False, id="ours"),
    ],
)
def test_only_nat_chains_of_others_at_or_before_our_priority_matter(table, chain, is_earlier):
    tables = {table: {"chain": Chain(table, "chain", *chain)}}
    assert bool(list(earlier_chains(tables, -110))) == is_earlier
