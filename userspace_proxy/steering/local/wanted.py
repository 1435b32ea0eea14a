"""Computes the desired kernel state: which addresses are routed here, and what is admitted.

    targets ─▶ uses of each address ─▶ networks to route
       └─────▶ frontends to let in; all else at those addresses is refused

Rule 1: nothing here queries the kernel: what else the node has is an argument.
Rule 2: the cost of a change depends on its size alone.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from ...errors import SteeringError
from ...model import Frontend, IPFamily
from ..programmer import Ports, Touched
from .rtnetlink import network_of

Item = TypeVar("Item")
REFUSED = 0
"""The port of a frontend that is refused."""


@dataclass(slots=True)
class Difference:
    """What comes and what goes."""

    networks_come: set[str] = field(default_factory=set)
    networks_go: set[str] = field(default_factory=set)
    served_come: set[Frontend] = field(default_factory=set)
    served_go: set[Frontend] = field(default_factory=set)


class Wanted:
    """The wanted state of one proxy.

    Args:
        ranges: Routed as a whole, whatever is served there; loopback ranges are passed over.
        lets_in: Whether a refused frontend is admitted nevertheless.
    """

    def __init__(
        self,
        ranges: Iterable[str] = (),
        *,
        lets_in: Callable[[Frontend], bool] = lambda _frontend: False,
    ) -> None:
        networks = (ipaddress.ip_network(text, strict=False) for text in ranges)
        self._ranges = [network for network in networks if not network.is_loopback]
        self.ranges = tuple(str(network) for network in self._ranges)
        self._lets_in = lets_in
        self._theirs: frozenset[str] = frozenset()
        self._uses: Counter[str] = Counter()
        self.sources: dict[IPFamily, str] = {}
        """What clients on the node itself are seen as; a missing one is the kernel's choice."""
        self.ports: Ports = {}
        self.networks: set[str] = set()
        """Those of single addresses, the ranges not among them."""
        self.served: set[Frontend] = set()
        """Frontends that are let in."""
        self.refused: dict[str, SteeringError] = {}
        """Networks, ranges among them, that the kernel refuses to bring here, with the causes."""

    def is_ours(self, ip: str) -> bool:
        """Return whether packets to an address come here by our doing."""
        return network_of(ip) not in self._theirs and not is_loopback(ip)

    def unsteered(self) -> dict[Frontend, str]:
        """Return the frontends at refused networks with the causes; it examines all frontends."""
        if not self.refused:
            return {}
        found = {f: self._refusal_of(f.ip) for f in self.ports if self.is_ours(f.ip)}
        return {frontend: str(cause) for frontend, cause in found.items() if cause is not None}

    def is_affected_by(self, network: str) -> bool:
        """Return whether it matters that a range comes to the node by itself, or goes."""
        return network in self.networks or network in self._theirs

    def is_in_ranges(self, ip: str) -> bool:
        """Return whether an address is in a range that is routed as a whole."""
        if not self._ranges:
            return False
        address = ipaddress.ip_address(ip)
        return any(address.version == n.version and address in n for n in self._ranges)

    def change(self, touched: Touched) -> Difference:
        """Change the ports of some frontends; return the difference for the kernel."""
        difference = Difference()
        for frontend, port in touched.items():
            before = self.ports.get(frontend)
            if port is None:
                self.ports.pop(frontend, None)
            else:
                self.ports[frontend] = port
            if self.is_ours(frontend.ip):
                self._use(frontend.ip, (port is not None) - (before is not None), difference)
            self._serve(frontend, difference)
        return difference

    def reconsider(self, frontends: Iterable[Frontend]) -> Difference:
        """Ask again whether some frontends are let in."""
        difference = Difference()
        for frontend in frontends:
            self._serve(frontend, difference)
        return difference

    def set_theirs(self, networks: Iterable[str]) -> None:
        """Take what the node has by itself, as ranges; costs as much as there are targets."""
        theirs = frozenset(networks)
        if theirs == self._theirs:
            return
        ports, self._theirs = self.ports, theirs
        self.ports, self._uses, self.networks, self.served = {}, Counter(), set(), set()
        self.change(ports)

    def _refusal_of(self, ip: str) -> SteeringError | None:
        cause = self.refused.get(network_of(ip))
        if cause is None and self.is_in_ranges(ip):
            address = ipaddress.ip_address(ip)
            ranges = (n for n in self._ranges if address.version == n.version and address in n)
            cause = next((self.refused[str(n)] for n in ranges if str(n) in self.refused), None)
        return cause

    def _use(self, ip: str, by: int, difference: Difference) -> None:
        if not by or self.is_in_ranges(ip):
            return
        self._uses[ip] += by
        network = network_of(ip)
        if self._uses[ip] and network not in self.networks:
            self.networks.add(network)
            _come(network, difference.networks_come, difference.networks_go)
        elif not self._uses[ip]:
            del self._uses[ip]
            self.networks.discard(network)
            _come(network, difference.networks_go, difference.networks_come)

    def _serve(self, frontend: Frontend, difference: Difference) -> None:
        port = self.ports.get(frontend)
        is_in = (
            port is not None
            and self.is_ours(frontend.ip)
            and (port != REFUSED or self._lets_in(frontend))
        )
        if is_in == (frontend in self.served):
            return
        if is_in:
            self.served.add(frontend)
            _come(frontend, difference.served_come, difference.served_go)
        else:
            self.served.discard(frontend)
            _come(frontend, difference.served_go, difference.served_come)


def is_loopback(ip: str) -> bool:
    """Return whether an address is always the node's own."""
    return ip.startswith("127.") or ip == "::1"


def _come(item: Item, into: set[Item], out_of: set[Item]) -> None:
    """Note that something comes; what only went before is where it was."""
    if item in out_of:
        out_of.remove(item)
    else:
        into.add(item)
