"""Decides which connections may use the client's address: those whose replies return here.

    client      endpoint            an endpoint that answers the client …
    any         attached            … must pass this node, its only way out; unless both are
                                    attached to one link, where it answers past the node
                                    if that isn't a bridge whose packets are filtered (``bridges``)
    attached    elsewhere, routed   … in another node's range of pods, does so by this node
    this node   any                 … has its address from the start
    otherwise                       … may use another route

Rule 1: routes decide, before the first packet; a failed dial proves nothing, as a network policy
also drops packets.
Rule 2: in doubt this node's address is used: that always works.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..model.networks import is_within, parse_network

# Ports of dials at a client's own address: above those that Linux takes for connections of its own
# unless told otherwise (32768 to 60999).
FIRST_PORT, LAST_PORT = 61000, 65535

HERE = -1
"""One of this node's own addresses."""
OUTSIDE = 0
"""Anywhere else."""
ROUTED = -2
"""Among the pods of other nodes."""
FILTERED_BRIDGE = -3
"""Attached to a bridge from which answers are delivered to this node, whichever client they go to.
Which of such bridges it is makes no difference."""
Place = int
"""One of these four, or the number of the link that an address is attached to."""

# What has a container at its other end.
_CONTAINER = "veth"
# Ports of a bridge for containers and virtual machines; with others it is part of a LAN.
_PORTS = (_CONTAINER, "tun")
_TUNNELS = ("gre", "ip6gre", "ip6tnl", "ipip", "sit", "vxlan", "geneve", "wireguard")
# Weave's spans all nodes, through a pair that looks like a container's.
_SPANNING = ("weave",)
# So many addresses are remembered: those of the clients and endpoints of a busy node.
_REMEMBERED = 16_384

Networks = Mapping[str, Place]
"""In canonical form; the longest one that has an address counts, OUTSIDE without one."""


class NodeLink(NamedTuple):
    """One interface of this node."""

    number: int
    name: str
    kind: str
    """As ``ip -details link`` says it: ``veth``, ``bridge``; empty for hardware."""
    master: int = 0
    """The bridge that it is a port of; 0 for none."""
    calls_iptables: bool = False
    """The bridge's own option, as the next two: its IPv4 packets pass iptables and nftables."""
    calls_ip6tables: bool = False
    """The same for IPv6."""
    filters_vlans: bool = False
    is_isolated: bool = False
    """A bridge's port that exchanges no packets with other isolated ports."""


class NodeRoute(NamedTuple):
    """One route of this node."""

    network: str
    """In canonical form."""
    link: int = 0
    """0 for none, or several."""
    has_gateway: bool = False
    is_local: bool = False
    """It delivers to this node."""


class Locality:
    """Where addresses are, seen from this node.

    Args:
        networks: All that isn't outside.
    """

    def __init__(self, networks: Networks | None = None) -> None:
        self._networks: dict[str, Place] = {}
        self._by_length: dict[tuple[int, int], dict[int, Place]] = {}
        self._lengths: dict[int, list[int]] = {4: [], 6: []}
        self._known: dict[str, Place] = {}
        self.change((), networks or {})

    def change(self, removed: Iterable[str], added: Networks) -> None:
        """Forget some networks and learn others; one that is known gets its new place.

        Costs what changes, however many there are.
        """
        self._known.clear()
        before = len(self._by_length)
        for text in removed:
            if self._networks.pop(text, None) is not None:
                key, number = _read(text)
                del self._by_length[key][number]
                if not self._by_length[key]:
                    del self._by_length[key]
                    before = -1
        for text, place in added.items():
            key, number = _read(text)
            self._networks[text] = place
            self._by_length.setdefault(key, {})[number] = place
        if len(self._by_length) != before:
            for version in self._lengths:
                lengths = [length for v, length in self._by_length if v == version]
                self._lengths[version] = sorted(lengths, reverse=True)

    def keeps_client(self, client: str, endpoint: str) -> bool:
        """Tell whether a connection may bear its client's own address.

        One from a pod to itself may not: a kernel drops packets that come in from its own address.
        """
        known = self._known
        source, target = known.get(client), known.get(endpoint)
        if source is None:
            source = self._find(client)
        if target is None:
            target = self._find(endpoint)
        return (
            may_keep(source, target) and client != endpoint and (":" in client) == (":" in endpoint)
        )

    def attaches(self, ip: str) -> bool:
        """Tell whether an address is that of a container on this node."""
        place = self._known.get(ip)
        return is_attached(self._find(ip) if place is None else place)

    def _find(self, ip: str) -> Place:
        place = self._look_up(ip)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[ip] = place
        return place

    def _look_up(self, ip: str) -> Place:
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return HERE
        if address.is_link_local or address.is_loopback or address.is_unspecified:
            # What such an address means depends on the link.
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
    """Return a network's version and length, and its first address as a number."""
    network = parse_network(text)
    return (network.version, network.prefixlen), int(network.network_address)


def may_keep(client: Place, endpoint: Place) -> bool:
    """Tell whether answers of an endpoint to a client come by this node, whatever they are."""
    if HERE in (client, endpoint):
        return False
    if endpoint == FILTERED_BRIDGE:
        return True
    if endpoint > OUTSIDE:
        return client != endpoint
    return is_attached(client) and endpoint == ROUTED


def is_attached(place: Place) -> bool:
    """Tell whether an address is that of a container on this node."""
    return place > OUTSIDE or place == FILTERED_BRIDGE


def find_networks(
    links: Iterable[NodeLink], routes: Iterable[NodeRoute], cluster: Iterable[str]
) -> dict[str, Place]:
    """Return where networks are, by this node's links and routes.

    Args:
        links: All of them.
        routes: Those of the tables ``main`` and ``local``.
        cluster: ``--cluster-cidr``: where pods are; without one of a family every route that
            leads on to another machine is taken for one to pods, the default route aside.
    """
    by_number = {link.number: link for link in links}
    known = [(route, parse_network(route.network)) for route in routes]
    leading_on = {route.link for route, _ in known if route.has_gateway}
    known = [
        (route, network)
        for route, network in known
        if network.prefixlen and not network.is_link_local
    ]
    wide = {route.link for route, network in known if network.prefixlen < network.max_prefixlen}
    attaching = _attaching_links(by_number, leading_on, wide)
    cluster_networks = tuple(cluster)
    versions = {parse_network(text).version for text in cluster_networks}
    locality: dict[str, Place] = dict.fromkeys(cluster_networks, ROUTED)
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
            leads_on = route.has_gateway or (link is not None and link.kind in _TUNNELS)
            locality[route.network] = ROUTED if leads_on else OUTSIDE
    return locality


def _attaching_links(
    links: Mapping[int, NodeLink], leading_on: set[int], wide: set[int]
) -> set[int]:
    """Return the links behind which there is nobody but containers of this node.

    Args:
        links: All of them, by number.
        leading_on: Those with a gateway behind them.
        wide: Those with a network of many behind them. A container with a link of its own has
            addresses, each with a route; a ``veth`` with a network is a machine's way to a LAN,
            where the machine is a container itself (kind, LXC).
    """
    lan = {link.master for link in links.values() if link.master and link.kind not in _PORTS}
    return {
        number
        for number, link in links.items()
        if number not in leading_on
        and number not in lan
        and link.name not in _SPANNING
        and (link.kind == "bridge" or (link.kind == _CONTAINER and number not in wide))
    }
