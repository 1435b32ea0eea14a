"""Assigns the addresses of all nodes, pods and clients in a sandbox.

All ranges come from documentation and Kubernetes' examples, so an address in a log shows its
purpose:

    pods            10.244.0.0/16    fd00:10:244::/56    a /24 and a /64 per node
    Services        10.96.0.0/12     fd00:10:96::/112
    load balancers  203.0.113.0/24   fd00:203:0:113::/64
    nodes           192.0.2.0/24     fd00:192:0:2::/64
    outside         198.51.100.0/24  fd00:198:51:100::/64

All values are tuples, IPv4 first; they have one item on a kernel without IPv6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple

from userspace_proxy.errors import SandboxError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

POD_CIDR = "10.244.0.0/16,fd00:10:244::/56"
SERVICE_CIDR = "10.96.0.0/12,fd00:10:96::/112"
LOAD_BALANCER_CIDR = "203.0.113.0/24,fd00:203:0:113::/64"
NODE_CIDR = "192.0.2.0/24,fd00:192:0:2::/64"
OUTSIDE_CIDR = "198.51.100.0/24,fd00:198:51:100::/64"

# The LAN's router has the last usable address of a /24, far from nodes and clients.
ROUTER = 254
# A node's share of the pod range: the default of kube-controller-manager's --node-cidr-mask-size.
NODE_PREFIX = {4: 24, 6: 64}


class AddressPlan(NamedTuple):
    """The address ranges of one sandbox."""

    pods: tuple[Network, ...]
    services: tuple[Network, ...]
    load_balancers: tuple[Network, ...]
    nodes: tuple[Network, ...]
    outside: tuple[Network, ...]

    def steered_outside(self) -> tuple[Network, ...]:
        """Return the ranges that outside clients reach through a node."""
        return self.services + self.load_balancers

    def without_ipv6(self) -> AddressPlan:
        """Return the plan for a kernel without IPv6."""
        return AddressPlan(*(tuple(n for n in ranges if n.version == 4) for ranges in self))


class PodRanges(NamedTuple):
    """One node's part of the pod ranges, in two halves."""

    whole: tuple[Network, ...]
    routed: tuple[Network, ...]
    """The range for pods that have their own link; its first address is their gateway."""
    bridged: tuple[Network, ...]
    """The range for pods on the bridge; its first address is the bridge's."""


def plan_addresses(pod_cidr: str, service_cidr: str) -> AddressPlan:
    """Return the address plan with these ranges for pods and Services.

    Args:
        pod_cidr: One IPv4 range, optionally a comma and one IPv6 range, as in ``--cluster-cidr``.
        service_cidr: The same, as in ``--service-cluster-ip-range``.

    Raises:
        SandboxError: A range is invalid.
    """
    return AddressPlan(
        pods=parse_ranges(pod_cidr),
        services=parse_ranges(service_cidr),
        load_balancers=parse_ranges(LOAD_BALANCER_CIDR),
        nodes=parse_ranges(NODE_CIDR),
        outside=parse_ranges(OUTSIDE_CIDR),
    )


def parse_ranges(text: str) -> tuple[Network, ...]:
    """Parse an IPv4 range, optionally with a comma and an IPv6 range.

    Raises:
        SandboxError: The text is something else.
    """
    try:
        ranges = tuple(ip_network(part.strip()) for part in text.split(","))
    except ValueError as exc:
        raise SandboxError(f"cannot use the range {text!r}: {exc}") from exc
    if [r.version for r in ranges] not in ([4], [4, 6]):
        raise SandboxError(
            f"cannot use the range {text!r}: a sandbox needs one IPv4 range",
            hint="an IPv6 range may follow after a comma",
        )
    return ranges


def nth(ranges: Sequence[Network], index: int) -> tuple[Address, ...]:
    """Return the address with this index, from 0, of each range.

    Raises:
        SandboxError: A range has no such address, or it is the range's last address.
    """
    for network in ranges:
        if index >= network.num_addresses - 1:
            raise SandboxError(f"cannot take another address: {network} is used up")
    return tuple(network[index] for network in ranges)


def pod_ranges(pods: Sequence[Network], index: int) -> PodRanges:
    """Return the part of the pod ranges for the node with this index, from 0.

    Raises:
        SandboxError: A range is too small for that many nodes.
    """
    whole = tuple(_share(network, index) for network in pods)
    halves = (network.subnets(prefixlen_diff=1) for network in whole)
    routed, bridged = zip(*halves, strict=True)
    return PodRanges(whole, routed, bridged)


def _share(network: Network, index: int) -> Network:
    prefix = max(network.prefixlen, NODE_PREFIX[network.version])
    size: int = 2 ** (network.max_prefixlen - prefix)
    if prefix >= network.max_prefixlen - 1 or (index + 1) * size > network.num_addresses:
        raise SandboxError(
            f"cannot allocate pod addresses for node number {index + 1}: {network} is too small"
        )
    return ip_network((int(network.network_address) + index * size, prefix))


def by_family(
    ranges: Sequence[Network], addresses: Sequence[Address]
) -> Iterator[tuple[Network, Address]]:
    """Yield each range with each address of its family."""
    for network in ranges:
        for address in addresses:
            if address.version == network.version:
                yield network, address
