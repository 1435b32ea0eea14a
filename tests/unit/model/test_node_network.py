"""Links, routes, next hops and bridge settings of a node."""

from userspace_proxy.model import Doubt, Taken
from userspace_proxy.model.node_network import NodeLink, NodeRoute


def test_a_route_without_a_link_leads_to_none_and_not_to_this_node():
    route = NodeRoute("10.244.2.0/24")
    assert (route.link, route.has_gateway, route.is_local) == (0, False, False)


def test_links_are_sorted_by_number_and_routes_by_network():
    links = [NodeLink(10, "eth0", ""), NodeLink(9, "veth0", "veth")]
    assert [link.number for link in sorted(links)] == [9, 10]
    routes = [NodeRoute("10.2.0.0/16"), NodeRoute("10.1.0.0/16", 9)]
    assert [route.network for route in sorted(routes)] == ["10.1.0.0/16", "10.2.0.0/16"]


def test_that_a_chain_takes_packets_is_shown_with_the_remedy():
    taken = Taken("a chain drops packets to it", "accept them", "ip evil in")
    assert str(taken) == "a chain drops packets to it; accept them"
    assert str(Taken("a chain drops packets to it")) == "a chain drops packets to it"
    assert (taken.chain, taken) == ("ip evil in", Taken(taken.what, taken.hint, taken.chain))


def test_a_doubt_is_no_certain_cause():
    doubt = Doubt("a chain may translate it", "delete it", "ip evil in")
    assert doubt != Taken(doubt.what, doubt.hint, doubt.chain)
    assert len({doubt, Doubt(doubt.what, doubt.hint, doubt.chain)}) == 1
