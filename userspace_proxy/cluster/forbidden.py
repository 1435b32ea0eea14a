"""Addresses to which no name may lead: those of this node, other Nodes, pods, Services, and others.

Rule 1: an address that NAT64 translates is judged by both of its forms.
Rule 2: what changes is followed: Services, Nodes, and this node's addresses.
Rule 3: where users of a cluster write names, none is looked up before the networks of pods and the
Nodes are known, and a name has no endpoint of a family without a network of pods.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..model import IPFamily, Node, Service, contains
from ..model.endpoint_names import NameState
from ..model.reserved_addresses import behind_nat64, why_reserved

# As many as the names of a node may have.
_OWN_MAX = 64_000


class Forbidden(enum.StrEnum):
    """What an address of this node or the cluster is, in words."""

    PODS = "in the network of pods"
    SERVICES = "in the network of Services"
    SERVICE = "an address of a Service"
    THIS_NODE = "an address of this node"
    OF_BOTH = "an address of this node and of a Service"
    """Which of them it was first isn't known."""
    NODE = "an address of a Node"


class ClusterNetworks(NamedTuple):
    """What is configured of the cluster."""

    pods: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    is_shared: bool = False
    """Its users write names, so its pods and Nodes have to be known."""


class ForbiddenAddresses:
    """What the names of one proxy must not lead to.

    Args:
        is_own: Returns whether the kernel delivers packets to an address to this node itself.
    """

    def __init__(self, networks: ClusterNetworks, is_own: Callable[[str], bool]) -> None:
        self.networks = networks
        self._is_own = is_own
        self._own: dict[str, bool] = {}
        """What ``is_own`` has returned since this node's addresses last changed."""
        self._services: Counter[str] = Counter()
        """How many Services have an address."""
        self._node: Node | None = None
        self._nodes: frozenset[str] | None = None

    @property
    def unknown(self) -> NameState | None:
        """Why no name may be looked up yet; None: names may."""
        if self.networks.is_shared and not self.networks.pods:
            return NameState.NETWORKS_UNKNOWN
        if self.networks.is_shared and self._nodes is None:
            return NameState.NODES_UNKNOWN
        return None

    def set_nodes(self, node: Node | None, addresses: frozenset[str] | None) -> bool:
        """Take this node's object and the addresses of all Nodes; returns whether they differ.

        Args:
            addresses: None: they are unknown.
        """
        if (node, addresses) == (self._node, self._nodes):
            return False
        self._node, self._nodes = node, addresses
        return True

    def change_services(self, old: Iterable[Service], new: Iterable[Service]) -> set[str]:
        """Replace some Services by others; returns the addresses that differ."""
        before = Counter(ip for service in old for ip in service.addresses)
        now = Counter(ip for service in new for ip in service.addresses)
        self._services.subtract(before)
        self._services.update(now)
        differing = {ip for ip in before.keys() | now.keys() if before[ip] != now[ip]}
        for ip in differing:
            # The proxy itself may make the address of a Service one of this node.
            self._own.pop(ip, None)
            if not self._services[ip]:
                del self._services[ip]
        return differing

    def look_again(self) -> None:
        """Ask the kernel again: this node's addresses have changed."""
        self._own.clear()

    def why(self, ip: str) -> str:
        """Return what an address is that must not be dialled, as :class:`Forbidden`; or empty."""
        why = why_reserved(ip) or self._why_unknown(ip) or self._why_ours(ip)
        if not why and (inner := behind_nat64(ip)):
            why = why_reserved(inner) or self._why_ours(inner)
        return why

    def _why_unknown(self, ip: str) -> str:
        """Return that an address may be a pod's for all that is known."""
        family, networks = IPFamily.of(ip), self.networks
        if networks.is_shared and not any(IPFamily.of(n) is family for n in networks.pods):
            return f"of {family}, while --cluster-cidr has no {family} network"
        return ""

    def _why_ours(self, ip: str) -> str:
        """Return whose address it is, here or in the cluster."""
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
        """Return whether this node has an address, as the kernel has last answered."""
        if ip not in self._own:
            if len(self._own) >= _OWN_MAX:
                self._own.clear()
            self._own[ip] = self._is_own(ip)
        return self._own[ip]
