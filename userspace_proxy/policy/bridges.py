"""Decides on which bridges endpoints can see the addresses of clients on the same bridge.

An endpoint replies to a client on the same bridge directly, not through this node's network stack.
With br_netfilter the reply passes the packet filter, where a rule can deliver it to this node.

Rule 1: the kernel's settings decide, for each IP version separately.
Rule 2: if in doubt about a setting, endpoints see this node's address, which always works.

Source: net/bridge/br_netfilter_hooks.c, br_nf_pre_routing().
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..model.node_network import BridgeFilter, NodeLink
from ..model.quoting import shell_word
from .locality import FILTERED_BRIDGE, Networks

_SYSCTLS = {4: "net.bridge.bridge-nf-call-iptables", 6: "net.bridge.bridge-nf-call-ip6tables"}
_OPTIONS = {4: "nf_call_iptables", 6: "nf_call_ip6tables"}

BridgeFamily = tuple[int, int]
"""The interface index of a bridge, and an IP version."""


class BridgeProblem(NamedTuple):
    """Why endpoints on a bridge don't see the addresses of clients on the same bridge."""

    bridge: str
    version: int
    """The IP version, 4 or 6."""
    cause: str
    hint: str = ""
    """The remedy, a command if possible; may be empty."""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"bridge {self.bridge}, IPv{self.version}: {self.cause}{hint}"


def pod_bridges(links: Iterable[NodeLink], networks: Networks) -> dict[BridgeFamily, NodeLink]:
    """Return the bridges that attach pods to this node, by bridge and IP version."""
    bridges = {link.number: link for link in links if link.kind == "bridge"}
    return {
        (location, 6 if ":" in text else 4): bridges[location]
        for text, location in networks.items()
        if location in bridges
    }


def find_bridge_problems(
    bridges: Mapping[BridgeFamily, NodeLink], links: Iterable[NodeLink], settings: BridgeFilter
) -> dict[BridgeFamily, BridgeProblem]:
    """Return the bridges that can't deliver replies to this node, with the reasons."""
    isolating = {link.master for link in links if link.is_isolated}
    found = {}
    for (number, version), bridge in bridges.items():
        cause, hint = _obstacle(bridge, version, settings)
        if not cause and number in isolating:
            cause = "it has isolated ports, between which no address can be resolved"
        if cause:
            found[number, version] = BridgeProblem(bridge.name, version, cause, hint)
    return found


def _obstacle(bridge: NodeLink, version: int, settings: BridgeFilter) -> tuple[str, str]:
    sysctl = _SYSCTLS[version]
    if not settings.is_loaded:
        return "the kernel module br_netfilter isn't loaded", "modprobe br_netfilter"
    is_on = settings.calls_iptables if version == 4 else settings.calls_ip6tables
    is_on_here = bridge.calls_iptables if version == 4 else bridge.calls_ip6tables
    if not is_on and not is_on_here:
        alone = f"ip link set {shell_word(bridge.name)} type bridge {_OPTIONS[version]} 1"
        return f"{sysctl} is 0", f"sysctl -w {sysctl}=1, or for this bridge alone {alone}"
    if bridge.filters_vlans:
        return "it filters VLANs", ""
    return "", ""


def mark_filtered(networks: Networks, delivering: Iterable[BridgeFamily]) -> Networks:
    """Return the networks; networks on ``delivering`` bridges are marked as FILTERED_BRIDGE."""
    marked = set(delivering)
    if not marked:
        return networks
    return {
        text: FILTERED_BRIDGE if (location, 6 if ":" in text else 4) in marked else location
        for text, location in networks.items()
    }
