"""Lists links, addresses and routes of a network namespace once for all watchers.

    watchers, each in a thread ── "I saw an event at 17.2" ──▶ NodeListings ── dump ──▶ kernel
                               ◀─ all of them, as of 17.3 ──

Rule 1: listings are always complete, so a lost event does no harm; only messages that differ from
the last listing are parsed, because parsing takes nearly all of the time.
Rule 2: during constant changes, listing each kind is limited to 5 % of a CPU, or to once a second.
In between, callers receive the last listing, marked as not current, and ask again later.
Rule 3: a listing that a change has interrupted is repeated. If every listing is interrupted,
callers receive the last complete listing, marked as not current.
Rule 4: the network namespace of the thread that calls :meth:`NodeListings.here` applies.

Source: rtnetlink(7), include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import ClassVar, Generic, NamedTuple, TypeVar

from ..clocks import Clocks
from ..model.node_network import NodeRoute
from ..pacing import Pacing
from .netlink import Requests, rtnetlink
from .netlink.messages import Message
from .netlink.rtnetlink import FAMILIES, TABLE_LOCAL, TABLE_MAIN, ListedAddress, ListedLink
from .netlink.sockets import LISTINGS, NETLINK_ROUTE
from .own_namespace import network_namespace

ANY = -math.inf
"""A time in the past, for callers that accept the last listing, whatever has changed since then."""
# The pause after a listing, and the CPU time of a listing below which no pause is needed: on a
# small node, a listing takes 0.3 ms, so changes are listed immediately.
_PACING, _SHORT_S = Pacing(0.05, longest_s=1.0), 0.005
_IGNORED = (rtnetlink.BROADCAST, rtnetlink.ANYCAST, rtnetlink.MULTICAST)
# The protocol numbers of this program's own routes.
OURS = (rtnetlink.LOCAL_STEERING, rtnetlink.REPLY_ROUTING)


Item = TypeVar("Item")


class Listed(NamedTuple, Generic[Item]):
    """A complete listing, which may be out of date."""

    items: tuple[Item, ...]
    """The listed items; the same object until something changes."""
    is_current: bool
    """Whether the listing includes all changes up to the requested moment."""


class _LastListing(Generic[Item]):
    """The last listing of one kind."""

    def __init__(
        self,
        asks: tuple[bytes, ...],
        parse: Callable[[Message], Item | None],
        arrange: Callable[[Iterable[Item]], list[Item]],
    ) -> None:
        self.asks = asks
        self.parse = parse
        self.arrange = arrange
        self.parsed: dict[bytes, Item | None] = {}
        """The parsed items, by message."""
        self.items: tuple[Item, ...] | None = None
        self.began = ANY
        """Monotonic seconds when the listing began; ANY if something changed during it."""
        self.rested_at = ANY


class NodeListings:
    """The listings of one network namespace; thread-safe.

    The socket is closed together with the object. Methods that list take the moment, in monotonic
    seconds, up to which changes must be included; OSError is raised if the kernel refuses.
    """

    _shared: ClassVar[weakref.WeakValueDictionary[int, NodeListings]] = (
        weakref.WeakValueDictionary()
    )
    _sharing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        requests: Requests,
        clock: Callable[[], float] = Clocks.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._requests = requests
        weakref.finalize(self, requests.close)
        self._clock = clock
        self._cpu_clock = cpu_clock
        # A thread waits while another thread lists: 25 ms for 10,000 addresses, and ten times as
        # long if all listings are interrupted.
        self._lock = threading.Lock()
        routes = tuple(map(rtnetlink.list_routes, FAMILIES.values()))
        addresses = (rtnetlink.list_addresses(),)
        self._links = _LastListing[ListedLink]((rtnetlink.list_links(),), _read_link, sorted)
        self._addresses = _LastListing[ListedAddress](addresses, _read_address, list)
        self._routes = _LastListing[NodeRoute](routes, _read_route, sorted)

    @classmethod
    def here(cls) -> NodeListings:
        """Return this namespace's shared listings; unshared ones if /proc hides the namespace."""
        with cls._sharing:
            # The socket keeps the namespace alive, so its inode number isn't reused.
            number = network_namespace("thread-self")
            found = cls._shared.get(number)
            if found is None:
                found = cls(Requests.open(NETLINK_ROUTE))
                if number:
                    cls._shared[number] = found
            return found

    def links(self, since: float) -> Listed[ListedLink]:
        """List all links, sorted by interface index."""
        return self._read(self._links, since)

    def addresses(self, since: float) -> Listed[ListedAddress]:
        """List the addresses of all links, in the kernel's order."""
        return self._read(self._addresses, since)

    def routes(self, since: float) -> Listed[NodeRoute]:
        """List the routes of tables ``main`` and ``local`` that ``_read_route`` returns, sorted."""
        return self._read(self._routes, since)

    def _read(self, last: _LastListing[Item], since: float) -> Listed[Item]:
        with self._lock:
            is_needed = last.began < since and self._clock() >= last.rested_at
            if last.items is None or is_needed:
                self._list(last)
            assert last.items is not None
            return Listed(last.items, last.began >= since)

    def _list(self, last: _LastListing[Item]) -> None:
        began, began_cpu = self._clock(), self._cpu_clock()
        messages: list[Message] = []
        is_whole = True
        for ask in last.asks:
            for _ in range(LISTINGS):
                found, is_one_whole = self._requests.list_once(ask)
                if is_one_whole:
                    break
            messages += found
            is_whole = is_whole and is_one_whole
        if is_whole or last.items is None:
            _accept(last, messages)
        last.began = began if is_whole else ANY
        took_s = self._cpu_clock() - began_cpu
        rest_s = _PACING.wait_s(took_s) if took_s >= _SHORT_S else 0.0
        last.rested_at = self._clock() + rest_s


def _accept(last: _LastListing[Item], messages: list[Message]) -> None:
    """Parse new messages; an error leaves the last listing unchanged."""
    before, parse = last.parsed, last.parse
    parsed: dict[bytes, Item | None] = {}
    is_same = last.items is not None
    for message in messages:
        key = message.body
        if key in before:
            parsed[key] = before[key]
        else:
            is_same = False
            parsed[key] = parse(message)
    if not is_same or len(parsed) != len(before):
        found = (one for one in parsed.values() if one is not None)
        last.items = tuple(last.arrange(dict.fromkeys(found)))
    last.parsed = parsed


def _read_link(message: Message) -> ListedLink | None:
    return rtnetlink.read_link(message) if message.kind == rtnetlink.NEW_LINK else None


def _read_address(message: Message) -> ListedAddress | None:
    return rtnetlink.read_address(message) if message.kind == rtnetlink.NEW_ADDRESS else None


def _read_route(message: Message) -> NodeRoute | None:
    """Return a route; None for routes of this program, other tables, and kinds like broadcast."""
    route = rtnetlink.read_route(message)
    table = route.short_table
    if route.protocol in OURS or table not in (TABLE_MAIN, TABLE_LOCAL):
        return None
    is_local = route.kind == rtnetlink.LOCAL
    if route.kind in _IGNORED or (table == TABLE_LOCAL and not is_local):
        return None
    found = route.open()
    is_unicast = route.kind == rtnetlink.UNICAST
    return NodeRoute(
        found.network,
        found.link if is_unicast else 0,
        is_unicast and found.has_gateway,
        is_local,
        found.gateway_links,
    )
