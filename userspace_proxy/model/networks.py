"""Networks as text in canonical form."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

from .addresses import IPFamily

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# Enough for a node with many routes; each network takes some 400 bytes.
@functools.lru_cache(maxsize=16_384)
def parse_network(text: str) -> Network:
    """Return a network."""
    return ipaddress.ip_network(text)


def is_loopback(ip: str) -> bool:
    """Return whether an address always belongs to the node itself."""
    return ip.startswith("127.") or ip == "::1"


def own_network(ip: str) -> str:
    """Return the network that contains only one address."""
    return f"{ip}/{32 if IPFamily.of(ip) is IPFamily.IPV4 else 128}"


def contains(networks: Iterable[str], ip: str) -> bool:
    """Return whether an address is in one of the networks."""
    address = ipaddress.ip_address(ip)
    return any(
        network.version == address.version and address in network
        for network in map(parse_network, networks)
    )


def is_within(inner: str, networks: Iterable[str]) -> bool:
    """Return whether a network is in one of the networks, or is one of them."""
    network = parse_network(inner)
    return any(_holds(other, network) for other in map(parse_network, networks))


def of_family(networks: Iterable[str], family: IPFamily) -> tuple[str, ...]:
    """Return the networks of one family, in their order."""
    return tuple(n for n in networks if IPFamily.of(n) is family)


def intersect(some: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Return the intersection: networks nest, so it is the smaller one of each matching pair."""
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
