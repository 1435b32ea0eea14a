"""The facts about this node, and the proxy's options, that a plan depends on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..causes.cause import Cause
from ..model import Balance, DataPath, IPFamily, contains, of_family, own_network

_LOOPBACK = {IPFamily.IPV4: "127.0.0.0/8", IPFamily.IPV6: "::1/128"}

PRIMARY = "primary"
"""As a network for node ports: of each family the first primary address that the node has."""
LOCALHOST = "localhost"
"""As a network for node ports: the loopback addresses."""
ALL = "all"
"""As a network for node ports: every address."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Facts about one node; when one changes, which is rare, everything is planned again."""

    node_name: str = ""
    proxy_name: str | None = None
    """``--service-proxy-name``: None serves only Services without that label."""
    allow_loopback_endpoints: bool = False
    """Only for embedding: elsewhere endpoints on 127.0.0.0/8 and ::1 are refused."""
    allow_node_endpoints: bool = True
    """Endpoints may be at this node's own addresses though they aren't its pods."""
    no_node: Cause | None = None
    """That the cluster has no Node of this name."""
    zone: str = ""
    """The Node object's; empty when unknown."""
    addresses: tuple[str, ...] = ()
    """Those of this node's interfaces, sorted, with loopback and without link-local ones."""
    primary_addresses: tuple[str, ...] = ()
    """``--bind-address`` where one is given, then those of the Node object.

    Source: kube-proxy, detectNodeIPs().
    """
    all_node_addresses: frozenset[str] = frozenset()
    """This node's, and those of all Nodes as far as the source has read them."""
    node_port_networks: tuple[str, ...] = ()
    """``--nodeport-addresses``: networks, ``primary``, ``localhost`` and ``all``; empty: all."""
    external_ip_networks: tuple[str, ...] = ()
    """``--allow-external-ips``; empty: no external IP is served (CVE-2020-8554)."""
    api_server_addresses: tuple[str, ...] = ()
    """These are never external IPs."""
    cluster_networks: tuple[str, ...] = ()
    """Networks of pods in the cluster: ``--cluster-cidr``, or this node's; empty if unknown."""
    default_path: DataPath = DataPath.USERSPACE
    """``--path``."""
    allowed_paths: tuple[DataPath, ...] = tuple(DataPath)
    """``--allow-paths``: those that annotations may choose."""
    no_kernel_path: Mapping[IPFamily | Balance, str] = field(default_factory=dict)
    """The families, and the choices of endpoints, for which there is no kernel path here, with the
    reasons."""

    @property
    def has_node_ports_everywhere(self) -> bool:
        """Whether every address answers at node ports."""
        return _is_everywhere(self.node_port_networks)

    def node_port_addresses(self, family: IPFamily) -> tuple[str, ...]:
        """Return the addresses of a family that answer at node ports.

        Source: kube-proxy's NodePortAddresses, KEP-6032. Without networks this includes localhost
        as in its iptables mode, but also for IPv6.
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


# Both are called for every Service port with the same arguments; with networks it took 30 µs.
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
