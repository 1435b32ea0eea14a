"""When, and in which thread, a listing of the kernel is read again; the clock is fake."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns import Net
from userspace_proxy.kernel.followed_listing import FollowedListing
from userspace_proxy.kernel.netlink import rtnetlink


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.is_cancelled = at, call, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Done:
    """The future of a call in the reader thread; a test completes the call."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callback = callback

    def cancelled(self) -> bool:
        return False

    def result(self) -> Any:
        return self._call()

    def end(self) -> None:
        self._callback(self)


class Loop:
    """An event loop with a fake clock; the test also runs the calls of the reader thread."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []
        self.in_thread: list[Done] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + delay, call))
        return self.timers[-1]

    def add_reader(self, _number: int, on_events: Callable[[], None]) -> None:
        self.on_events = on_events

    def remove_reader(self, _number: int) -> None:
        del self.on_events

    def run_in_executor(self, _executor: Any, call: Callable[..., Any], *args: Any) -> Done:
        self.in_thread.append(Done(lambda: call(*args)))
        return self.in_thread[-1]

    def run_timer(self) -> float:
        """Run the only timer; return its delay."""
        (timer,) = self.timers
        self.timers, before, self.now = [], self.now, timer.at
        timer.call()
        return timer.at - before


class Watched:
    """A listing of a node, whose contents the test sets."""

    def __init__(self, *, is_current: bool = True) -> None:
        self.node = Net("node")
        self.loop = Loop()
        self.read: list[float] = []
        self.taken: list[int] = []
        self.is_current = is_current
        self.refusal: OSError | None = None
        with self.node:
            self.followed: FollowedListing[int] = FollowedListing(
                self.loop,  # type: ignore[arg-type]
                "addresses",
                [rtnetlink.GROUP_ADDRESS_4],
                self._read,
                self.taken.append,
            )

    def change(self) -> None:
        """Make the kernel send events."""
        self.node.run("ip address add 10.1.0.1/32 dev lo; ip address del 10.1.0.1/32 dev lo")
        self.loop.on_events()

    def end_reading(self, *, after_s: float = 0.01) -> None:
        self.loop.now += after_s
        self.loop.in_thread.pop().end()

    def _read(self, _listings: object, since: float) -> tuple[int, bool]:
        if self.refusal is not None:
            raise self.refusal
        self.read.append(since)
        return len(self.read), self.is_current


@pytest.fixture
def watched():
    watched = Watched()
    yield watched
    watched.followed.close()
    watched.node.close()


def test_the_first_change_is_read_after_20_ms_in_the_reader_thread(watched):
    assert watched.followed.first == 1
    watched.change()
    assert watched.loop.run_timer() == pytest.approx(0.02)
    assert watched.taken == []
    watched.end_reading()
    assert watched.taken == [2]
    assert watched.loop.timers == []


def test_a_relevant_event_or_a_loss_of_events_causes_a_listing(watched):
    relevant = iter((False, False, False, True))
    watched.followed._matters = lambda _event: next(relevant, False)
    watched.change()
    assert watched.loop.timers == []
    watched.change()
    watched.loop.run_timer()
    watched.end_reading()
    watched.followed._events._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    watched.node.run("ip address add 10.1.0.1/32 dev lo; ip address del 10.1.0.1/32 dev lo;" * 20)
    watched.loop.on_events()
    watched.loop.run_timer()


def test_an_outdated_first_listing_is_reread():
    watched = Watched(is_current=False)
    assert watched.loop.run_timer() == pytest.approx(0.02)
    watched.followed.close()
    watched.node.close()


def test_constant_changes_cause_one_listing_per_second(watched):
    waited = []
    for _ in range(3):
        watched.change()
        watched.change()
        waited.append(watched.loop.run_timer())
        watched.change()
        watched.end_reading()
    assert waited == [pytest.approx(0.02), pytest.approx(1.0), pytest.approx(1.0)]
    assert watched.taken == [2, 3, 4]
    assert watched.loop.run_timer() == pytest.approx(1.0), "a change while reading is lost"
    watched.end_reading()
    assert (watched.taken, watched.loop.timers) == ([2, 3, 4, 5], [])


def test_a_listing_is_delayed_by_ten_times_the_duration_of_the_previous_listing(watched):
    watched.change()
    watched.loop.run_timer()
    watched.end_reading(after_s=0.5)
    watched.change()
    assert watched.loop.run_timer() == pytest.approx(5.0)


def test_an_outdated_listing_is_used_and_reread(watched):
    watched.is_current = False
    watched.change()
    watched.loop.run_timer()
    watched.end_reading()
    assert watched.taken == [2]
    watched.is_current = True
    assert watched.loop.run_timer() == pytest.approx(1.0)
    watched.end_reading()
    assert watched.taken == [2, 3]
    assert watched.loop.timers == []
    # The second reading requests the same changes as the first reading.
    assert watched.read[1] == watched.read[2]


def test_a_failed_listing_is_logged_and_retried_without_reporting_values(watched, caplog):
    watched.refusal = OSError(12, "Cannot allocate memory")
    watched.change()
    watched.loop.run_timer()
    watched.end_reading()
    assert watched.taken == []
    text = "cannot list this node's addresses, keeping the last list: Cannot allocate memory"
    assert caplog.messages == [text]
    watched.refusal = None
    assert watched.loop.run_timer() == pytest.approx(1.0)
    watched.end_reading()
    assert watched.taken == [2]


def test_after_close_no_listing_is_reported_or_read_again(watched):
    watched.change()
    watched.loop.run_timer()
    watched.followed.close()
    watched.followed.close()
    watched.end_reading()
    assert watched.taken == []
    assert watched.loop.timers == []
