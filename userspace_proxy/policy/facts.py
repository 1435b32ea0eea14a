"""Defines the facts about this node on which a plan depends, and derives addresses from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..causes.cause import Cause
from ..model import Balance, DataPath, IPFamily, Protocol, contains, of_family, own_network

_LOOPBACK = {IPFamily.IPV4: "127.0.0.0/8", IPFamily.IPV6: "::1/128"}

PRIMARY = "primary"
"""A word in ``node_port_networks``: the node's first primary address of each family."""
LOCALHOST = "localhost"
"""A word in ``node_port_networks``: the node's loopback addresses."""
ALL = "all"
"""A word in ``node_port_networks``: every address of the node."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The facts about one node, which rarely change: any change requires a complete new plan."""

    node_name: str = ""
    is_any_node: bool = False
    """Whether each endpoint with a node counts as this node's, as in a plan for any node."""
    proxy_name: str | None = None
    """``--service-proxy-name``: the label of served Services; None if they don't have the label."""
    allow_loopback_endpoints: bool = False
    """Whether to accept endpoints on 127.0.0.0/8 and ::1; only for embedding."""
    allow_node_endpoints: bool = True
    """Whether to accept endpoints on this node's own addresses even if they aren't its pods."""
    no_node: Cause | None = None
    """The cause if the cluster has no Node of this name; None if it may have one."""
    zone: str = ""
    """The zone in the Node object; empty if unknown."""
    addresses: tuple[str, ...] = ()
    """Sorted addresses of this node's interfaces, including loopback, but not link-local
    addresses."""
    primary_addresses: tuple[str, ...] = ()
    """``--bind-address`` if it is given, then the addresses in the Node object.

    Source: kube-proxy, detectNodeIPs().
    """
    all_node_addresses: frozenset[str] = frozenset()
    """Addresses of this node, and of all Nodes that the source has read."""
    node_port_networks: tuple[str, ...] = ()
    """``--nodeport-addresses``: networks, ``primary``, ``localhost`` and ``all``; empty for all."""
    external_ip_networks: tuple[str, ...] = ()
    """``--allow-external-ips``; empty if no external IP is served (CVE-2020-8554)."""
    api_server_addresses: tuple[str, ...] = ()
    """Addresses of the API servers, which are never external IPs."""
    cluster_networks: tuple[str, ...] = ()
    """Networks of the cluster's pods: ``--cluster-cidr``, or this node's pod networks; empty if
    unknown."""
    default_path: DataPath = DataPath.USERSPACE
    """``--path``: the path of Services without the annotation ``path``."""
    allowed_paths: tuple[DataPath, ...] = tuple(DataPath)
    """``--allow-paths``: the paths that annotations may choose."""
    port_ranges: str = "cluster-ip"
    """``--allow-port-ranges``: where annotations may ask for ranges of ports."""
    no_kernel_path: Mapping[IPFamily | Balance | Protocol, str] = field(default_factory=dict)
    """Why this node has no kernel path, by IP family and balance method; the value for TCP is the
    reason why long port ranges aren't possible."""

    @property
    def lists_ports(self) -> bool:
        """Whether each port of a range is a frontend, because steering doesn't support ranges."""
        return Protocol.TCP in self.no_kernel_path

    @property
    def has_node_ports_everywhere(self) -> bool:
        """Whether every address of this node serves node ports."""
        return _is_everywhere(self.node_port_networks)

    def node_port_addresses(self, family: IPFamily) -> tuple[str, ...]:
        """Return this node's addresses of a family that serve node ports.

        Source: kube-proxy's NodePortAddresses, KEP-6032. Without networks this includes localhost,
        as in kube-proxy's iptables mode, but also for IPv6.
        """
        return _node_port_addresses(
            self.node_port_networks, self.addresses, self.primary_addresses, family
        )

    def inside(self, family: IPFamily) -> tuple[str, ...]:
        """Return the networks of clients in the cluster: pods and this node.

        Source: kube-proxy, "pods of this node and the node itself use all endpoints".
        """
        return _inside(self.cluster_networks, self.addresses, family)


def _is_everywhere(node_port_networks: tuple[str, ...]) -> bool:
    return not node_port_networks or ALL in node_port_networks


# Cached because these functions take 30 µs, and all Service ports pass the same arguments.
@functools.lru_cache(maxsize=16)
def _node_port_addresses(
    networks: tuple[str, ...],
    addresses: tuple[str, ...],
    primary_addresses: tuple[str, ...],
    family: IPFamily,
) -> tuple[str, ...]:
    own = [ip for ip in addresses if IPFamily.of(ip) is family]
    if _is_everywhere(networks):
        return tuple(own)
    primary = [ip for ip in primary_addresses if ip in own][:1] if PRIMARY in networks else []
    ranges = [text for text in networks if text not in (PRIMARY, LOCALHOST)]
    if LOCALHOST in networks:
        ranges.append(_LOOPBACK[family])
    return tuple(ip for ip in own if ip in primary or contains(ranges, ip))


@functools.lru_cache(maxsize=16)
def _inside(pods: tuple[str, ...], addresses: tuple[str, ...], family: IPFamily) -> tuple[str, ...]:
    own = [own_network(ip) for ip in addresses if IPFamily.of(ip) is family]
    return tuple(dict.fromkeys((*of_family(pods, family), _LOOPBACK[family], *own)))
