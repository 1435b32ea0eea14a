"""Derives the node facts for the plan from options and the node's current state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from ..causes.cause import Cause
from ..causes.nodes import no_node
from ..cluster import Snapshot
from ..model import Balance, IPFamily, Node, Protocol, ServiceKey
from .facts import PRIMARY, NodeFacts
from .options import PolicyOptions

# kube-apiserver creates this Service, and updates its endpoints.
API_SERVER = ServiceKey("default", "kubernetes")
"""The Service of the API servers."""
_NO_NODE = Node("")
_OptionsT = TypeVar("_OptionsT", bound=PolicyOptions)

_EVERYWHERE: Mapping[IPFamily | Balance | Protocol, str] = MappingProxyType({})


# Without steering, clients reach the proxy only on loopback addresses.
ADDRESSES_WITHOUT_STEERING = ("127.0.0.1",)
"""This node's addresses with ``none`` steering."""


def options_with(steering: str, options: _OptionsT) -> _OptionsT:
    """Return the effective options for a steering mode."""
    if steering != "none":
        return options
    # Only programs on this machine reach the proxy, and they reach the machine's addresses anyway.
    return replace(options, allow_loopback_endpoints=True, allow_node_endpoints=True)


def make_facts(
    options: PolicyOptions,
    snapshot: Snapshot,
    addresses: Sequence[str],
    no_kernel_path: Mapping[IPFamily | Balance | Protocol, str] = _EVERYWHERE,
) -> NodeFacts:
    """Return the current facts about this node.

    Args:
        snapshot: May contain this node's Node object and the API server's Service.
        no_kernel_path: See :attr:`.Steering.no_kernel_path`.
    """
    node = snapshot.node or _NO_NODE
    api_server = snapshot.services.get(API_SERVER)
    # Slices of headless Services aren't used for other Services.
    own = [item for item in api_server.slices if not item.is_headless] if api_server else []
    return NodeFacts(
        node_name=options.node_name,
        proxy_name=options.proxy_name,
        allow_loopback_endpoints=options.allow_loopback_endpoints,
        allow_node_endpoints=options.allow_node_endpoints,
        no_node=no_node_reason(node),
        zone=node.zone,
        addresses=tuple(addresses),
        primary_addresses=tuple(dict.fromkeys((*options.node_addresses, *node.addresses))),
        all_node_addresses=frozenset(addresses).union(
            node.addresses, snapshot.node_addresses or ()
        ),
        node_port_networks=options.node_port_networks,
        external_ip_networks=options.external_ip_networks,
        api_server_addresses=tuple(
            sorted({endpoint.ip for item in own for endpoint in item.endpoints})
        ),
        default_path=options.path,
        allowed_paths=options.allowed_paths,
        port_ranges=options.port_ranges,
        no_kernel_path=no_kernel_path,
        # Source: kube-proxy, --detect-local-mode.
        cluster_networks=(node.pod_networks if options.only_own_pods else ())
        or options.cluster_networks,
    )


def no_node_reason(node: Node | None) -> Cause | None:
    """Return the cause if the cluster has no Node of this name; None if it may have one."""
    return no_node(node.name, node.similar) if node is not None and node.is_missing else None


def no_node_ports_reason(facts: NodeFacts) -> str:
    """Return why no address of this node serves node ports; empty if an address does."""
    if any(facts.node_port_addresses(family) for family in IPFamily):
        return ""
    if PRIMARY in facts.node_port_networks and not facts.primary_addresses:
        return (
            "--nodeport-addresses=primary needs a Node object with this node's name and an "
            "address, or --bind-address"
        )
    return "this node has no address that --nodeport-addresses allows"
