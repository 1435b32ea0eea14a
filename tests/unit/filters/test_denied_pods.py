from __future__ import annotations

from contextlib import closing
from ipaddress import ip_network

import pytest

from tests.unit.filters.usual import PODS
from tests.unit.filters.written import read
from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.filters.denied_pods import conditions_on_clients, find_denied
from userspace_proxy.filters.frontends import EarlierChains, Translation
from userspace_proxy.filters.packets import FirstPacket
from userspace_proxy.model import Doubt, Frontend, Protocol
from userspace_proxy.model.node_network import NodeLink, NodeRoute
from userspace_proxy.policy.locality import PodLink, find_pod_links
from userspace_proxy.steering.names import is_own_table

EVIL = ChainTable("inet", "evil")
WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
PORT = 36001
PACKETS = {one: FirstPacket(one, PORT) for one in (WEB, WEB_6)}
CALI_1 = PodLink(2, "cali1", (ip_network("10.244.1.1/32"), ip_network("fd00:1::1/128")))
CALI_2 = PodLink(3, "cali2", (ip_network("10.244.1.2/32"),))
CNI_0 = PodLink(4, "cni0", (ip_network("10.244.2.0/24"),))
DOCKER_0 = PodLink(5, "docker0", (ip_network("172.17.0.0/16"),))
LINKS = (CALI_1, CALI_2, CNI_0, DOCKER_0)


def denied_by(rules, others=(), policy="accept"):
    """Return what chains deny, which are written as ``condition: verdict``."""
    chains = {
        name: Chain(EVIL, name, "filter", "input", policy=policy, steps=(*map(read, lines),))
        for name, lines in {"in": rules, **dict(others)}.items()
    }
    return chains["in"], chains


def words_of(denied, packets=PACKETS, links=LINKS):
    return {one: by.words for one, by in find_denied(*denied, packets, links).items()}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(["iifname cali1: drop"], "cali1", id="link"),
        pytest.param(["iifname cali1 ct state new: reject"], "cali1", id="link-new"),
        pytest.param(["iif 3: drop"], "cali2", id="link-by-number"),
        pytest.param(["iifname cali*: drop"], "cali1 and cali2", id="links"),
        pytest.param(["iifname != eth0: drop"], "cali1, cali2 and cni0", id="all-but-another"),
        pytest.param(["iif != 2: drop"], "cali2 and cni0", id="all-but-one"),
        pytest.param(["iifname eth0: accept", "drop"], "cali1, cali2 and cni0", id="allowed-other"),
        pytest.param(["ip saddr 10.244.1.0/24: drop"], "cali1 and cali2", id="network"),
        pytest.param(["ip saddr 10.0.0.0/8: drop"], "cali1, cali2 and cni0", id="wide-network"),
        pytest.param(["ip saddr != 10.244.2.0/24: drop"], "cali1 and cali2", id="other-networks"),
        pytest.param(["ip saddr 10.244.1.1/32,10.244.2.0/24: drop"], "cali1 and cni0", id="list"),
        pytest.param(["ip saddr 10.244.1.1/32: accept", "drop"], "cali2 and cni0", id="allowed"),
        pytest.param(["iifname cni0: accept", "tcp dport 36001: drop"], "cali1 and cali2"),
        pytest.param(["ip saddr 10.244.2.7/32: drop"], "", id="one-pod-of-a-bridge"),
        pytest.param(["ip saddr 203.0.113.0/24: drop"], "", id="attackers"),
        pytest.param(["iifname eth0: drop"], "", id="closed-uplink"),
        pytest.param(["iifname eth0 ip saddr 10.0.0.0/8: drop"], "", id="spoofed-at-the-uplink"),
        pytest.param(["iifname docker0: drop"], "", id="another-programs-bridge"),
        pytest.param(["iifname cali1 tcp dport 22: drop"], "", id="another-port"),
        pytest.param(["iifname cali1 …: drop"], "", id="not-understood"),
        pytest.param(["…: accept", "iifname cali1: drop"], "", id="some-accepted-before"),
        pytest.param(["ct status dnat: accept", "iifname cali1: drop"], "", id="admitted"),
        pytest.param(["iifname cali1: accept"], "", id="drops-nothing"),
        pytest.param(["…saddr: drop"], "", id="not-readable"),
    ],
)
def test_links_whose_pods_are_denied_are_named(rules, expected):
    words = f"that come in by {expected}" if expected else ""
    assert words_of(denied_by(rules)).get(WEB, "") == words


def test_a_policy_of_drop_denies_the_pods_of_links_that_no_rule_admits():
    denied = denied_by(["iifname cali*: accept"], policy="drop")
    assert words_of(denied) == dict.fromkeys(PACKETS, "that come in by cni0")


def calicos(count):
    """Return links of so many pods."""
    of_pods = ((n, ip_network(f"10.244.{n // 250}.{n % 250}/32")) for n in range(2, 2 + count))
    return [PodLink(number, f"cali{number}", (network,)) for number, network in of_pods]


def test_of_many_links_the_first_are_named():
    found = words_of(denied_by(["iifname cali*: drop"]), links=calicos(10))
    assert found[WEB] == "that come in by cali2, cali3, cali4 and 7 more"


def test_a_link_without_a_route_leads_to_no_pod():
    """As ports of a bridge: their packets come in by the bridge."""
    ports = [PodLink(number, f"veth{number}") for number in (6, 7)]
    closed = denied_by(["iifname cni0: accept", "drop"])
    assert find_denied(*closed, PACKETS, [CNI_0, *ports]) == {}
    assert words_of(closed, links=[CALI_1, *ports])[WEB] == "that come in by cali1"


def test_ports_of_a_bridge_are_not_followed():
    links = (NodeLink(1, "lo", ""), NodeLink(2, "cni0", "bridge"), NodeLink(3, "veth1", "veth", 2))
    pods = find_pod_links(links, [NodeRoute("10.244.2.0/24", 2)])
    assert [pod.number for pod in pods] == [2, 3]
    assert find_denied(*denied_by(["iifname cni0: accept", "drop"]), PACKETS, pods) == {}


def test_rules_for_so_many_links_and_frontends_that_it_would_take_seconds_are_not_followed():
    rules = [f"iifname cali{number}: drop" for number in range(2, 202)]
    few, many = ({one: FirstPacket(one, PORT) for one in map(frontend, range(n))} for n in (1, 9))
    assert find_denied(*denied_by(rules), few, calicos(200)).keys() == few.keys()
    assert find_denied(*denied_by(rules), many, calicos(200)) == {}
    lists = (",".join(f"203.0.{n}.{m}/32" for m in range(200)) for n in range(10))
    blocked = ["iifname cali2: drop", *(f"ip saddr {listed}: drop" for listed in lists)]
    assert find_denied(*denied_by(blocked[:2]), few, calicos(200)).keys() == few.keys()
    assert find_denied(*denied_by(blocked), few, calicos(200)) == {}


def frontend(number: int) -> Frontend:
    return Frontend(f"10.96.8.{number}", 80, Protocol.TCP)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(["iifname cali1: drop"], True, id="link"),
        pytest.param(["ip saddr 10.0.0.0/8: accept", "drop"], True, id="source"),
        pytest.param(["iifname cali1: accept"], False, id="drops-nothing"),
        pytest.param(["tcp dport 22: drop"], False, id="all-clients"),
    ],
)
def test_links_matter_only_to_rules_that_drop_packets_of_some_clients(rules, expected):
    assert bool(conditions_on_clients(*denied_by(rules))) == expected


CLOSED = """nft '
    table inet evil {
        chain in { type filter hook input priority 0; iifname "veth-*" ct state new drop; }
    }'"""


def test_that_packets_of_pods_are_dropped_is_a_doubt_until_their_links_are_gone(node):
    node.run(PODS)
    node.run(CLOSED)
    with closing(EarlierChains(lambda _one: Translation(-110, PORT), is_own_table)) as earlier:
        found = earlier.look([WEB])
        chain = "nftables chain inet evil in of another program (input, priority 0) drops packets"
        what = f"{chain} to it that come in by veth-a"
        cause = found[WEB]
        assert (type(cause), cause.what, cause.chain) == (Doubt, what, "inet evil in")
        assert "pods of this node" in cause.hint
        node.run("ip link del veth-a")
        assert earlier.look([WEB]) == {}
        node.run("ip link add veth-b type veth; ip link set veth-b up")
        node.run("ip route add 10.244.1.3 dev veth-b")
        assert "come in by veth-b" in str(earlier.look([WEB])[WEB])
