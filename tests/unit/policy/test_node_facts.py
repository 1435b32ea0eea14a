"""Tests of node facts from options, the Node object, interfaces and the API server."""

from dataclasses import replace

import pytest

from userspace_proxy.cluster import Store
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    Node,
    Service,
    ServiceKey,
    SliceKey,
    SlicePort,
)
from userspace_proxy.policy import NodeFacts, PolicyOptions
from userspace_proxy.policy.node_facts import make_facts, no_node_ports_reason, options_with

NODE = Node("node-7", ("192.0.2.10", "2001:db8::10"), "eu-1a")
API_SERVER = ServiceKey("default", "kubernetes")


def facts_of(snapshot=None, addresses=(), **options):
    return make_facts(PolicyOptions(**options), snapshot or Store().snapshot(), addresses)


def cluster(node=None, **endpoints):
    """Return a snapshot with the API server's Service and a slice for each name."""
    store = Store()
    store.set_node(node)
    store.put_service(Service(API_SERVER, ()))
    for name, ips in endpoints.items():
        family = IPFamily.of(ips[0])
        pods = tuple(Endpoint(ip) for ip in ips)
        port = SlicePort("https", 6443, "TCP")
        store.put_slice(EndpointSlice(SliceKey("default", name), API_SERVER, family, (port,), pods))
    return store.snapshot()


def test_facts_are_the_defaults_without_options_or_objects():
    assert facts_of() == NodeFacts()


def test_facts_come_from_options_and_addresses_without_a_node_object():
    facts = facts_of(
        None,
        ["127.0.0.1", "192.0.2.10"],
        node_name="node-7",
        proxy_name="canary",
        node_port_networks=("192.0.2.0/24",),
        external_ip_networks=("203.0.113.0/24",),
        cluster_networks=("10.0.0.0/8",),
    )
    assert facts == NodeFacts(
        node_name="node-7",
        proxy_name="canary",
        addresses=("127.0.0.1", "192.0.2.10"),
        all_node_addresses=frozenset({"127.0.0.1", "192.0.2.10"}),
        node_port_networks=("192.0.2.0/24",),
        external_ip_networks=("203.0.113.0/24",),
        cluster_networks=("10.0.0.0/8",),
    )


def test_zone_and_primary_addresses_are_read_from_the_node_object():
    facts = facts_of(cluster(NODE))
    assert (facts.zone, facts.primary_addresses) == ("eu-1a", ("192.0.2.10", "2001:db8::10"))
    assert facts.addresses == (), "interfaces have other addresses"


def test_the_bind_address_is_the_primary_address_of_its_family():
    facts = facts_of(cluster(NODE), node_addresses=("192.0.2.99",))
    assert facts.primary_addresses == ("192.0.2.99", "192.0.2.10", "2001:db8::10")
    assert facts_of(node_addresses=("192.0.2.99",)).primary_addresses == ("192.0.2.99",)


@pytest.mark.parametrize(
    ("node", "networks", "reason"),
    [
        (
            None,
            ("primary",),
            "--nodeport-addresses=primary needs a Node object with this node's name and an "
            "address, or --bind-address",
        ),
        (NODE, ("primary",), ""),
        (NODE, ("203.0.113.0/24",), "this node has no address that --nodeport-addresses allows"),
        (None, (), ""),
    ],
)
def test_the_reason_why_a_node_has_no_node_port_address_is_returned(node, networks, reason):
    facts = facts_of(cluster(node), ["127.0.0.1", "192.0.2.10"], node_port_networks=networks)
    assert no_node_ports_reason(facts) == reason


def test_api_servers_are_the_endpoints_of_their_service_in_all_slices():
    facts = facts_of(
        cluster(four=["192.0.2.3", "192.0.2.2"], more=["192.0.2.2"], six=["2001:db8::2"])
    )
    assert facts.api_server_addresses == ("192.0.2.2", "192.0.2.3", "2001:db8::2")


def test_a_slice_with_the_headless_label_provides_no_api_server_address():
    store = Store()
    store.put_service(Service(API_SERVER, ()))
    (item,) = cluster(four=["192.0.2.2"]).services[API_SERVER].slices
    store.put_slice(replace(item, is_headless=True))
    assert facts_of(store.snapshot()).api_server_addresses == ()


@pytest.mark.parametrize("is_allowed", [False, True])
def test_options_determine_whether_loopback_endpoints_are_allowed(is_allowed):
    facts = facts_of(allow_loopback_endpoints=is_allowed)
    assert facts.allow_loopback_endpoints == is_allowed


@pytest.mark.parametrize(("steering", "is_allowed"), [("none", True), ("local", False)])
def test_loopback_and_node_endpoints_are_allowed_without_steering(steering, is_allowed):
    options = options_with(steering, PolicyOptions(allow_node_endpoints=False))
    assert options.allow_loopback_endpoints is options.allow_node_endpoints is is_allowed
    assert facts_of(allow_node_endpoints=is_allowed).allow_node_endpoints is is_allowed


@pytest.mark.parametrize(
    ("pod_networks", "only_own_pods", "inside"),
    [
        pytest.param(("10.244.1.0/24",), True, ("10.244.1.0/24",), id="node"),
        pytest.param(("10.244.1.0/24",), False, ("10.244.0.0/16",), id="cluster"),
        pytest.param((), True, ("10.244.0.0/16",), id="cluster-if-the-node-has-none"),
    ],
)
def test_inside_networks_are_the_pod_networks_of_the_cluster_or_the_node(
    pod_networks, only_own_pods, inside
):
    node = Node("node-7", pod_networks=pod_networks)
    facts = facts_of(
        cluster(node), only_own_pods=only_own_pods, cluster_networks=("10.244.0.0/16",)
    )
    assert facts.cluster_networks == inside


def test_the_addresses_of_all_nodes_include_this_nodes_addresses():
    store = Store()
    store.set_node(NODE)
    store.set_node_addresses(frozenset({"192.0.2.11"}))
    facts = facts_of(store.snapshot(), ["127.0.0.1"])
    assert facts.all_node_addresses == {"127.0.0.1", *NODE.addresses, "192.0.2.11"}
