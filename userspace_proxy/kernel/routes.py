"""Tracks the links and routes of this node.

    FollowedListing ──links, routes──▶ derive ──▶ derived values
                                          settings of br_netfilter

Rule 1: a thread lists and derives: ten thousand routes take a long time (``followed_listing``).
Rule 2: routes of this program are omitted: ``local`` steering may add thousands.
Rule 3: the kernel sends no events for sysctls: :meth:`NodeRoutes.look_at_settings` checks them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from ..clocks import Clocks
from ..model.node_network import BridgeFilter, NodeLink, NodeRoute
from .followed_listing import FollowedListing
from .netlink import Requests, explained, rtnetlink
from .netlink.messages import Message
from .netlink.sockets import NETLINK_ROUTE
from .node_listings import OURS, NodeListings

# The errors without a route, or for a route of type unreachable, prohibit or blackhole (fib_props).
_REFUSALS = {
    errno.ENETUNREACH: os.strerror(errno.ENETUNREACH),
    errno.EHOSTUNREACH: "a route of type unreachable",
    errno.EACCES: "a route of type prohibit",
    errno.EINVAL: "a route of type blackhole",
}
_GROUPS = (rtnetlink.GROUP_LINK, rtnetlink.GROUP_ROUTE_4, rtnetlink.GROUP_ROUTE_6)

Derived = TypeVar("Derived")


class NodeRoutes(Generic[Derived]):
    """The current links and routes of this node.

    Args:
        changed: Called in the loop after links, routes or br_netfilter's settings have changed.
        derive: Returns values derived from links and routes; called after each listing, mostly in
            another thread.

    Raises:
        SteeringError: The kernel refuses a listing.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        derive: Callable[[tuple[NodeLink, ...], tuple[NodeRoute, ...]], Derived],
    ) -> None:
        self._changed = changed
        self._derive = derive
        self._is_closed = False
        self._followed = FollowedListing(loop, "routes", _GROUPS, self._read, self._take, _matters)
        self.now: ListedNode[Derived] = self._followed.first
        """The result of the last listing."""

    def look_at_settings(self) -> None:
        """List again if br_netfilter's sysctls have changed; reads only two small files."""
        with contextlib.suppress(OSError):
            if not self._is_closed and read_bridge_filter() != self.now.bridge_filter:
                self._followed.look_again()

    def close(self) -> None:
        """Stop following; ``now`` stays as it is. Idempotent."""
        self._is_closed = True
        self._followed.close()

    def _take(self, now: ListedNode[Derived]) -> None:
        before, self.now = self.now, now
        if now[:3] != before[:3]:
            self._changed()

    def _read(self, listings: NodeListings, since: float) -> tuple[ListedNode[Derived], bool]:
        links, routes, is_current = read_links_and_routes(listings, since)
        derived = self._derive(links, routes)
        return ListedNode(links, routes, read_bridge_filter(), derived), is_current


class ListedNode(NamedTuple, Generic[Derived]):
    """One listing, and the values derived from it."""

    links: tuple[NodeLink, ...]
    routes: tuple[NodeRoute, ...]
    """The routes of the ``main`` and ``local`` tables for both families."""
    bridge_filter: BridgeFilter
    derived: Derived


def route_refusal(ip: str) -> str:
    """Return why the kernel wouldn't send packets to an address; empty if it would.

    Raises:
        SteeringError: The kernel can't be asked.
    """
    with explained("open a netlink socket"), Requests.open(NETLINK_ROUTE) as requests:
        try:
            requests.ask(rtnetlink.find_route(ip))
        except OSError as exc:
            if exc.errno not in _REFUSALS:
                raise
            return _REFUSALS[exc.errno]
    return ""


def read_links_and_routes(
    listings: NodeListings, since: float
) -> tuple[tuple[NodeLink, ...], tuple[NodeRoute, ...], bool]:
    """List the links of a network namespace, by interface index, and its routes, sorted.

    Returns: Links, routes, and whether they are current as of ``since`` (monotonic seconds).

    Raises:
        OSError: The kernel refused the listing.
    """
    links, routes = listings.links(since), listings.routes(since)
    is_current = links.is_current and routes.is_current
    return tuple(one.link for one in links.items), routes.items, is_current


def list_links_and_routes() -> tuple[tuple[NodeLink, ...], tuple[NodeRoute, ...]]:
    """List the links and routes of this thread's network namespace.

    Raises:
        OSError: The kernel doesn't list links or routes.
    """
    links, routes, _ = read_links_and_routes(NodeListings.here(), Clocks.monotonic())
    return links, routes


def read_bridge_filter(settings: Path = Path("/proc/sys/net/bridge")) -> BridgeFilter:
    """Return br_netfilter's settings in this thread's network namespace; all off without it.

    Raises:
        OSError: They exist, but can't be read: this process may have no free descriptor.
    """

    def is_on(name: str) -> bool:
        return settings.joinpath(name).read_text(encoding="ascii").strip() not in ("", "0")

    try:
        return BridgeFilter(
            True, is_on("bridge-nf-call-iptables"), is_on("bridge-nf-call-ip6tables")
        )
    except FileNotFoundError:
        return BridgeFilter()


def _matters(message: Message) -> bool:
    """Return whether an event is about anything but a route of this program."""
    is_route = message.kind in (rtnetlink.NEW_ROUTE, rtnetlink.DEL_ROUTE)
    return not is_route or rtnetlink.read_route(message).protocol not in OURS
