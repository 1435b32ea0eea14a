"""The desired state of the kernel: addresses to route here, and frontends to admit.

    ports ─▶ uses of each address ─▶ networks to route
      └────▶ frontends to admit; everything else on those addresses is rejected

Rule 1: this module doesn't query the kernel: the node's own addresses are an argument.
Rule 2: the cost of a change depends only on its size.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from ...errors import SteeringError
from ...model import Frontend, IPFamily, is_loopback, own_network
from ..programmer import Affected, Ports

Element = TypeVar("Element")
REFUSED = 0
"""The port of a refused frontend."""


@dataclass(slots=True)
class StateChange:
    """The networks to route, and the frontends to admit, that a change adds and removes."""

    added_networks: set[str] = field(default_factory=set)
    removed_networks: set[str] = field(default_factory=set)
    added_frontends: set[Frontend] = field(default_factory=set)
    removed_frontends: set[Frontend] = field(default_factory=set)


class DesiredState:
    """The desired state of one proxy.

    Args:
        ranges: Networks to route as a whole, even without frontends; loopback networks are ignored.
    """

    def __init__(self, ranges: Iterable[str] = ()) -> None:
        networks = (ipaddress.ip_network(text, strict=False) for text in ranges)
        self._ranges = [network for network in networks if not network.is_loopback]
        self.ranges = tuple(str(network) for network in self._ranges)
        self._node_networks: frozenset[str] = frozenset()
        self._uses: Counter[str] = Counter()
        self.sources: dict[IPFamily, str] = {}
        """The source address for clients on the node, by family; if missing, the kernel chooses."""
        self.ports: Ports = {}
        self.networks: set[str] = set()
        """The single addresses to route, outside the ranges."""
        self.admitted: set[Frontend] = set()
        self.refused: dict[str, SteeringError] = {}
        """The networks and ranges that the kernel refuses to route here, with the causes."""

    def is_routed(self, ip: str) -> bool:
        """Return whether an address needs a route: it is neither the node's own nor loopback."""
        return own_network(ip) not in self._node_networks and not is_loopback(ip)

    def unsteered(self) -> dict[Frontend, str]:
        """Return the frontends in refused networks, with the causes; visits all frontends."""
        if not self.refused:
            return {}
        found = {f: self._refusal_of(f.ip) for f in self.ports if self.is_routed(f.ip)}
        return {frontend: str(cause) for frontend, cause in found.items() if cause is not None}

    def is_affected_by(self, network: str) -> bool:
        """Return whether the desired state depends on whether the node has this single address."""
        return network in self.networks or network in self._node_networks

    def is_in_ranges(self, ip: str) -> bool:
        """Return whether an address is in a range that is routed as a whole."""
        return any(True for _ in self._ranges_of(ip))

    def change(self, affected: Affected) -> StateChange:
        """Change the ports of some frontends; return the change for the kernel."""
        change = StateChange()
        for frontend, port in affected.items():
            before = self.ports.get(frontend)
            if port is None:
                self.ports.pop(frontend, None)
            else:
                self.ports[frontend] = port
            if self.is_routed(frontend.ip):
                self._use(frontend.ip, (port is not None) - (before is not None), change)
            self._admit(frontend, change)
        return change

    def set_node_networks(self, networks: Iterable[str]) -> None:
        """Set the node's own networks; visits all frontends."""
        node_networks = frozenset(networks)
        if node_networks == self._node_networks:
            return
        ports, self._node_networks = self.ports, node_networks
        self.ports, self._uses, self.networks, self.admitted = {}, Counter(), set(), set()
        self.change(ports)

    def _ranges_of(self, ip: str) -> Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        if not self._ranges:
            return ()
        address = ipaddress.ip_address(ip)
        return (n for n in self._ranges if address.version == n.version and address in n)

    def _refusal_of(self, ip: str) -> SteeringError | None:
        networks = [own_network(ip), *map(str, self._ranges_of(ip))]
        return next((self.refused[n] for n in networks if n in self.refused), None)

    def _use(self, ip: str, by: int, change: StateChange) -> None:
        if not by or self.is_in_ranges(ip):
            return
        self._uses[ip] += by
        network = own_network(ip)
        if self._uses[ip] and network not in self.networks:
            self.networks.add(network)
            _note(network, change.added_networks, change.removed_networks)
        elif not self._uses[ip]:
            del self._uses[ip]
            self.networks.discard(network)
            _note(network, change.removed_networks, change.added_networks)

    def _admit(self, frontend: Frontend, change: StateChange) -> None:
        port = self.ports.get(frontend)
        is_admitted = port not in (None, REFUSED) and self.is_routed(frontend.ip)
        if is_admitted == (frontend in self.admitted):
            return
        if is_admitted:
            self.admitted.add(frontend)
            _note(frontend, change.added_frontends, change.removed_frontends)
        else:
            self.admitted.discard(frontend)
            _note(frontend, change.removed_frontends, change.added_frontends)


def _note(element: Element, done: set[Element], opposite: set[Element]) -> None:
    """Record an addition or removal, which cancels its opposite."""
    if element in opposite:
        opposite.remove(element)
    else:
        done.add(element)
