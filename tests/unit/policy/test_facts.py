"""Tests of node port addresses, and of which clients count as inside."""

import pytest

from userspace_proxy.model import IPFamily, Protocol
from userspace_proxy.policy import PRIMARY, NodeFacts

V4, V6 = IPFamily.IPV4, IPFamily.IPV6
NODE_IP, OTHER_IP, NODE_IP_V6 = "192.0.2.10", "203.0.113.10", "2001:db8::10"
ADDRESSES = ("127.0.0.1", NODE_IP, OTHER_IP, "::1", NODE_IP_V6)


@pytest.mark.parametrize(
    ("networks", "family", "expected"),
    [
        pytest.param((), V4, ("127.0.0.1", NODE_IP, OTHER_IP), id="unset-all-with-localhost"),
        pytest.param((), V6, ("::1", NODE_IP_V6), id="unset-all-of-ipv6-with-localhost"),
        pytest.param(("192.0.2.0/24",), V4, (NODE_IP,), id="addresses-in-a-network"),
        pytest.param(("127.0.0.0/8",), V4, ("127.0.0.1",), id="localhost-alone"),
        pytest.param(("::1/128",), V6, ("::1",), id="localhost-of-ipv6-alone"),
        pytest.param(
            ("203.0.113.0/24", "192.0.2.0/24"), V4, (NODE_IP, OTHER_IP), id="several-networks"
        ),
        pytest.param(("192.0.2.0/24", "2001:db8::/32"), V6, (NODE_IP_V6,), id="by-family"),
        pytest.param(("0.0.0.0/0",), V4, ("127.0.0.1", NODE_IP, OTHER_IP), id="whole-family"),
        pytest.param(("0.0.0.0/0",), V6, (), id="networks-of-the-other-family-allow-nothing"),
        pytest.param(("198.51.100.0/24",), V4, (), id="no-address-in-the-networks"),
        pytest.param((PRIMARY,), V4, (OTHER_IP,), id="primary-is-the-first-of-the-node-object"),
        pytest.param((PRIMARY,), V6, (NODE_IP_V6,), id="primary-of-ipv6"),
        pytest.param(("localhost",), V4, ("127.0.0.1",), id="localhost-by-name"),
        pytest.param(("localhost",), V6, ("::1",), id="localhost-of-ipv6-by-name"),
        pytest.param(
            (PRIMARY, "localhost"), V4, ("127.0.0.1", OTHER_IP), id="primary-and-localhost"
        ),
        pytest.param((PRIMARY, "192.0.2.0/24"), V4, (NODE_IP, OTHER_IP), id="primary-and-cidr"),
        pytest.param(("localhost", "192.0.2.0/24"), V6, ("::1",), id="localhost-and-cidr-of-ipv4"),
        pytest.param(("all",), V4, ("127.0.0.1", NODE_IP, OTHER_IP), id="all-by-name"),
        pytest.param(("192.0.2.0/24", "all"), V6, ("::1", NODE_IP_V6), id="all-and-cidr"),
    ],
)
def test_node_port_addresses_are_limited_to_the_configured_networks(networks, family, expected):
    facts = NodeFacts(
        addresses=ADDRESSES,
        primary_addresses=(OTHER_IP, NODE_IP, NODE_IP_V6),
        node_port_networks=networks,
    )
    assert facts.node_port_addresses(family) == expected


@pytest.mark.parametrize(
    ("networks", "everywhere"),
    [((), True), (("all",), True), ((PRIMARY, "all"), True), ((PRIMARY, "localhost"), False)],
)
def test_node_ports_are_served_everywhere_if_no_or_all_networks_are_set(networks, everywhere):
    assert NodeFacts(node_port_networks=networks).has_node_ports_everywhere is everywhere


def test_node_port_addresses_primary_selects_no_address_that_the_node_lacks():
    facts = NodeFacts(
        addresses=ADDRESSES, primary_addresses=("198.51.100.1",), node_port_networks=(PRIMARY,)
    )
    assert facts.node_port_addresses(V4) == facts.node_port_addresses(V6) == ()


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        pytest.param(
            V4,
            ("10.1.0.0/16", "127.0.0.0/8", "127.0.0.1/32", "192.0.2.10/32", "203.0.113.10/32"),
            id="ipv4",
        ),
        pytest.param(V6, ("fd00::/48", "::1/128", "2001:db8::10/128"), id="ipv6-each-once"),
    ],
)
def test_cluster_networks_and_the_nodes_own_addresses_are_inside(family, expected):
    facts = NodeFacts(addresses=ADDRESSES, cluster_networks=("10.1.0.0/16", "fd00::/48"))
    assert facts.inside(family) == expected


def test_pods_are_outside_without_a_cluster_network():
    assert NodeFacts(addresses=(NODE_IP,)).inside(V4) == ("127.0.0.0/8", "192.0.2.10/32")


def test_the_ports_of_a_range_are_listed_singly_if_the_kernel_path_lacks_tcp():
    facts = (NodeFacts(no_kernel_path={key: "no"}) for key in (Protocol.TCP, V4))
    assert [one.lists_ports for one in facts] == [True, False]
