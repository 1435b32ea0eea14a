from dataclasses import replace

import pytest

from userspace_proxy.cluster.forbidden import ClusterNetworks, Forbidden, ForbiddenAddresses
from userspace_proxy.model import Node, Service, ServiceKey
from userspace_proxy.model.endpoint_names import NameState

NETWORKS = ClusterNetworks(("10.244.0.0/16", "fd00:10:244::/56"), ("10.96.0.0/12",))


def service(name, *ips, **fields):
    return Service(ServiceKey("shop", name), (), cluster_ips=ips, **fields)


@pytest.fixture
def forbidden():
    made = ForbiddenAddresses(NETWORKS, {"198.51.100.1"}.__contains__)
    made.set_nodes(
        Node("node-1", ("198.51.100.2",), pod_networks=("10.250.1.0/24",)),
        frozenset({"198.51.100.3"}),
    )
    made.change_services(
        (),
        [
            service(
                "web",
                "172.20.0.1",
                external_ips=("203.0.113.8",),
                load_balancer_ips=("203.0.113.9",),
            )
        ],
    )
    return made


@pytest.mark.parametrize(
    ("ip", "why"),
    [
        pytest.param("127.0.0.1", "a loopback address", id="reserved"),
        pytest.param("10.244.7.1", Forbidden.PODS, id="pods"),
        pytest.param("fd00:10:244::1", Forbidden.PODS, id="pods-ipv6"),
        pytest.param("10.250.1.7", Forbidden.PODS, id="pods-of-this-node"),
        pytest.param("10.96.0.10", Forbidden.SERVICES, id="services"),
        pytest.param("172.20.0.1", Forbidden.SERVICE, id="cluster-ip"),
        pytest.param("203.0.113.8", Forbidden.SERVICE, id="external-ip"),
        pytest.param("203.0.113.9", Forbidden.SERVICE, id="load-balancer-ip"),
        pytest.param("198.51.100.1", Forbidden.THIS_NODE, id="this-node"),
        pytest.param("198.51.100.2", Forbidden.NODE, id="this-node-object"),
        pytest.param("198.51.100.3", Forbidden.NODE, id="other-node"),
        pytest.param("64:ff9b::7f00:1", "a loopback address", id="nat64-reserved"),
        pytest.param("64:ff9b::af4:701", Forbidden.PODS, id="nat64-pods"),
        pytest.param("64:ff9b::c633:6401", Forbidden.THIS_NODE, id="nat64-this-node"),
        pytest.param("203.0.113.1", "", id="elsewhere"),
        pytest.param("64:ff9b::cb00:7101", "", id="nat64-elsewhere"),
        pytest.param("10.250.2.7", "", id="private"),
    ],
)
def test_addresses_of_this_node_the_cluster_and_reserved_ranges_are_forbidden(forbidden, ip, why):
    assert forbidden.why(ip) == why


def test_a_node_address_claimed_by_a_service_is_forbidden_for_both_reasons(forbidden):
    claims = service("cip-node", "198.51.100.1")
    forbidden.change_services((), [claims])
    assert forbidden.why("198.51.100.1") == Forbidden.OF_BOTH
    forbidden.change_services([claims], ())
    assert forbidden.why("198.51.100.1") == Forbidden.THIS_NODE


def test_a_deleted_services_address_is_looked_up_in_the_kernel_again():
    routed = {"172.20.0.1"}
    forbidden, web = ForbiddenAddresses(NETWORKS, routed.__contains__), service("web", *routed)
    forbidden.change_services((), [web])
    assert forbidden.why("172.20.0.1") == Forbidden.OF_BOTH
    routed.clear()
    forbidden.change_services([web], ())
    assert forbidden.why("172.20.0.1") == ""


def test_the_kernel_is_queried_once_until_this_nodes_addresses_change():
    asked = []
    forbidden = ForbiddenAddresses(NETWORKS, lambda ip: bool(asked.append(ip)))
    assert forbidden.why("203.0.113.1") == forbidden.why("203.0.113.1") == ""
    assert asked == ["203.0.113.1"]
    forbidden.look_again()
    forbidden.why("203.0.113.1")
    assert asked == ["203.0.113.1"] * 2


def test_the_cache_of_kernel_answers_is_bounded(monkeypatch):
    monkeypatch.setattr("userspace_proxy.cluster.forbidden._OWN_MAX", 1)
    asked = []
    forbidden = ForbiddenAddresses(ClusterNetworks(), lambda ip: bool(asked.append(ip)))
    for ip in ("203.0.113.1", "203.0.113.2", "203.0.113.1"):
        forbidden.why(ip)
    assert len(asked) == 3


def test_setting_equal_node_addresses_is_not_reported_as_a_change(forbidden):
    node = Node("node-1", ("198.51.100.2",), pod_networks=("10.250.1.0/24",))
    others = frozenset({"198.51.100.3"})
    assert not forbidden.set_nodes(node, others)
    assert forbidden.set_nodes(replace(node, pod_networks=()), others)
    assert forbidden.set_nodes(None, frozenset())
    assert forbidden.why("198.51.100.2") == ""


@pytest.mark.parametrize(
    ("networks", "nodes", "unknown"),
    [
        (ClusterNetworks(is_shared=True), frozenset({"192.0.2.1"}), NameState.NETWORKS_UNKNOWN),
        (ClusterNetworks(("10.244.0.0/16",), is_shared=True), None, NameState.NODES_UNKNOWN),
        (ClusterNetworks(("10.244.0.0/16",), is_shared=True), frozenset(), None),
        (ClusterNetworks(), None, None),
    ],
)
def test_pod_and_node_networks_must_be_known_in_a_shared_cluster(networks, nodes, unknown):
    forbidden = ForbiddenAddresses(networks, lambda _ip: False)
    forbidden.set_nodes(None, nodes)
    assert forbidden.unknown is unknown


@pytest.mark.parametrize(
    ("pods", "ip", "why"),
    [
        ("10.244.0.0/16", "2001:db8::1", "of IPv6, while --cluster-cidr has no IPv6 network"),
        ("fd00:10:244::/56", "203.0.113.1", "of IPv4, while --cluster-cidr has no IPv4 network"),
        ("10.244.0.0/16", "203.0.113.1", ""),
        # The cluster is IPv6-only, with DNS64.
        ("fd00:10:244::/56", "64:ff9b::cb00:7101", ""),
    ],
)
def test_an_address_family_without_a_known_pod_network_is_forbidden(pods, ip, why):
    networks = ClusterNetworks((pods,), is_shared=True)
    assert ForbiddenAddresses(networks, lambda _ip: False).why(ip) == why
