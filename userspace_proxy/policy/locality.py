"""Decides which connections may use the client's address: replies must return through this node.

    client      endpoint            replies return through this node, because …
    any         attached            … it is the endpoint's only route; but not if both are
                                    attached to one link, unless the link is a bridge whose
                                    packets are filtered (``bridges``)
    attached    elsewhere, routed   … the client's pod network is routed to this node
    this node   any                 (the client has the node's address anyway)
    otherwise                       (replies may take another route)

Rule 1: routes decide, before the first packet: a failed dial proves nothing, because network
policies also drop packets.
Rule 2: if in doubt, this node's address is used, because it always works.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..model.addresses import Network, is_within, parse_network
from ..model.node_network import NodeLink, NodeRoute

# Source ports of dials from clients' addresses: above Linux's default range (32768 to 60999).
FIRST_PORT, LAST_PORT = 61000, 65535

HERE = -1
"""One of this node's own addresses."""
OUTSIDE = 0
"""An address that is neither on this node nor in a pod network."""
ROUTED = -2
"""An address in the pod network of another node."""
FILTERED_BRIDGE = -3
"""An address on a bridge whose replies are delivered to this node, even replies to clients on the
bridge."""
Location = int
"""One of these four values, or the index of the link to which an address is attached."""

# The kind of link whose other end is in a container.
_CONTAINER = "veth"
# Kinds of bridge ports for containers and virtual machines; other ports connect a bridge to a LAN.
_PORTS = (_CONTAINER, "tun")
_TUNNELS = ("gre", "ip6gre", "ip6tnl", "ipip", "sit", "vxlan", "geneve", "wireguard")
# The bridge of Weave, which spans all nodes through a veth pair that looks like a container's.
_SPANNING = ("weave",)
# How many addresses, and pairs of addresses, are cached: enough for the clients and endpoints of a
# busy node.
_CACHED = 16_384

Networks = Mapping[str, Location]
"""Locations by network in canonical form; the longest match decides, the default is OUTSIDE."""


class PodLink(NamedTuple):
    """A link that leads only to containers of this node, or to other machines."""

    number: int
    name: str
    networks: tuple[Network, ...] = ()
    """The networks that are routed to the link; empty if unknown."""

    @property
    def is_uplink(self) -> bool:
        return any(not one.prefixlen for one in self.networks)


class Locality:
    """The locations of addresses, seen from this node.

    Args:
        networks: All networks that aren't OUTSIDE.
    """

    def __init__(self, networks: Networks | None = None) -> None:
        self._networks: dict[str, Location] = {}
        self._by_length: dict[tuple[int, int], dict[int, Location]] = {}
        self._lengths: dict[int, list[int]] = {4: [], 6: []}
        self._cache: dict[str, Location] = {}
        self._pairs: dict[tuple[str, str], bool] = {}
        """Cached results of :meth:`keeps_client`; every connection needs one."""
        self.change((), networks or {})

    def change(self, removed: Iterable[str], added: Networks) -> None:
        """Remove some networks, and add or move others; the cost depends only on the changes."""
        self._cache.clear()
        self._pairs.clear()
        before = len(self._by_length)
        for text in removed:
            if self._networks.pop(text, None) is not None:
                key, number = _read(text)
                del self._by_length[key][number]
                if not self._by_length[key]:
                    del self._by_length[key]
                    before = -1
        for text, location in added.items():
            key, number = _read(text)
            self._networks[text] = location
            self._by_length.setdefault(key, {})[number] = location
        if len(self._by_length) != before:
            for version in self._lengths:
                lengths = [length for v, length in self._by_length if v == version]
                self._lengths[version] = sorted(lengths, reverse=True)

    def keeps_client(self, client: str, endpoint: str) -> bool:
        """Return whether a connection may use its client's address.

        A pod's connection to itself must not: its kernel would drop packets from its own address.
        """
        pair = client, endpoint
        kept = self._pairs.get(pair)
        if kept is None:
            kept = (
                may_keep(self._locate(client), self._locate(endpoint))
                and client != endpoint
                and (":" in client) == (":" in endpoint)
            )
            if len(self._pairs) >= _CACHED:
                self._pairs.clear()
            self._pairs[pair] = kept
        return kept

    def attaches(self, ip: str) -> bool:
        """Return whether an address belongs to a container on this node."""
        location = self._cache.get(ip)
        return is_attached(self._locate(ip) if location is None else location)

    def _locate(self, ip: str) -> Location:
        location = self._cache.get(ip)
        if location is None:
            location = self._look_up(ip)
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[ip] = location
        return location

    def _look_up(self, ip: str) -> Location:
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return HERE
        if address.is_link_local or address.is_loopback or address.is_unspecified:
            # Such an address is valid only on its link or on this node, so treat it as this node's
            # own.
            return HERE
        bits, width = int(address), address.max_prefixlen
        for length in self._lengths[address.version]:
            found = self._by_length[address.version, length].get(
                bits >> (width - length) << (width - length)
            )
            if found is not None:
                return found
        return OUTSIDE


def _read(text: str) -> tuple[tuple[int, int], int]:
    """Parse a network: its version and prefix length, and its first address as a number."""
    network = parse_network(text)
    return (network.version, network.prefixlen), int(network.network_address)


def may_keep(client: Location, endpoint: Location) -> bool:
    """Return whether a connection may use its client's address; False if either side is HERE."""
    if HERE in (client, endpoint):
        return False
    if endpoint == FILTERED_BRIDGE:
        return True
    if endpoint > OUTSIDE:
        return client != endpoint
    return is_attached(client) and endpoint == ROUTED


def is_attached(location: Location) -> bool:
    """Return whether addresses at a location belong to containers on this node."""
    return location > OUTSIDE or location == FILTERED_BRIDGE


def find_networks(
    links: Iterable[NodeLink], routes: Iterable[NodeRoute], cluster: Iterable[str]
) -> dict[str, Location]:
    """Derive the locations of networks from this node's links and routes.

    Args:
        routes: The routes of the ``main`` and ``local`` tables.
        cluster: ``--cluster-cidr``, the networks of pods; in a family without one, every route to
            another machine except the default route counts as a route to pods.
    """
    by_number = {link.number: link for link in links}
    known = [(route, parse_network(route.network)) for route in routes]
    attaching = _find_attaching(by_number, known)
    known = [(route, network) for route, network in known if _is_telling(network)]
    cluster_networks = tuple(cluster)
    versions = {parse_network(text).version for text in cluster_networks}
    locality: dict[str, Location] = dict.fromkeys(cluster_networks, ROUTED)
    for route, network in known:
        if route.is_local:
            locality[route.network] = HERE
        elif route.link in attaching:
            locality[route.network] = route.link
        elif network.version in versions:
            is_inside = is_within(route.network, cluster_networks)
            locality[route.network] = ROUTED if is_inside else OUTSIDE
        else:
            link = by_number.get(route.link)
            is_remote = route.has_gateway or (link is not None and link.kind in _TUNNELS)
            locality[route.network] = ROUTED if is_remote else OUTSIDE
    return locality


def find_pod_links(links: Iterable[NodeLink], routes: Iterable[NodeRoute]) -> tuple[PodLink, ...]:
    """Return the links that lead only to containers of this node, sorted by index.

    Args:
        routes: See :func:`find_networks`.
    """
    known = [(route, parse_network(route.network)) for route in routes]
    by_number = {link.number: link for link in links}
    networks: dict[int, list[Network]] = {
        number: [] for number in sorted(_find_attaching(by_number, known))
    }
    for route, network in known:
        if route.link in networks and _is_telling(network):
            networks[route.link].append(network)
    return tuple(PodLink(n, by_number[n].name, tuple(found)) for n, found in networks.items())


def find_uplinks(links: Iterable[NodeLink], routes: Iterable[NodeRoute]) -> tuple[PodLink, ...]:
    """Return the links of default routes, each with the networks of these routes."""
    names = {link.number: link.name for link in links}
    found: dict[int, list[Network]] = {}
    for route in routes:
        network = parse_network(route.network)
        for number in (route.link, *route.gateway_links):
            if not network.prefixlen and number in names:
                found.setdefault(number, []).append(network)
    return tuple(PodLink(n, names[n], tuple(networks)) for n, networks in found.items())


def _find_attaching(
    links: Mapping[int, NodeLink], routes: Iterable[tuple[NodeRoute, Network]]
) -> set[int]:
    with_gateway: set[int] = set()
    wide: set[int] = set()
    for route, network in routes:
        if route.has_gateway:
            with_gateway.update((route.link, *route.gateway_links))
        if _is_telling(network) and network.prefixlen < network.max_prefixlen:
            wide.add(route.link)
    return _attaching_links(links, with_gateway, wide)


def _is_telling(network: Network) -> bool:
    """Return whether a route to a network shows which hosts are behind its link."""
    return network.prefixlen > 0 and not network.is_link_local


def _attaching_links(
    links: Mapping[int, NodeLink], with_gateway: set[int], wide: set[int]
) -> set[int]:
    """Return the links that lead only to containers of this node.

    Args:
        with_gateway: Links to a gateway.
        wide: Links with a route to several addresses. A container's own link has a route per
            address; a ``veth`` with a network reaches a LAN if this node is a container itself
            (kind, LXC).
    """
    lan = {link.master for link in links.values() if link.master and link.kind not in _PORTS}
    return {
        number
        for number, link in links.items()
        if number not in with_gateway
        and number not in lan
        and link.name not in _SPANNING
        and (link.kind == "bridge" or (link.kind == _CONTAINER and number not in wide))
    }
