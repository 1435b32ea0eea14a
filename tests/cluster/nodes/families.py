"""The IP families of a cluster, from which every address range is derived.

    FAMILIES   ipv4 (IPV4)   ipv6 (IPV6)   dual (IPV4, IPV6)

A cluster's families are a tuple, the primary family first. All ranges exist only in the cluster's
namespaces, which have no uplink; the IPv6 ranges are unique local addresses (RFC 4193).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Family:
    """One IP family, and the address ranges of clusters that have this family."""

    name: str
    """The family's name in ``ipFamilies`` and ``addressType``."""
    lan: IPNetwork
    """The network between the nodes."""
    pods: IPNetwork
    node_prefix: int
    """The prefix length of a node's part of the pod network."""
    services: IPNetwork
    external_ips: IPNetwork
    """The documentation range from which upstream's tests take an external IP."""
    everything: IPNetwork
    loopback: str
    """The loopback address in a form for URLs."""
    forwarding: str
    """The sysctl that makes a namespace forward packets."""

    @property
    def world(self) -> IPAddress:
        """The address of the API server and of CoreDNS, which is also the nodes' gateway."""
        return self.lan[1]

    @property
    def dns(self) -> IPAddress:
        """The cluster IP of the Service kube-dns."""
        return self.services[10]

    @property
    def wildcard(self) -> IPAddress:
        """The wildcard address on which servers listen."""
        return self.everything[0]

    def node(self, number: int) -> IPAddress:
        return self.lan[10 + number]

    def node_pods(self, number: int) -> IPNetwork:
        """Return the pod network of a node."""
        size = 1 << (self.pods.max_prefixlen - self.node_prefix)
        return ip_network((self.pods[number * size], self.node_prefix))


IPV4 = Family(
    name="IPv4",
    lan=IPv4Network("172.30.0.0/16"),
    pods=IPv4Network("10.244.0.0/16"),
    node_prefix=24,
    services=IPv4Network("10.96.0.0/16"),
    external_ips=IPv4Network("203.0.113.0/24"),
    everything=IPv4Network("0.0.0.0/0"),
    loopback="127.0.0.1",
    forwarding="net/ipv4/ip_forward",
)
IPV6 = Family(
    name="IPv6",
    lan=IPv6Network("fd00:172:30::/64"),
    pods=IPv6Network("fd00:10:244::/56"),
    node_prefix=64,
    services=IPv6Network("fd00:10:96::/112"),
    external_ips=IPv6Network("2001:db8::/32"),
    everything=IPv6Network("::/0"),
    loopback="[::1]",
    forwarding="net/ipv6/conf/all/forwarding",
)
Families = tuple[Family, ...]
FAMILIES: dict[str, Families] = {"ipv4": (IPV4,), "dual": (IPV4, IPV6), "ipv6": (IPV6,)}
"""Families by their names on the command line."""


def listed(values: Iterable[IPAddress | IPNetwork]) -> str:
    """Return addresses or ranges in the form of a Kubernetes flag."""
    return ",".join(map(str, values))


def host_port(host: IPAddress, port: int) -> str:
    """Return an address and a port in the form of a flag."""
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"
