"""Tests of the values that describe a node and its network."""

from userspace_proxy.model import Node, Taken
from userspace_proxy.model.node_network import NodeRoute


def test_a_route_without_an_interface_is_not_local():
    route = NodeRoute("10.244.2.0/24")
    assert (route.link, route.has_gateway, route.is_local) == (0, False, False)


def test_an_intercepted_frontend_is_shown_with_cause_and_remedy():
    taken = Taken("a chain drops packets to it", "Accept them", "ip evil in")
    assert str(taken) == "a chain drops packets to it; accept them"
    assert str(Taken("a chain drops packets to it")) == "a chain drops packets to it"
    assert (taken.chain, taken) == ("ip evil in", Taken(taken.what, taken.hint, taken.chain))


def test_a_node_known_only_by_name_is_not_being_deleted():
    node = Node("node-1")
    assert (node.addresses, node.zone, node.is_being_deleted) == ((), "", False)
