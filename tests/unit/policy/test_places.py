"""Whose connections to whom may bear the client's own address: the decision table."""

import pytest

from userspace_proxy.policy.places import (
    HERE,
    OUTSIDE,
    ROUTED,
    NodeLink,
    NodeRoute,
    Places,
    find_places,
    may_keep,
)

LO, ETH0, VETH_A, VETH_B, CNI0, FLANNEL, ETH1 = range(1, 8)
LINKS = (
    NodeLink(LO, "lo", ""),
    NodeLink(ETH0, "eth0", ""),
    NodeLink(VETH_A, "veth-a", "veth"),
    NodeLink(VETH_B, "veth-b", "veth"),
    NodeLink(CNI0, "cni0", "bridge"),
    NodeLink(FLANNEL, "flannel.1", "vxlan"),
    NodeLink(ETH1, "eth1", ""),
)
NODE, POD_A, POD_B, BRIDGED, BRIDGED_TOO = (
    "192.0.2.1",
    "10.244.1.2",
    "10.244.1.3",
    "10.244.1.130",
    "10.244.1.131",
)
REMOTE, LAPTOP, NEIGHBOUR, STORAGE = "10.244.2.7", "203.0.113.9", "192.0.2.77", "198.51.100.5"
ROUTES = (
    NodeRoute("0.0.0.0/0", ETH0, has_gateway=True),
    NodeRoute("192.0.2.0/24", ETH0),
    NodeRoute("198.51.100.0/24", ETH1),
    NodeRoute("192.0.2.1/32", is_local=True),
    NodeRoute("127.0.0.0/8", is_local=True),
    NodeRoute("10.244.1.2/32", VETH_A),
    NodeRoute("10.244.1.3/32", VETH_B),
    NodeRoute("10.244.1.0/24"),
    NodeRoute("10.244.1.128/25", CNI0),
    NodeRoute("10.244.1.129/32", is_local=True),
    NodeRoute("10.244.2.0/24", FLANNEL),
    NodeRoute("fd00:1::2/128", VETH_A),
    NodeRoute("fd00:1::3/128", VETH_B),
    NodeRoute("fe80::/64", VETH_A),
)


@pytest.mark.parametrize(
    ("client", "endpoint", "keeps"),
    [
        pytest.param(POD_A, POD_B, True, id="two-pods-with-links-of-their-own"),
        pytest.param(POD_A, BRIDGED, True, id="a-pod-and-one-of-a-bridge"),
        pytest.param(BRIDGED, BRIDGED_TOO, False, id="two-pods-of-one-bridge"),
        pytest.param(POD_A, POD_A, False, id="a-pod-and-itself"),
        pytest.param(POD_A, REMOTE, True, id="a-pod-and-one-of-another-node"),
        pytest.param(BRIDGED, REMOTE, True, id="the-same-from-a-bridge"),
        pytest.param(POD_A, NEIGHBOUR, False, id="a-pod-and-another-node-itself"),
        pytest.param(POD_A, STORAGE, False, id="a-pod-and-a-second-lan"),
        pytest.param(POD_A, LAPTOP, False, id="a-pod-and-the-world"),
        pytest.param(LAPTOP, POD_A, True, id="the-world-and-a-pod"),
        pytest.param(NEIGHBOUR, BRIDGED, True, id="another-node-and-a-pod"),
        pytest.param(REMOTE, POD_A, True, id="a-pod-of-another-node-and-one-of-this"),
        pytest.param(LAPTOP, REMOTE, False, id="the-world-and-a-pod-of-another-node"),
        pytest.param(STORAGE, REMOTE, False, id="a-second-lan-and-a-pod-of-another-node"),
        pytest.param(REMOTE, REMOTE, False, id="two-of-other-nodes"),
        pytest.param(NODE, POD_A, False, id="this-node"),
        pytest.param("127.0.0.1", POD_A, False, id="this-node-by-loopback"),
        pytest.param("10.244.1.129", BRIDGED, False, id="this-node-by-its-gateways-address"),
        pytest.param(POD_A, NODE, False, id="an-endpoint-on-this-nodes-own-address"),
        pytest.param("fd00:1::2", "fd00:1::3", True, id="ipv6"),
        pytest.param(POD_A, "fd00:1::3", False, id="two-families"),
        pytest.param("fe80::2%eth0", "fd00:1::3", False, id="a-link-local-client"),
        pytest.param("nonsense", POD_A, False, id="no-address-at-all"),
    ],
)
def test_the_decision(client, endpoint, keeps):
    places = Places(find_places(LINKS, ROUTES, ()))
    # Once computed, once remembered.
    assert [places.keeps_client(client, endpoint) for _ in range(2)] == [keeps, keeps]


@pytest.mark.parametrize("client", [HERE, OUTSIDE, ROUTED, VETH_A])
def test_nobody_keeps_an_address_towards_who_may_answer_another_way(client):
    assert not may_keep(client, OUTSIDE)
    assert not may_keep(client, HERE)
    assert may_keep(client, ROUTED) == (client == VETH_A)


@pytest.mark.parametrize(
    ("cluster", "place"),
    [
        pytest.param(("10.244.0.0/16",), ROUTED, id="in-it"),
        pytest.param(("10.8.0.0/16",), OUTSIDE, id="beside-it"),
        pytest.param(("fd00::/8",), ROUTED, id="of-the-other-family"),
    ],
)
def test_the_clusters_range_tells_pods_from_other_machines_behind_a_gateway(cluster, place):
    routes = (NodeRoute("10.244.2.0/24", ETH0, has_gateway=True),)
    assert find_places(LINKS, routes, cluster)["10.244.2.0/24"] == place


@pytest.mark.parametrize(
    "links",
    [
        pytest.param([NodeLink(9, "br0", "bridge"), NodeLink(2, "eth0", "", 9)], id="hardware"),
        pytest.param([NodeLink(9, "br0", "bridge"), NodeLink(2, "vx", "vxlan", 9)], id="overlay"),
        pytest.param([NodeLink(9, "weave", "bridge")], id="weave"),
        pytest.param([NodeLink(9, "ovs", "openvswitch")], id="switch"),
        pytest.param([NodeLink(9, "wg0", "wireguard")], id="tunnel"),
    ],
)
def test_a_link_that_others_may_be_behind_attaches_nobody(links):
    place = find_places(links, [NodeRoute("10.9.0.0/24", 9)], ())["10.9.0.0/24"]
    assert place in (OUTSIDE, ROUTED)


def test_a_link_that_leads_to_a_gateway_attaches_nobody():
    links = [NodeLink(9, "eth0", "veth")]
    routes = [NodeRoute("10.9.0.0/24", 9), NodeRoute("0.0.0.0/0", 9, has_gateway=True)]
    assert find_places(links, routes, ()) == {"10.9.0.0/24": OUTSIDE}


def test_a_change_counts_at_once_though_the_pair_is_remembered():
    places = Places({"10.9.0.2/32": 9})
    assert places.keeps_client(LAPTOP, "10.9.0.2")
    places.change(["10.9.0.2/32"], {})
    assert not places.keeps_client(LAPTOP, "10.9.0.2")
    places.change([], {"10.9.0.0/24": 9})
    assert places.keeps_client(LAPTOP, "10.9.0.2")
    places.change([], {"10.9.0.0/24": HERE})
    assert not places.keeps_client(LAPTOP, "10.9.0.2")
