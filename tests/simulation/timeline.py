"""The virtual clock, future events, and an event loop that uses the clock."""

from __future__ import annotations

import heapq
import math
import traceback
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

# The maximum duration of a preempted system call.
_PREEMPTION_S = 0.002
# uvloop rounds timers to milliseconds.
_EARLY_S = 0.001


class Timeline:
    """The monotonic clock and its future events; events of equal times run in insertion order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def next_at(self) -> float:
        """The time of the next event; infinity if there is none."""
        return self._events[0][0] if self._events else math.inf

    def clock(self) -> float:
        return self.now

    def at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back at a time, or as soon as possible if it has passed."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, callback, args))

    def after(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Call a function after ``delay`` seconds."""
        # This repeats the code of ``at`` to save a call: a run does this a few thousand times.
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, callback, args))

    def step(self) -> bool:
        """Run the next event; return False if there is none."""
        if not self._events:
            return False
        when, _, callback, args = heapq.heappop(self._events)
        self.now = max(self.now, when)
        callback(*args)
        return True

    def step_until(self, end: float) -> bool:
        """Run the next event; return False if there is none up to a time."""
        events = self._events
        if not events or events[0][0] > end:
            return False
        when, _, callback, args = heapq.heappop(events)
        if when > self.now:
            self.now = when
        callback(*args)
        return True

    def preempt(self) -> None:
        """Run the next event within a system call if it happens soon enough."""
        if self._events and self._events[0][0] <= self.now + _PREEMPTION_S:
            self.step()

    def run_until(self, end: float) -> None:
        """Run all events up to a time."""
        events = self._events
        while events and events[0][0] <= end:
            when, _, callback, args = heapq.heappop(events)
            if when > self.now:
                self.now = when
            callback(*args)
        self.now = max(self.now, end)


class _Handle:
    """Simulates asyncio.TimerHandle."""

    __slots__ = ("args", "callback", "is_cancelled", "when")

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self.callback = callback
        self.args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class VirtualLoop:
    """An event loop in virtual time, with the methods of asyncio's that the data plane uses.

    Args:
        rng: Draws the times for which the process waits for the CPU.
        timers_first: Whether to use uvloop's order, instead of asyncio's.
        is_ready: Returns whether a descriptor can be read.
        report: Called with the text of each exception.
        after_turn: Called after each iteration.
    """

    def __init__(
        self,
        timeline: Timeline,
        rng: Random,
        *,
        timers_first: bool,
        is_ready: Callable[[int], bool],
        report: Callable[[str], None],
        after_turn: Callable[[], None],
    ) -> None:
        self._timeline = timeline
        self._random = rng.random
        self._timers_first = timers_first
        self._is_ready = is_ready
        self._report = report
        self._after_turn = after_turn
        self._soon: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._readers: dict[int, Callable[[], object]] = {}
        self._readable: dict[int, _Handle] = {}
        """The readable descriptors of this iteration."""
        self._count = 0
        self._is_scheduled = False
        self.is_running = False
        self.held_until = 0.0
        """The time until which the process is stopped."""
        self.after_callback: Callable[[], None] | None = None

    def time(self) -> float:
        return self._timeline.now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: object = None
    ) -> _Handle:
        handle = _Handle(self._timeline.now, callback, args)
        self._soon.append(handle)
        self.wake()
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: object = None
    ) -> _Handle:
        handle = _Handle(self._timeline.now + delay, callback, args)
        self._count += 1
        heapq.heappush(self._timers, (handle.when, self._count, handle))
        self._timeline.at(handle.when - _EARLY_S * self._random(), self._wake_for, handle)
        return handle

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self._readers[fd] = callback
        self.wake()

    def remove_reader(self, fd: int) -> bool:
        if fd in self._readable:
            self._readable[fd].cancel()
        return self._readers.pop(fd, None) is not None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._report(f"{context['message']}: {_in_one_line(context['exception'])}")

    @property
    def timers(self) -> list[str]:
        """The callbacks of pending timers."""
        return [repr(h.callback) for _, _, h in self._timers if not h.is_cancelled]

    def run(self, callback: Callable[[], object]) -> None:
        """Run a callback immediately, as if in a separate iteration."""
        self.is_running = True
        callback()
        self.is_running = False
        self.wake()

    def hold(self, seconds: float) -> None:
        """Stop the process for ``seconds`` from now."""
        self.held_until = max(self.held_until, self._timeline.now + seconds)

    def skip(self, seconds: float) -> None:
        """Stop all processes for ``seconds``, even within an iteration."""
        self._timeline.now += seconds

    def wake(self) -> None:
        """Schedule an iteration soon."""
        if not self._is_scheduled and not self.is_running:
            self._is_scheduled = True
            start = max(self._timeline.now, self.held_until)
            self._timeline.at(start + 0.0003 * self._random(), self._iterate)

    def _wake_for(self, handle: _Handle) -> None:
        if not handle.is_cancelled:
            self.wake()

    def _iterate(self) -> None:
        now = self._timeline.now
        self._is_scheduled = False
        if self.is_running:
            return
        if now < self.held_until:
            self.wake()
            return
        readable, readers = self._readable, self._readers
        readable.clear()
        for fd in self._all_ready():
            readable[fd] = _Handle(now, readers[fd], ())
        timers = self._due(now)
        if self._timers_first:
            batch = [*timers, *self._soon, *readable.values()]
        else:
            batch = [*self._soon, *readable.values(), *timers]
        self._soon.clear()
        self.is_running = True
        after_callback = self.after_callback
        for handle in batch:
            if not handle.is_cancelled:
                try:
                    handle.callback(*handle.args)
                except Exception as exc:  # noqa: BLE001 - whatever it is, it is a finding
                    self._report(f"exception in {handle.callback!r}: {_in_one_line(exc)}")
                if after_callback is not None:
                    after_callback()
        self.is_running = False
        self._after_turn()
        if self._is_scheduled:
            return
        due = bool(self._timers) and self._timers[0][0] <= self._timeline.now + _EARLY_S
        if self._soon or due or self._is_any_ready():
            self.wake()

    def _all_ready(self) -> list[int]:
        """Return the watched descriptors that can be read."""
        return [*filter(self._is_ready, self._readers)]

    def _is_any_ready(self) -> bool:
        return any(map(self._is_ready, self._readers))

    def _due(self, now: float) -> list[_Handle]:
        due: list[_Handle] = []
        while self._timers and self._timers[0][0] <= now + _EARLY_S:
            handle = heapq.heappop(self._timers)[2]
            if not handle.is_cancelled:
                due.append(handle)
        return due


def _in_one_line(exc: BaseException) -> str:
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{exc!r} at {frame.filename.rpartition('/')[2]}:{frame.lineno}"
