"""Which bridges should deliver replies to this node, which bridges do, and obstacles."""

import logging

import pytest

from userspace_proxy.agent.watchers.client_bridges import ClientBridges
from userspace_proxy.model.node_network import BridgeFilter, NodeLink
from userspace_proxy.policy.locality import FILTERED_BRIDGE

CNI0 = 5
LINKS = (NodeLink(CNI0, "cni0", "bridge"),)
NETWORKS = {"10.1.0.0/24": CNI0, "fd00:1::/64": CNI0}
ON, ONLY_IPV4 = BridgeFilter(True, True, True), BridgeFilter(True, True, False)


@pytest.fixture
def bridges():
    return ClientBridges()


def test_networks_are_marked_while_the_kernel_delivers_their_bridged_packets(bridges):
    bridges.follow(LINKS, NETWORKS, ONLY_IPV4)
    assert bridges.wanted == {CNI0}
    assert bridges.mark(NETWORKS) == NETWORKS
    bridges.note([CNI0], "")
    assert bridges.mark(NETWORKS) == NETWORKS | {"10.1.0.0/24": FILTERED_BRIDGE}
    bridges.follow(LINKS, NETWORKS, BridgeFilter())
    assert bridges.mark(NETWORKS) == NETWORKS


def test_a_bridges_entry_stays_for_open_connections_while_it_is_effective(bridges):
    bridges.follow(LINKS, NETWORKS, BridgeFilter())
    assert bridges.wanted == frozenset()
    bridges.follow(LINKS, NETWORKS, ON)
    bridges.note(bridges.wanted, "")
    bridges.follow(LINKS, {}, BridgeFilter())
    assert bridges.wanted == {CNI0}
    bridges.follow((LINKS[0]._replace(filters_vlans=True),), {}, ON)
    assert bridges.wanted == frozenset()
    bridges.follow((), {}, ON)
    assert bridges.wanted == frozenset()


def test_a_bridges_own_obstacle_takes_precedence_over_a_rejected_bridge_table(bridges):
    bridges.follow(LINKS, NETWORKS, ONLY_IPV4)
    bridges.note([], "no nftables for bridges")
    assert [(one.version, one.cause) for one in bridges.obstacles] == [
        (4, "no nftables for bridges"),
        (6, "net.bridge.bridge-nf-call-ip6tables is 0"),
    ]


def test_an_obstacle_to_client_addresses_and_its_end_are_logged_once_each(bridges, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.agent")
    bridges.follow(LINKS, NETWORKS, ONLY_IPV4)
    for _ in range(2):
        bridges.log_obstacles()
    (record,) = caplog.records
    assert (record.bridge, record.family) == ("cni0", "IPv6")
    bridges.follow(LINKS, NETWORKS, ON)
    for _ in range(2):
        bridges.log_obstacles()
    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]
