"""Defines one node: its Node object, and its network as its kernel describes it.

``policy`` derives other facts from it, such as the location of an address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the cluster."""

    name: str
    addresses: tuple[str, ...] = ()
    """The node's InternalIP and ExternalIP addresses, in the object's order."""
    zone: str = ""
    pod_networks: tuple[str, ...] = ()
    """Networks of its pods, in canonical form; may be empty."""
    is_being_deleted: bool = False
    """Whether the node has a deletion timestamp, or the cluster autoscaler's taint for deletion.

    Source: kube-proxy's NodeEligible: ToBeDeletedByClusterAutoscaler, KEP-3836."""
    is_missing: bool = False
    """Whether the cluster has no Node of this name."""
    similar: tuple[str, ...] = ()
    """If it is missing: Nodes with a similar name, most likely first."""


class NodeLink(NamedTuple):
    """One interface of this node."""

    number: int
    name: str
    kind: str
    """The kind, as ``ip -details link`` shows it: ``veth``, ``bridge``; empty for hardware."""
    master: int = 0
    """The index of the bridge of which this link is a port; 0 for none."""
    calls_iptables: bool = False
    """Bridge option: bridged IPv4 packets pass iptables and nftables."""
    calls_ip6tables: bool = False
    """Bridge option: bridged IPv6 packets pass iptables and nftables."""
    filters_vlans: bool = False
    """Bridge option: VLAN filtering."""
    is_isolated: bool = False
    """Whether it is a bridge port that exchanges no packets with other isolated ports."""


class NodeRoute(NamedTuple):
    """One route of this node."""

    network: str
    """The destination network in canonical form."""
    link: int = 0
    """Index of the outgoing link; 0 for none, or for several."""
    has_gateway: bool = False
    is_local: bool = False
    """Whether the route delivers packets to this node."""
    gateway_links: tuple[int, ...] = ()
    """For several next hops, the link of each next hop that is a gateway."""


class NextHop(NamedTuple):
    """The next hop of packets to an address: its host, or a gateway."""

    interface: str
    gateway: str = ""
    """The gateway; empty if the address is on the interface's own link."""


class BridgeFilter(NamedTuple):
    """The settings of br_netfilter for all bridges."""

    is_loaded: bool = False
    calls_iptables: bool = False
    """Whether IPv4 packets on bridges pass iptables and nftables."""
    calls_ip6tables: bool = False
    """Whether IPv6 packets on bridges pass iptables and nftables."""


class DroppedBy(NamedTuple):
    """A chain of another program that drops packets to or from an address on this node."""

    what: str
    """The chain with its hook and priority, and the affected packets, as the end of a sentence."""


Obstacle: TypeAlias = NextHop | DroppedBy
"""The reason, from the kernel, why an endpoint doesn't answer packets: no host is at the next hop,
or a chain drops them."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What keeps, or may keep, clients' packets from a frontend: mostly another program's chain."""

    what: str
    hint: str = ""
    """The remedy."""
    chain: str = ""
    """The chain's family, table and name; empty if no chain takes the packets."""
    is_certain: bool = True
    """Whether the chain certainly takes the packets; otherwise a rule of it may do so."""

    def __str__(self) -> str:
        return f"{self.what}; {self.hint[0].lower()}{self.hint[1:]}" if self.hint else self.what
