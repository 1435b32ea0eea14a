"""What a node's links lead to, and whose address an endpoint sees; shares no code with the product.

    veth    one container            unless a network, or a gateway, is behind it
    bridge  containers and virtual   unless one of its ports is of another kind, a gateway is behind
            machines                 it, or it spans nodes (Weave's)
    others  anything

Source: docs/paths.md ("Which address endpoints see"), docs/adr/0047 and 0070.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ..netlink_routes import Link

CONTAINER, MACHINE, BRIDGE = "veth", "tun", "bridge"
SPANNING = "weave"


def leads_to_containers(link: Link | None, links: Iterable[Link]) -> bool:
    """Return whether a link leads only to containers of this node.

    Args:
        links: All of the node.
    """
    if link is None or link.has_gateway or link.beyond or link.name == SPANNING:
        return False
    if link.kind == BRIDGE:
        ports = [one.kind for one in links if one.master == link.number]
        return all(kind in (CONTAINER, MACHINE) for kind in ports)
    return link.kind == CONTAINER and not any(map(_is_wide, (*link.addresses, *link.networks)))


def _is_wide(text: str) -> bool:
    """Return whether a route shows that a link leads to several addresses."""
    one = ipaddress.ip_network(text, strict=False)
    return not one.is_link_local and one.prefixlen < one.max_prefixlen


def must_masquerade(way_in: Link | None, way_out: Link | None, links: Iterable[Link]) -> bool:
    """Return whether replies would bypass this node, or a container wouldn't take them.

    Args:
        way_in: None: the client is this node.
        links: All of the node.
    """
    if way_in is None:
        return False
    if way_in == way_out:
        return True
    some = list(links)
    return not (leads_to_containers(way_in, some) or leads_to_containers(way_out, some))
