"""Tracks the links of this node behind which there are only containers of this node.

Rule 1: events only trigger a read; links and routes are always read in full.
Rule 2: an object works in the network namespace of the thread that creates it.
"""

from __future__ import annotations

import contextlib
import socket

from ..clocks import Clocks
from ..errors import SteeringError
from ..kernel.neighbours import next_hop
from ..kernel.netlink import Events, explained, rtnetlink
from ..kernel.netlink.sockets import NETLINK_ROUTE
from ..kernel.node_listings import NodeListings
from ..kernel.routes import list_links_and_routes, read_links_and_routes
from ..policy.locality import PodLink, find_pod_links, find_uplinks

# The events of links and addresses. Events of routes aren't needed: changes of routes alone rarely
# matter, and a router has thousands that change constantly.
_GROUPS = (rtnetlink.GROUP_LINK, rtnetlink.GROUP_ADDRESS_4, rtnetlink.GROUP_ADDRESS_6)


def read_client_links() -> tuple[PodLink, ...]:
    """Return the links on which clients' packets arrive: links of pods, then uplinks.

    The result is empty if the kernel fails to list them.
    """
    try:
        with explained("list this node's links"):
            links, routes = list_links_and_routes()
    except SteeringError:
        return ()
    return (*find_pod_links(links, routes), *find_uplinks(links, routes))


def read_link_to(ip: str) -> PodLink | None:
    """Return the link to an address; None if the kernel reports no route."""
    with contextlib.suppress(OSError):
        if hop := next_hop(ip):
            return PodLink(socket.if_nametoindex(hop.interface), hop.interface)
    return None


class PodLinks:
    """The pod links in this thread's network namespace.

    Raises:
        SteeringError: The kernel can't be queried for links; also raised by :meth:`known`.
    """

    def __init__(self) -> None:
        with explained("watch this node's links"):
            self._events = Events(NETLINK_ROUTE, _GROUPS)
            self._listings = NodeListings.here()
        self._known: tuple[PodLink, ...] = ()
        self._is_current = False

    def known(self) -> tuple[PodLink, ...]:
        """Return the links; cheap unless a link or address has changed.

        Their networks are as of the last such change. While links keep changing, the result may be
        a second old.
        """
        with explained("list this node's links"):
            if self._events.read() or not self._is_current:
                self._is_current = False
                listed = read_links_and_routes(self._listings, Clocks.monotonic())
                links, routes, self._is_current = listed
                self._known = find_pod_links(links, routes)
            return self._known

    def numbers(self) -> frozenset[int]:
        return frozenset(link.number for link in self.known())

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._events.close()
