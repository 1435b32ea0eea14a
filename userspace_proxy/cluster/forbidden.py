"""Decides which addresses names must not resolve to: the cluster's and reserved addresses.

Rule 1: of an IPv6 address that NAT64 translates, the embedded IPv4 address is checked, too.
Rule 2: decisions follow changes of Services, Nodes, and this node's addresses.
Rule 3: if the cluster's users can write names (``is_shared``), no name is looked up before the pod
networks and Nodes are known, and addresses of a family without a pod network are forbidden.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..model import IPFamily, Node, Service, contains
from ..model.endpoint_names import NameState
from ..model.reserved_addresses import behind_nat64, reserved_reason

# The maximum number of cached answers: as many as a node's names may have addresses in total.
_OWN_MAX = 64_000


class Forbidden(enum.StrEnum):
    """Why names must not resolve to an address: its owner, on this node or in the cluster."""

    PODS = "in the network of pods"
    SERVICES = "in the network of Services"
    SERVICE = "an address of a Service"
    THIS_NODE = "an address of this node"
    OF_BOTH = "an address of this node and of a Service"
    """The address is this node's own, or the proxy has assigned it to this node for the Service."""
    NODE = "an address of a Node"


class ClusterNetworks(NamedTuple):
    """The cluster's configured networks."""

    pods: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    is_shared: bool = False
    """Whether cluster users write names, so that the pod networks and Nodes must be known."""


class ForbiddenAddresses:
    """The addresses to which names in one proxy must not resolve.

    Args:
        is_own: Returns whether the kernel delivers packets to an address to this node itself.
    """

    def __init__(self, networks: ClusterNetworks, is_own: Callable[[str], bool]) -> None:
        self.networks = networks
        self._is_own = is_own
        self._own: dict[str, bool] = {}
        """Results of ``is_own`` since this node's addresses last changed."""
        self._services: Counter[str] = Counter()
        """By address, the number of Services that have it."""
        self._node: Node | None = None
        self._nodes: frozenset[str] | None = None

    @property
    def unknown(self) -> NameState | None:
        """The reason why names may not be looked up yet; None if they may."""
        if self.networks.is_shared and not self.networks.pods:
            return NameState.NETWORKS_UNKNOWN
        if self.networks.is_shared and self._nodes is None:
            return NameState.NODES_UNKNOWN
        return None

    def set_nodes(self, node: Node | None, addresses: frozenset[str] | None) -> bool:
        """Set this node's object and the addresses of all Nodes; return whether either changed.

        Args:
            addresses: The addresses of all Nodes; None if unknown.
        """
        if (node, addresses) == (self._node, self._nodes):
            return False
        self._node, self._nodes = node, addresses
        return True

    def change_services(self, old: Iterable[Service], new: Iterable[Service]) -> set[str]:
        """Replace some Services; return the addresses that they gained or lost."""
        before = Counter(ip for service in old for ip in service.addresses)
        now = Counter(ip for service in new for ip in service.addresses)
        self._services.subtract(before)
        self._services.update(now)
        differing = {ip for ip in before.keys() | now.keys() if before[ip] != now[ip]}
        for ip in differing:
            # Query the kernel again: the proxy may have assigned the address to this node.
            self._own.pop(ip, None)
            if not self._services[ip]:
                del self._services[ip]
        return differing

    def look_again(self) -> None:
        """Drop the kernel's answers, because this node's addresses have changed."""
        self._own.clear()

    def why(self, ip: str) -> str:
        """Return why names must not resolve to an address, to follow "is"; empty if they may."""
        why = reserved_reason(ip) or self._unknown_reason(ip) or self._ours_reason(ip)
        if not why and (inner := behind_nat64(ip)):
            why = reserved_reason(inner) or self._ours_reason(inner)
        return why

    def _unknown_reason(self, ip: str) -> str:
        """Return a reason if users write names and the family has no pod network; else empty."""
        family, networks = IPFamily.of(ip), self.networks
        if networks.is_shared and not any(IPFamily.of(n) is family for n in networks.pods):
            return f"of {family}, while --cluster-cidr has no {family} network"
        return ""

    def _ours_reason(self, ip: str) -> str:
        """Return the owner of an address, on this node or in the cluster; empty if it has none."""
        networks, node = self.networks, self._node
        if contains((*networks.pods, *(node.pod_networks if node else ())), ip):
            return Forbidden.PODS
        if ip in self._services:
            return Forbidden.OF_BOTH if self._has(ip) else Forbidden.SERVICE
        if contains(networks.services, ip):
            return Forbidden.SERVICES
        if self._has(ip):
            return Forbidden.THIS_NODE
        if ip in (self._nodes or ()) or (node is not None and ip in node.addresses):
            return Forbidden.NODE
        return ""

    def _has(self, ip: str) -> bool:
        """Return whether this node has an address, from the cache or the kernel."""
        if ip not in self._own:
            if len(self._own) >= _OWN_MAX:
                self._own.clear()
            self._own[ip] = self._is_own(ip)
        return self._own[ip]
