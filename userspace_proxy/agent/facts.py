"""Derives the node facts for the plan from options and the node's current state."""

from __future__ import annotations

from collections.abc import Sequence

from ..cluster import Snapshot
from ..model import IPFamily, Node, ServiceKey
from ..policy import PRIMARY, NodeFacts
from .options import Options

# Its endpoints are the API servers. Source: kube-apiserver makes and keeps it.
_API_SERVER = ServiceKey("default", "kubernetes")


def make_facts(
    options: Options,
    snapshot: Snapshot | None,
    addresses: Sequence[str],
    *,
    allow_loopback_endpoints: bool,
) -> NodeFacts:
    """Return the facts of this moment.

    Args:
        options: What the proxy was told.
        snapshot: Has this node's object and the API server's Service; None before the first.
        addresses: What the interfaces of this node have.
        allow_loopback_endpoints: Endpoints may be on 127.0.0.0/8 and ::1.
    """
    node = snapshot.node if snapshot is not None else None
    api_server = snapshot.services.get(_API_SERVER) if snapshot is not None else None
    return NodeFacts(
        node_name=options.node_name,
        proxy_name=options.proxy_name,
        allow_loopback_endpoints=allow_loopback_endpoints,
        zone=node.zone if node else "",
        addresses=tuple(addresses),
        primary_addresses=tuple(
            dict.fromkeys((*options.node_addresses, *(node.addresses if node else ())))
        ),
        all_node_addresses=frozenset(addresses).union(
            node.addresses if node else (), snapshot.node_addresses if snapshot else ()
        ),
        node_port_networks=options.node_port_networks,
        external_ip_networks=options.external_ip_networks,
        api_server_addresses=tuple(
            sorted({e.ip for item in api_server.slices for e in item.endpoints})
            if api_server
            else ()
        ),
        cluster_networks=_inside(options, node),
    )


def why_no_node_ports(facts: NodeFacts) -> str:
    """Return why no address of this node answers at node ports; empty if one does."""
    if any(facts.node_port_addresses(family) for family in IPFamily):
        return ""
    if PRIMARY in facts.node_port_networks and not facts.primary_addresses:
        return (
            "--nodeport-addresses=primary needs a Node object with this node's name and an "
            "address, or --bind-address"
        )
    return "this node has no address that --nodeport-addresses allows"


def _inside(options: Options, node: Node | None) -> tuple[str, ...]:
    """Return the networks of the pods that may use every endpoint of a Service.

    Source: kube-proxy, --detect-local-mode.
    """
    if options.only_own_pods and node is not None and node.pod_networks:
        return node.pod_networks
    return options.cluster_networks
