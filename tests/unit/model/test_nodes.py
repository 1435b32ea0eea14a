"""The node, as far as it is known."""

from userspace_proxy.model import Node


def test_a_node_of_which_only_the_name_is_known_is_not_being_deleted():
    node = Node("node-1")
    assert (node.addresses, node.zone, node.is_being_deleted) == ((), "", False)


def test_nodes_that_say_the_same_are_equal():
    assert Node("node-1", ("192.0.2.1",), "zone-a") == Node("node-1", ("192.0.2.1",), "zone-a")
    assert Node("node-1") != Node("node-1", is_being_deleted=True)
