"""Defines the addresses of frontends and endpoints, and networks, as text in canonical form."""

from __future__ import annotations

import _socket
import enum
import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from .quoting import quoted

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

TO = "–"
"""The separator between the first and the last port of a range, in text."""
_LEADING_ZEROS = re.compile("(?<![0-9A-Fa-f])0+(?=[0-9A-Fa-f])")


class Protocol(enum.StrEnum):
    """Transport protocols that this proxy supports."""

    TCP = "TCP"
    UDP = "UDP"


class IPFamily(enum.IntEnum):
    """An IP version; its text is the name in Kubernetes (``IPv4``)."""

    IPV4 = 4
    IPV6 = 6

    def __str__(self) -> str:
        return f"IPv{self.value}"

    @staticmethod
    def of(ip: str) -> IPFamily:
        return IPFamily.IPV6 if ":" in ip else IPFamily.IPV4


class FrontendKind(enum.StrEnum):
    """The kind of address that clients dial."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    """An address of ``status.loadBalancer.ingress``."""
    EXTERNAL_IP = "ExternalIP"


class SocketAddress(NamedTuple):
    """An address and port, as ``connect`` and ``bind`` accept them."""

    ip: str
    port: int

    @property
    def family(self) -> IPFamily:
        return IPFamily.of(self.ip)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @staticmethod
    def read(text: str) -> SocketAddress:
        """Parse ``10.96.7.1:80`` or ``[fd00::1]:80``; of a port range, take the first port.

        Raises:
            ValueError: The text has no port, or its port isn't a number.
        """
        return SocketAddress(ip_of(text), int(port_of(text).partition(TO)[0]))


def ip_of(text: str) -> str:
    """Return the IP in a :class:`SocketAddress`'s text; empty if the text has no port."""
    return text.rpartition(":")[0].strip("[]")


def port_of(text: str) -> str:
    """Return the port in a :class:`SocketAddress`'s text; the whole text if it has no port."""
    return text.rpartition(":")[2]


def at_port(text: str, port: str) -> str:
    """Return the address of a port in a range's text; empty if no range in it has the port."""
    first, _, last = port_of(text).partition(TO)
    if not last or not port.isdecimal() or not int(first) <= int(port) <= int(last):
        return ""
    return text.removesuffix(f"{first}{TO}{last}") + port


@dataclass(frozen=True, slots=True, order=True)
class Frontend:
    """The address, port or range of ports, and protocol that clients dial for a Service port."""

    ip: str
    port: int
    """The port, or the first port of a range."""
    protocol: Protocol
    kind: FrontendKind = field(default=FrontendKind.CLUSTER_IP, compare=False)
    last: int = 0
    """The last port of a range; 0 for a single port."""

    @property
    def address(self) -> SocketAddress:
        return SocketAddress(self.ip, self.port)

    @property
    def family(self) -> IPFamily:
        return IPFamily.of(self.ip)

    @property
    def is_udp_range(self) -> bool:
        """Whether this is a range of UDP ports, which only the kernel path can serve."""
        return bool(self.last) and self.protocol is Protocol.UDP

    def has(self, other: Frontend) -> bool:
        """Return whether a frontend's address and port are in this range, whatever its protocol."""
        return self.ip == other.ip and self.port <= other.port <= self.last

    @property
    def dialled(self) -> str:
        """The dialled address and ports: ``10.96.7.1:80``, ``[fd00:96::1]:10000–20000``."""
        return f"{self.address}{TO}{self.last}" if self.last else str(self.address)

    def __str__(self) -> str:
        return f"{self.dialled}/{self.protocol}"


def parse_ip(text: str, *, strict: bool = True) -> str:
    """Return an IP address in canonical form.

    Args:
        strict: Whether to reject leading zeros and IPv4-mapped IPv6 addresses. Objects stored
            before the API server became strict may contain both; like kube-proxy, the lenient mode
            reads leading zeros as decimal and a mapped address as IPv4.

    Raises:
        ValueError: The text isn't an address, or has a zone (``fe80::1%eth0``).

    Source: Kubernetes' strict IP validation (KEP-4858); else ParseIPSloppy of k8s.io/utils/net.
    """
    if "%" in text:
        raise ValueError(f"{quoted(text)} has a zone; write the address alone")
    if ":" not in text:
        # Cost: this takes a twelfth of the time of ``ipaddress``, which matters for the thousand
        # endpoints of a slice that changes. Only four numbers without leading zeros match, which is
        # the canonical form.
        try:
            _socket.inet_pton(_socket.AF_INET, text)
        except (OSError, ValueError):
            pass
        else:
            return str(text)
    try:
        address = ipaddress.ip_address(text if strict else without_leading_zeros(text))
    except ValueError:
        raise ValueError(f"{quoted(text)} is not an IP address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        if strict:
            raise ValueError(f"{quoted(text)} is an IPv4 address; write {address.ipv4_mapped}")
        return str(address.ipv4_mapped)
    return str(address)


def without_leading_zeros(text: str) -> str:
    """Return an address or network with leading zeros removed from its numbers."""
    return _LEADING_ZEROS.sub("", text)


def pack_ip(ip: str) -> bytes:
    """Return the 4 or 16 bytes of an address in canonical form, which sort numerically."""
    return _socket.inet_pton(_socket.AF_INET6 if ":" in ip else _socket.AF_INET, ip)


# The cache has room for a node with many routes; each network takes about 400 bytes.
@functools.lru_cache(maxsize=16_384)
def parse_network(text: str) -> Network:
    """Parse a network without host bits, such as ``10.0.0.0/8``. Raises ValueError."""
    return ipaddress.ip_network(text)


def is_ip(text: str) -> bool:
    """Return whether a string is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(ip: str) -> bool:
    """Return whether an address is a loopback address."""
    return ip.startswith("127.") or ip == "::1"


def own_network(ip: str) -> str:
    """Return the /32 or /128 network of one address."""
    return f"{ip}/{32 if IPFamily.of(ip) is IPFamily.IPV4 else 128}"


def contains(networks: Iterable[str], ip: str) -> bool:
    """Return whether an address is in one of the networks."""
    address = ipaddress.ip_address(ip)
    return any(
        network.version == address.version and address in network
        for network in map(parse_network, networks)
    )


def is_within(inner: str, networks: Iterable[str]) -> bool:
    """Return whether a network is a subnet of, or equal to, one of the networks."""
    network = parse_network(inner)
    return any(_holds(other, network) for other in map(parse_network, networks))


def of_family(networks: Iterable[str], family: IPFamily) -> tuple[str, ...]:
    """Return the networks, or addresses, of one family, in their order."""
    return tuple(n for n in networks if IPFamily.of(n) is family)


def intersect(some: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Return the intersection: the smaller network of each overlapping pair, without duplicates."""
    found: dict[str, None] = {}
    wide = [(text, parse_network(text)) for text in others]
    for text in some:
        network = parse_network(text)
        for other_text, other in wide:
            if _holds(other, network):
                found[text] = None
            elif _holds(network, other):
                found[other_text] = None
    return tuple(found)


def _holds(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]
