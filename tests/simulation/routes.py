"""Where addresses are, seen from the simulated node: which endpoints see their clients' addresses.

Written from what is promised (docs/paths.md): an endpoint behind a link of this node sees the
address of a client that is behind another link, or elsewhere; one that is elsewhere doesn't.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from .addresses import ipv6_of

# Links by network: endpoints, and clients in the cluster.
_FIRST = (("10.2.0.0/16", 5), ("10.3.0.0/17", 7))


def in_both_families(links: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return links by networks of IPv4 and by those of IPv6 that stand for them."""
    found = dict(links)
    return found | {ipv6_of(network): link for network, link in found.items()}


class Routes:
    """Those of one run.

    Args:
        is_on: Whether the node lets endpoints see clients' addresses.
    """

    def __init__(self, *, is_on: bool) -> None:
        self.is_on = is_on
        self.links = in_both_families(_FIRST)

    def change(self, removed: Sequence[str], added: Mapping[str, int], *, is_on: bool) -> None:
        """Take other routes."""
        self.is_on = is_on
        for network in removed:
            self.links.pop(network, None)
        self.links.update(added)

    def keeps(self, client: str, endpoint: str) -> bool:
        """Return whether an endpoint sees a client's address."""
        link = self._link_of(endpoint)
        return self.is_on and link is not None and link != self._link_of(client)

    def _link_of(self, ip: str) -> int | None:
        address = ipaddress.ip_address(ip)
        known = {ipaddress.ip_network(text): link for text, link in self.links.items()}
        fitting = [network for network in known if address in network]
        if not fitting:
            return None
        return known[max(fitting, key=lambda network: network.prefixlen)]
