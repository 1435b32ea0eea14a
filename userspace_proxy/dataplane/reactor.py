"""Dispatches the events of one edge-triggered epoll, nested in the caller's event loop.

    loop ──epoll readable──▶ dispatch: events ▶ ready list ▶ late closes
                                 ▲                  │
                                 └──── call_soon ───┘   (handlers that stopped early)

Rule 1: a handler that stops before EAGAIN puts itself on the ready list: epoll doesn't repeat an
edge after which the socket wasn't read to EAGAIN.
Rule 2: a descriptor that handlers close during a dispatch is closed in the kernel only at the end
of the dispatch, so no event of the same batch can reach a new socket with the same number.
Rule 3: no call blocks here; deadlines are the loop's timers.
Rule 4: all handlers read into one buffer (``calls``); a handler that can't pass on the bytes copies
them before it returns. The buffer isn't global: other threads have their own reactors.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any

from ..clocks import Clocks
from ..facts import ITERATION_BOUNDS_S, Durations
from .calls import SystemCalls
from .tuning import BUFFER_BYTES


class Handler:
    """A handler of the epoll events of watched descriptors; this base class ignores them."""

    __slots__ = ()

    def on(self, fd: int, events: int) -> None:
        """Handle the epoll events of one descriptor."""


class Callback(Handler):
    """A handler that passes the events of one descriptor to a function."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[int], object]) -> None:
        self._call = call

    def __repr__(self) -> str:
        return repr(self._call)

    def on(self, _fd: int, events: int) -> None:
        self._call(events)


IN = select.EPOLLIN
OUT = select.EPOLLOUT
PRI = select.EPOLLPRI
ERR = select.EPOLLERR
HUP = select.EPOLLHUP
RDHUP = select.EPOLLRDHUP
ET = select.EPOLLET

# The maximum number of events per dispatch: a timer waits for at most this many events.
_MAX_EVENTS = 256

# The number of events from which a dispatch counts as long, about 0.3 ms: a connection needs at
# least four dispatches, so it waits more than a millisecond for the loop.
_MANY_EVENTS = 16
# How long the loop counts as behind after a long dispatch: a busy loop has short dispatches in
# between.
_BEHIND_S = 0.002


class Reactor:
    """The epoll of one event loop, and the handlers of its events."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, clock: Callable[[], float] = Clocks.monotonic
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.now = clock()
        """Monotonic seconds at the dispatch's start; a timer's callback calls :meth:`tick`."""
        self.turn = 0
        """The number of the current dispatch."""
        self.behind_until = 0.0
        """After a long dispatch, connections count as waiting for the loop, not for a peer, until
        this time in monotonic seconds."""
        self.iterations = Durations(ITERATION_BOUNDS_S)
        """The durations of dispatches."""
        self.calls = SystemCalls(BUFFER_BYTES)
        self.handlers: dict[int, Handler] = {}
        """The handlers of watched descriptors; each may be replaced."""
        self._ready: list[Callable[[], None]] = []
        self._late: list[int] = []
        """Descriptors that are closed at the end of the dispatch."""
        self._is_dispatching = False
        self._is_scheduled = False
        self._is_closed = False
        loop.add_reader(self.calls.epoll_descriptor(), self._dispatch)

    def tick(self) -> None:
        """Update :attr:`now`."""
        self.now = self.clock()

    def watch(self, fd: int, events: int, handler: Handler) -> int:
        """Deliver a descriptor's events to a handler, including current readiness.

        Returns 0, or a negative errno.
        """
        number = self.calls.watch(fd, events)
        if not number:
            self.handlers[fd] = handler
        return number

    def unwatch(self, fd: int) -> None:
        """Stop delivering a descriptor's events; it stays open. Idempotent."""
        if self.handlers.pop(fd, None) is not None:
            self.calls.unwatch(fd)

    def close_descriptor(self, fd: int) -> None:
        """Stop delivering events; close the socket at once, or at the end of a current dispatch."""
        self.handlers.pop(fd, None)
        if self._is_dispatching:
            self._late.append(fd)
        else:
            self.calls.close(fd)

    def run_soon(self, callback: Callable[[], None]) -> None:
        """Call a function once the events that are waiting now have been handled."""
        self._ready.append(callback)
        if not self._is_dispatching:
            self._schedule()

    def close(self) -> None:
        """Stop delivering events; owners close their sockets. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self.loop.remove_reader(self.calls.epoll_descriptor())
        self.handlers.clear()
        self._ready.clear()
        self.calls.close_epoll()

    def _schedule(self) -> None:
        # Schedule at most one dispatch: each may schedule another, so they would multiply.
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._is_scheduled = False
        self._dispatch()

    def _dispatch(self) -> None:
        if self._is_closed:
            return
        began = self.now = self.clock()
        self.turn += 1
        self._is_dispatching = True
        handlers = self.handlers
        try:
            batch = self.calls.wait(_MAX_EVENTS)
            for fd, events in batch:
                handler = handlers.get(fd)
                if handler is not None:
                    try:
                        handler.on(fd, events)
                    except Exception as exc:  # noqa: BLE001 - it must not lose other events
                        self._report(exc, handler)
            if self._ready:
                ready, self._ready = self._ready, []
                for callback in ready:
                    try:
                        callback()
                    except Exception as exc:  # noqa: BLE001 - as above
                        self._report(exc, callback)
        finally:
            self._is_dispatching = False
            if self._late:
                late, self._late = self._late, []
                for fd in late:
                    self.calls.close(fd)
        if self._ready:
            self._schedule()
        ended = self.clock()
        self.iterations.add(ended - began)
        if len(batch) >= _MANY_EVENTS:
            self.behind_until = ended + _BEHIND_S

    def _report(self, exc: Exception, culprit: object) -> None:
        """Report a bug to the loop's exception handler; the batch continues."""
        self.loop.call_exception_handler(
            {"message": f"bug in the data plane: {culprit!r}", "exception": exc}
        )


class LoopTimer:
    """A timer of the loop that calls one function, once per start."""

    __slots__ = "_call", "_handle", "_loop"

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
        self._loop = loop
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether the timer is running."""
        return self._handle is not None

    def start(self, after_s: float) -> None:
        """Call the function after ``after_s`` seconds, unless the timer is already running."""
        if self._handle is None:
            self._handle = self._loop.call_later(after_s, self._fire)

    def stop(self) -> None:
        """Stop the timer, so that the function isn't called. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self._call()


# The shortest timer: uvloop rounds to milliseconds, and a timer of 0 makes the loop spin.
_SHORTEST_S = 0.001


class Timeouts:
    """Deadlines of items: ``expired`` is called for each item not stopped within ``after_s``.

    All deadlines are equally long, so the oldest is due next. Each costs only a dictionary entry,
    and one timer of the loop serves all.
    """

    def __init__(self, reactor: Reactor, after_s: float, expired: Callable[[Any], None]) -> None:
        self._loop = reactor.loop
        self._clock = reactor.clock
        self._after_s = after_s
        self._expired = expired
        self.due: dict[Any, float] = {}
        """Monotonic seconds by item, the earliest first; removing an item stops its deadline."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.due)

    def start(self, item: Any, now: float) -> None:
        """Start the deadline of an item without a running deadline."""
        self.due[item] = now + self._after_s
        if self._timer is None:
            self._timer = self._loop.call_later(self._after_s, self._fire)

    def stop(self, item: Any) -> None:
        """Stop an item's deadline. Idempotent."""
        self.due.pop(item, None)

    def close(self) -> None:
        self.due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        now = self._clock()
        try:
            expiring: list[tuple[Any, float]] = []
            # Collect all first, because finding a dictionary's first entry is slow after deletions.
            for item, due in self.due.items():
                if due > now:
                    break
                expiring.append((item, due))
            for item, due in expiring:
                # Skip this item if another item's callback has stopped or restarted it.
                if self.due.get(item) == due:
                    del self.due[item]
                    self._expired(item)
        finally:
            # Start the timer after the callbacks, because deadlines that they start are due last.
            self._timer = None
            if self.due:
                due = next(iter(self.due.values()))
                self._timer = self._loop.call_later(max(_SHORTEST_S, due - now), self._fire)
