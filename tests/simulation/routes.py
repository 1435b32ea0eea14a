"""The simulated node's routes, which decide which endpoints see their clients' addresses.

Written from docs/paths.md: an endpoint behind a link of this node sees the address of a client
behind another link, or elsewhere; an endpoint elsewhere doesn't.
"""

from __future__ import annotations

import ipaddress

from .addresses import ipv6_of

_IPV4 = {"10.2.0.0/16": 5, "10.3.0.0/17": 7}
LINKS = _IPV4 | {ipv6_of(network): link for network, link in _IPV4.items()}
"""The links by network: of endpoints, and of clients in the cluster."""


def keeps_address(client: str, endpoint: str) -> bool:
    """Return whether an endpoint sees a client's address if the node preserves it."""
    link = _link_of(endpoint)
    return link is not None and link != _link_of(client)


def _link_of(ip: str) -> int | None:
    address = ipaddress.ip_address(ip)
    found = (link for network, link in LINKS.items() if address in ipaddress.ip_network(network))
    return next(found, None)
