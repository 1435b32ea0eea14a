"""Tests of which connections may use the client's own address, as a decision table."""

import pytest

from userspace_proxy.model.node_network import NodeLink, NodeRoute
from userspace_proxy.policy import locality as module
from userspace_proxy.policy.locality import (
    FILTERED_BRIDGE,
    HERE,
    OUTSIDE,
    ROUTED,
    Locality,
    find_networks,
    find_pod_links,
)

from ..kept import kept_by

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
        pytest.param(POD_A, BRIDGED, True, id="a-pod-and-a-bridged-pod"),
        pytest.param(BRIDGED, BRIDGED_TOO, False, id="two-pods-of-one-bridge"),
        pytest.param(POD_A, POD_A, False, id="a-pod-and-itself"),
        pytest.param(POD_A, REMOTE, True, id="a-pod-and-another-nodes-pod"),
        pytest.param(BRIDGED, REMOTE, True, id="a-bridged-pod-and-another-nodes-pod"),
        pytest.param(POD_A, NEIGHBOUR, False, id="a-pod-and-another-node-itself"),
        pytest.param(POD_A, STORAGE, False, id="a-pod-and-a-second-lan"),
        pytest.param(POD_A, LAPTOP, False, id="a-pod-and-the-world"),
        pytest.param(LAPTOP, POD_A, True, id="the-world-and-a-pod"),
        pytest.param(NEIGHBOUR, BRIDGED, True, id="another-node-and-a-pod"),
        pytest.param(REMOTE, POD_A, True, id="another-nodes-pod-and-a-pod"),
        pytest.param(LAPTOP, REMOTE, False, id="the-world-and-a-pod-of-another-node"),
        pytest.param(STORAGE, REMOTE, False, id="a-second-lan-and-a-pod-of-another-node"),
        pytest.param(REMOTE, REMOTE, False, id="two-pods-of-other-nodes"),
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
def test_the_client_address_is_kept_if_replies_return_through_this_node(client, endpoint, keeps):
    locality = Locality(find_networks(LINKS, ROUTES, ()))
    # The first result is computed, the second is from the cache.
    assert [locality.keeps_client(client, endpoint) for _ in range(2)] == [keeps, keeps]


def test_on_a_filtered_bridge_only_a_pod_dialling_itself_gets_the_nodes_address():
    locality = Locality({"10.244.1.128/25": FILTERED_BRIDGE, "10.244.2.0/24": ROUTED})
    assert locality.keeps_client(BRIDGED, BRIDGED_TOO)
    assert locality.keeps_client(BRIDGED, REMOTE)
    assert not locality.keeps_client(BRIDGED, BRIDGED)


def test_containers_of_this_node_are_distinguished_from_other_clients():
    locality = Locality({"10.244.1.2/32": VETH_A, "10.244.1.128/25": FILTERED_BRIDGE})
    for _ in range(2):
        assert [locality.attaches(ip) for ip in (POD_A, BRIDGED, LAPTOP)] == [True, True, False]


@pytest.mark.parametrize(
    ("cluster", "place"),
    [
        pytest.param(("10.244.0.0/16",), ROUTED, id="in-the-range"),
        pytest.param(("10.8.0.0/16",), OUTSIDE, id="outside-the-range"),
        pytest.param(("fd00::/8",), ROUTED, id="other-family"),
    ],
)
def test_the_cluster_range_distinguishes_pods_from_machines_behind_a_gateway(cluster, place):
    routes = (NodeRoute("10.244.2.0/24", ETH0, has_gateway=True),)
    assert find_networks(LINKS, routes, cluster)["10.244.2.0/24"] == place


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
def test_networks_on_links_to_other_machines_are_outside_or_routed(links):
    place = find_networks(links, [NodeRoute("10.9.0.0/24", 9)], ())["10.9.0.0/24"]
    assert place in (OUTSIDE, ROUTED)


def test_a_link_to_a_gateway_has_no_attached_addresses():
    links = [NodeLink(9, "eth0", "veth")]
    routes = [NodeRoute("10.9.0.0/24", 9), NodeRoute("0.0.0.0/0", 9, has_gateway=True)]
    assert find_networks(links, routes, ()) == {"10.9.0.0/24": OUTSIDE}


def test_a_link_of_a_route_with_several_gateways_is_not_a_pod_link():
    """The kernel lists a route with several gateways without a link of its own."""
    links = [
        NodeLink(9, "eth0", "veth"),
        NodeLink(8, "br0", "bridge"),
        NodeLink(7, "br1", "bridge"),
    ]
    routes = [
        NodeRoute("10.9.0.0/24", 8),
        NodeRoute("10.8.0.0/24", 7),
        NodeRoute("0.0.0.0/0", has_gateway=True, gateway_links=(9, 8)),
    ]
    assert [one.number for one in find_pod_links(links, routes)] == [7]
    assert find_networks(links, routes, ())["10.9.0.0/24"] == OUTSIDE


@pytest.mark.parametrize(
    ("kind", "network", "place"),
    [
        pytest.param("veth", "10.9.0.2/32", 9, id="a-pod"),
        pytest.param("veth", "fd00:9::2/128", 9, id="a-pod-by-ipv6"),
        pytest.param("veth", "10.9.0.0/24", OUTSIDE, id="a-lan"),
        pytest.param("veth", "fd00:9::/64", OUTSIDE, id="a-lan-by-ipv6"),
        pytest.param("bridge", "10.9.0.0/24", 9, id="a-bridge"),
    ],
)
def test_a_veth_has_attached_addresses_and_a_bridge_has_attached_networks(kind, network, place):
    """If a node is itself a container, it reaches its LANs through veths."""
    routes = (NodeRoute(network, 9), NodeRoute("fe80::/64", 9))
    assert find_networks([NodeLink(9, "second", kind)], routes, ())[network] == place


def test_a_single_address_is_not_attached_to_a_veth_that_also_has_a_network():
    links = [NodeLink(9, "second", "veth")]
    routes = (NodeRoute("10.9.0.0/24", 9), NodeRoute("10.9.0.7/32", 9))
    assert set(find_networks(links, routes, ()).values()) == {OUTSIDE}


def test_a_change_of_networks_takes_effect_immediately_despite_the_cache():
    locality = Locality({"10.9.0.2/32": 9})
    assert locality.keeps_client(LAPTOP, "10.9.0.2")
    locality.change(["10.9.0.2/32"], {})
    assert not locality.keeps_client(LAPTOP, "10.9.0.2")
    locality.change([], {"10.9.0.0/24": 9})
    assert locality.keeps_client(LAPTOP, "10.9.0.2")
    locality.change([], {"10.9.0.0/24": HERE})
    assert not locality.keeps_client(LAPTOP, "10.9.0.2")


@pytest.mark.pure
def test_incremental_changes_give_the_same_locality_as_a_single_change():
    steps = (
        ([], {"10.9.0.0/24": 9, "10.9.0.2/32": HERE, "fd00::/64": 8}),
        (["10.9.0.2/32", "10.8.0.0/16"], {}),
        ([], {"10.9.0.0/16": 7, "10.9.0.0/24": ROUTED}),
        (["10.9.0.0/24"], {"10.9.0.2/32": 6}),
        (["fd00::/64", "10.9.0.2/32"], {"10.9.0.2/32": 5}),
    )
    locality, networks = Locality(), {}
    for removed, added in steps:
        locality.change(removed, added)
        networks = {text: place for text, place in networks.items() if text not in removed} | added
        anew = Locality(networks)
        assert kept_by(locality) == kept_by(anew)
        for endpoint in ("10.9.0.2", "10.9.0.3", "10.9.7.7", "fd00::7"):
            for client in ("192.0.2.9", "fd00:9::9", "10.9.0.3"):
                kept = locality.keeps_client(client, endpoint)
                assert kept == anew.keeps_client(client, endpoint)


@pytest.mark.pure
def test_addresses_beyond_the_cache_size_have_the_same_locality(monkeypatch):
    monkeypatch.setattr(module, "_CACHED", 2)
    locality = Locality({"10.9.0.0/24": 9})
    endpoints = [f"10.{n}.0.{m}" for n in (9, 8) for m in range(5)]
    before = kept_by(locality)
    answers = [locality.keeps_client(LAPTOP, endpoint) for endpoint in endpoints * 2]
    assert sum(kept_by(locality).values()) <= sum(before.values()) + 2 * module._CACHED
    assert answers == ([True] * 5 + [False] * 5) * 2


def test_a_change_of_locality_parses_only_the_changed_networks(monkeypatch):
    networks = {f"10.{n // 256}.{n % 256}.0/24": ROUTED for n in range(10_000)}
    locality = Locality(networks)
    read = []
    parse = module.parse_network
    monkeypatch.setattr(module, "parse_network", lambda text: (read.append(text), parse(text))[1])
    locality.change(["10.0.1.0/24"], {"10.9.9.9/32": 3})
    assert read == ["10.0.1.0/24", "10.9.9.9/32"]


def test_pod_links_are_links_and_bridges_routed_only_to_containers():
    found = {one.number: list(map(str, one.networks)) for one in find_pod_links(LINKS, ROUTES)}
    assert found == {
        VETH_A: ["10.244.1.2/32", "fd00:1::2/128"],
        VETH_B: ["10.244.1.3/32", "fd00:1::3/128"],
        CNI0: ["10.244.1.128/25"],
    }


def test_links_of_default_routes_are_uplinks():
    links = [NodeLink(1, "lo", ""), NodeLink(2, "eth0", ""), NodeLink(7, "veth7", "veth")]
    routes = [
        NodeRoute("0.0.0.0/0", 2, has_gateway=True),
        NodeRoute("::/0", gateway_links=(2, 9)),
        NodeRoute("10.0.0.7/32", 7),
    ]
    (uplink,) = module.find_uplinks(links, routes)
    assert (uplink.number, uplink.name, uplink.is_uplink) == (2, "eth0", True)
    assert list(map(str, uplink.networks)) == ["0.0.0.0/0", "::/0"]
    assert not any(link.is_uplink for link in find_pod_links(links, routes))
