"""The node, as far as it is known."""

from userspace_proxy.model import Node


def test_a_node_of_which_only_the_name_is_known_is_not_being_deleted():
    node = Node("node-1")
    assert (node.addresses, node.zone, node.is_being_deleted) == ((), "", False)
