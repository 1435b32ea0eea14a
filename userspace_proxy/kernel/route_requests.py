"""The netlink socket for requests about links, routes, rules and bridge entries."""

from __future__ import annotations

from ..errors import SteeringError
from .netlink import Requests
from .netlink.sockets import NETLINK_ROUTE


def open_route_requests() -> Requests:
    """Open such a socket in this thread's network namespace; the caller closes it.

    Raises:
        SteeringError: The kernel has no such sockets, or this process no descriptor left.
    """
    try:
        return Requests.open(NETLINK_ROUTE)
    except OSError as exc:
        raise SteeringError(f"cannot open a netlink socket: {exc.strerror}") from exc
