"""Tests of which bridges deliver replies to clients on the same bridge to this node."""

import pytest

from userspace_proxy.model.node_network import BridgeFilter, NodeLink
from userspace_proxy.policy.bridges import (
    BridgeProblem,
    find_bridge_problems,
    mark_filtered,
    pod_bridges,
)
from userspace_proxy.policy.locality import FILTERED_BRIDGE, HERE

CNI0, VETH, OTHER = 5, 6, 7
BRIDGE = NodeLink(CNI0, "cni0", "bridge")
PORT = NodeLink(VETH, "veth0", "veth", CNI0)
NETWORKS = {"10.1.0.0/24": CNI0, "fd00:1::/64": CNI0, "10.1.0.1/32": HERE, "10.2.0.2/32": OTHER}
ON = BridgeFilter(True, True, True)


def obstacles(settings, bridge=BRIDGE, port=PORT):
    links = (bridge, port, NodeLink(OTHER, "veth1", "veth"))
    return find_bridge_problems(pod_bridges(links, NETWORKS), links, settings)


def test_bridges_with_pod_networks_are_found_by_ip_version():
    assert pod_bridges([BRIDGE, PORT], NETWORKS) == {(CNI0, 4): BRIDGE, (CNI0, 6): BRIDGE}
    assert pod_bridges([BRIDGE, PORT], {"10.1.0.0/24": HERE}) == {}


def test_bridge_sysctls_are_evaluated_for_each_ip_version():
    assert obstacles(ON) == {}
    assert obstacles(BridgeFilter(True, True, False)) == {
        (CNI0, 6): BridgeProblem(
            "cni0",
            6,
            "net.bridge.bridge-nf-call-ip6tables is 0",
            "sysctl -w net.bridge.bridge-nf-call-ip6tables=1, or for this bridge alone "
            "ip link set cni0 type bridge nf_call_ip6tables 1",
        )
    }


def test_a_bridge_name_is_quoted_in_a_suggested_command():
    bridge = NodeLink(CNI0, "$(a)", "bridge")
    (found,) = obstacles(BridgeFilter(True, True, False), bridge).values()
    assert "ip link set '$(a)' type bridge" in found.hint


def test_a_bridges_own_option_has_the_same_effect_as_the_sysctl():
    bridge = BRIDGE._replace(calls_iptables=True)
    assert obstacles(BridgeFilter(True, False, False), bridge).keys() == {(CNI0, 6)}


@pytest.mark.parametrize(
    ("settings", "bridge", "port", "cause", "hint"),
    [
        (
            BridgeFilter(),
            BRIDGE._replace(calls_iptables=True),
            PORT,
            "the kernel module br_netfilter isn't loaded",
            "modprobe br_netfilter",
        ),
        (
            BridgeFilter(),
            BRIDGE,
            PORT._replace(is_isolated=True),
            "the kernel module br_netfilter isn't loaded",
            "modprobe br_netfilter",
        ),
        (ON, BRIDGE._replace(filters_vlans=True), PORT, "it filters VLANs", ""),
        (
            ON,
            BRIDGE,
            PORT._replace(is_isolated=True),
            "it has isolated ports, between which no address can be resolved",
            "",
        ),
    ],
)
def test_the_problem_of_a_bridge_has_a_cause_and_a_remedy_if_any(
    settings, bridge, port, cause, hint
):
    found = obstacles(settings, bridge, port)
    assert found[CNI0, 4] == BridgeProblem("cni0", 4, cause, hint)


def test_the_problem_of_a_bridge_is_formatted_as_a_sentence():
    found = obstacles(BridgeFilter())[CNI0, 4]
    said = "bridge cni0, IPv4: the kernel module br_netfilter isn't loaded (modprobe br_netfilter)"
    assert str(found) == said


def test_only_networks_on_bridges_that_deliver_replies_are_marked():
    assert mark_filtered(NETWORKS, [(CNI0, 4)]) == NETWORKS | {"10.1.0.0/24": FILTERED_BRIDGE}
    assert mark_filtered(NETWORKS, []) == NETWORKS
