"""Keeps a kernel listing current: on an event, a thread lists again.

    event ─ 20 ms ─▶ thread: list, and derive ─────────────────▶ loop: take
                                  └─ 1 s pause, then any changes in between

Rule 1: the first change is read immediately. While changes continue, there is at most one listing a
second, and listing takes at most one eleventh of the time, so the thread is mostly idle.
Rule 2: if the kernel refuses, the last listing is kept, and the next attempt follows after the same
pause.
Rule 3: the network namespace of the thread that creates the object applies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from ..clocks import Clocks
from ..log_fields import FieldLogger
from .netlink import Events, explained
from .netlink.messages import Message
from .netlink.sockets import NETLINK_ROUTE
from .node_listings import ANY, NodeListings

_log = FieldLogger("userspace_proxy.agent")

# How long to wait after the first event for further events, so that one listing covers them all.
_GATHER_S = 0.02
# The pause after a listing: the minimum in seconds, and as a multiple of the listing's duration.
_REST_S, _REST = 1.0, 10

Found = TypeVar("Found")
Reading = Callable[[NodeListings, float], tuple[Found, bool]]
"""Returns the listing, and whether it includes all changes up to the given moment; blocks."""


class FollowedListing(Generic[Found]):
    """A listing of the kernel, kept current.

    Args:
        what: The name of the listed items, for messages: ``routes``.
        groups: Multicast groups whose events report changes.
        read: Called by the constructor, and later in a thread.
        take: Called in the loop with each later listing.
        matters: Returns whether an event is a relevant change; by default all events are.

    Raises:
        SteeringError: The kernel refuses the listing.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        what: str,
        groups: Iterable[int],
        read: Reading[Found],
        take: Callable[[Found], None],
        matters: Callable[[Message], bool] = lambda _event: True,
    ) -> None:
        self._loop = loop
        self._what = what
        self._read = read
        self._take = take
        self._matters = matters
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=what)
        self._listing: asyncio.Future[tuple[Found, bool]] | None = None
        self._changed_at = self._seen_at = ANY
        self._began = self._rested_at = 0.0
        self._is_closed = False
        with explained(f"list this node's {what}"), contextlib.ExitStack() as opened:
            # Subscribe before the first listing, so that no change is missed in between.
            self._events = Events(NETLINK_ROUTE, groups)
            opened.callback(self._events.close)
            self._listings: NodeListings = NodeListings.here()
            self.first, is_current = read(self._listings, Clocks.monotonic())
            opened.pop_all()
        loop.add_reader(self._events.fileno(), self._on_events)
        if not is_current:
            self.look_again()

    def look_again(self) -> None:
        """Schedule another listing, as an event does."""
        self._changed_at = Clocks.monotonic()
        self._plan(_GATHER_S)

    def close(self) -> None:
        """Stop following; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._events.fileno())
        self._events.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # A listing may be in progress; its result is discarded.
        self._thread.shutdown(wait=False)
        del self._listings

    def _on_events(self) -> None:
        events = self._events.read()
        if events.has_lost or any(map(self._matters, events.messages)):
            self.look_again()

    def _plan(self, wait_s: float) -> None:
        """Schedule a listing after the pause, unless one is pending or :meth:`close` was called."""
        if self._timer is None and self._listing is None and not self._is_closed:
            rest_s = self._rested_at - self._loop.time()
            self._timer = self._loop.call_later(max(wait_s, rest_s), self._read_again)

    def _read_again(self) -> None:
        self._timer = None
        self._began, self._seen_at = self._loop.time(), self._changed_at
        self._listing = self._loop.run_in_executor(
            self._thread, self._read, self._listings, self._seen_at
        )
        self._listing.add_done_callback(self._finish)

    def _finish(self, listing: asyncio.Future[tuple[Found, bool]]) -> None:
        self._listing = None
        if self._is_closed or listing.cancelled():
            return
        now = self._loop.time()
        self._rested_at = now + max(_REST_S, _REST * (now - self._began))
        try:
            found, is_current = listing.result()
        except OSError as exc:
            about = {"what": self._what, "cause": str(exc.strerror)}
            text = "cannot list this node's %(what)s, keeping the last list: %(cause)s"
            _log.warning(text, extra=about)
            is_current = False
        else:
            self._take(found)
        if not is_current or self._changed_at > self._seen_at:
            self._plan(_GATHER_S)
