"""Tracks which links of this node lead only to its containers.

Rule 1: events only show that something changed; links and routes are always read in full.
Rule 2: the network namespace is that of the thread that creates the object.
"""

from __future__ import annotations

from ..kernel.netlink import RouteSockets, explained, rtnetlink
from ..kernel.routes import read_links, read_routes
from ..policy.locality import PodLink, find_pod_links

# A route alone rarely decides, and a router has thousands that change all the time.
_GROUPS = (rtnetlink.GROUP_LINK, rtnetlink.GROUP_ADDRESS_4, rtnetlink.GROUP_ADDRESS_6)


class PodLinks:
    """The links of this thread's network namespace.

    Raises:
        SteeringError: The kernel doesn't list them.
    """

    def __init__(self) -> None:
        with explained("watch this node's links"):
            self._sockets = RouteSockets(_GROUPS)
        self._known: tuple[PodLink, ...] | None = None

    def known(self) -> tuple[PodLink, ...]:
        """Return those links, by number; cheap unless a link or an address has changed.

        Networks are as of that change.
        """
        with explained("list this node's links"):
            if self._sockets.events.read() or self._known is None:
                requests = self._sockets.requests
                self._known = find_pod_links(read_links(requests), read_routes(requests))
            return self._known

    def numbers(self) -> frozenset[int]:
        """Return their numbers."""
        return frozenset(link.number for link in self.known())

    def close(self) -> None:
        """Close the sockets; idempotent."""
        self._sockets.close()
