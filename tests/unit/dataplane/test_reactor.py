import asyncio
import socket
from types import SimpleNamespace

import pytest

from userspace_proxy.dataplane import reactor as epoll
from userspace_proxy.dataplane.reactor import Callback, Reactor, Timeouts

from .rig import Clock, open_sockets
from .timers import TimerLoop
from .waiting import turns, until


@pytest.fixture
def pairs():
    """Yield a function that returns socket pairs, whose first end is non-blocking."""
    made = []

    def pairs():
        ours, theirs = socket.socketpair()
        made.extend((ours, theirs))
        ours.setblocking(False)
        return ours, theirs

    yield pairs
    for sock in made:
        sock.close()


def watch(reactor, sock, events, call):
    assert reactor.watch(sock.fileno(), events, Callback(call)) == 0


async def test_an_event_is_delivered_for_a_socket_ready_at_registration(reactor, pairs):
    ours, theirs = pairs()
    theirs.send(b"hello")
    heard = []
    watch(reactor, ours, epoll.IN | epoll.ET, heard.append)
    await until(lambda: heard == [epoll.IN])


async def test_an_edge_triggered_event_is_delivered_once(reactor, pairs):
    ours, theirs = pairs()
    heard = []
    watch(reactor, ours, epoll.IN | epoll.ET, heard.append)
    theirs.send(b"hello")
    await until(lambda: heard)
    await turns(3)
    assert heard == [epoll.IN]


async def test_the_watched_events_can_be_changed(reactor, pairs):
    ours, _theirs = pairs()
    heard = []
    watch(reactor, ours, epoll.IN | epoll.ET, heard.append)
    await turns(3)
    assert heard == []
    reactor.calls.change_watch(ours.fileno(), epoll.IN | epoll.OUT | epoll.ET)
    await until(lambda: heard == [epoll.OUT])


async def test_a_handler_can_be_replaced(reactor, pairs):
    ours, theirs = pairs()
    heard = []
    watch(reactor, ours, epoll.IN | epoll.ET, lambda _events: heard.append("old"))
    reactor.handlers[ours.fileno()] = Callback(lambda _events: heard.append("new"))
    theirs.send(b"hello")
    await until(lambda: heard == ["new"])


async def test_an_unwatched_socket_stays_open_and_receives_no_events(reactor, pairs):
    ours, theirs = pairs()
    heard = []
    watch(reactor, ours, epoll.IN, heard.append)
    reactor.unwatch(ours.fileno())
    reactor.unwatch(ours.fileno())
    theirs.send(b"hello")
    await turns(3)
    assert heard == []
    assert ours.recv(9) == b"hello"


async def test_a_socket_closed_by_another_handler_receives_no_event_of_its_batch(reactor, pairs):
    """A new socket that reuses the descriptor number doesn't receive the event either."""
    (first, theirs), (second, others) = pairs(), pairs()
    heard = []
    new = []

    def close_the_other(sock, other):
        def handler(_events):
            heard.append(sock)
            reactor.close_descriptor(reactor.calls.adopt(other))
            new.append(socket.socket(type=socket.SOCK_DGRAM))
            watch(reactor, new[0], epoll.ET, lambda _events: None)
            other_handler = Callback(lambda _events: heard.append("the other handler's"))
            reactor.handlers[new[0].fileno()] = other_handler

        return handler

    watch(reactor, first, epoll.IN | epoll.ET, close_the_other(first, second))
    watch(reactor, second, epoll.IN | epoll.ET, close_the_other(second, first))
    theirs.send(b"hello")
    others.send(b"hello")
    await until(lambda: heard)
    await turns(3)
    new[0].close()
    assert len(heard) == 1
    assert {first.fileno(), second.fileno()} & {-1}


async def test_a_socket_closed_between_events_is_closed_immediately(reactor, pairs):
    ours, theirs = pairs()
    watch(reactor, ours, epoll.IN, print)
    reactor.close_descriptor(reactor.calls.adopt(ours))
    assert ours.fileno() == -1
    assert theirs.recv(1) == b""


async def test_a_deferred_callback_runs_after_the_other_events(reactor, pairs):
    (first, theirs), (second, others) = pairs(), pairs()
    order = []

    def handler(_events):
        order.append("event")
        reactor.run_soon(lambda: order.append("go on"))

    watch(reactor, first, epoll.IN | epoll.ET, handler)
    watch(reactor, second, epoll.IN | epoll.ET, handler)
    theirs.send(b"hello")
    others.send(b"hello")
    await until(lambda: len(order) == 4)
    assert order == ["event", "event", "go on", "go on"]


async def test_a_callback_that_reschedules_itself_does_not_starve_the_loop(reactor, pairs):
    """Otherwise the embedder's own tasks would wait longer and longer."""
    ours, theirs = pairs()
    watch(reactor, ours, epoll.IN, lambda _events: None)
    theirs.send(b"never read, so the epoll is always readable")
    gone_on = []

    def go_on():
        gone_on.append(None)
        reactor.run_soon(go_on)

    reactor.run_soon(go_on)
    await turns(200)
    assert len(gone_on) <= 4 * 200


async def test_a_failing_handler_is_reported_and_other_handlers_continue(reactor, pairs):
    reported = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: reported.append(str(context["exception"]))
    )
    (first, theirs), (second, others) = pairs(), pairs()
    called = []

    def fail(events):
        called.append(events)
        reactor.run_soon(fail_again)
        raise ValueError("event")

    def fail_again():
        raise ValueError("turn")

    watch(reactor, first, epoll.IN | epoll.ET, fail)
    watch(reactor, second, epoll.IN | epoll.ET, fail)
    theirs.send(b"hello")
    others.send(b"hello")
    await until(lambda: len(reported) == 4)
    assert called == [epoll.IN, epoll.IN]
    assert sorted(reported) == ["event", "event", "turn", "turn"]


async def test_events_carry_the_time_of_their_dispatch(pairs):
    clock = Clock()
    reactor = Reactor(asyncio.get_running_loop(), clock=clock)
    ours, theirs = pairs()
    times = []
    watch(reactor, ours, epoll.IN | epoll.ET, lambda _events: times.append(reactor.now))
    clock.now += 5
    theirs.send(b"hello")
    await until(lambda: times == [1005])
    clock.now += 1
    assert reactor.now == 1005
    reactor.tick()
    assert reactor.now == 1006
    reactor.close()


async def test_dispatches_are_numbered_consecutively(reactor, pairs):
    ours, theirs = pairs()
    turns_seen = []
    watch(reactor, ours, epoll.IN, lambda _events: turns_seen.append(reactor.turn))
    theirs.send(b"never read")
    await until(lambda: len(turns_seen) >= 3)
    assert turns_seen == list(range(turns_seen[0], turns_seen[0] + len(turns_seen)))


async def test_a_loop_counts_as_behind_for_2_ms_after_a_dispatch_of_many_events(pairs):
    clock = Clock()
    reactor = Reactor(asyncio.get_running_loop(), clock=clock)
    heard = []
    theirs = []
    for _ in range(16):
        ours, other = pairs()
        theirs.append(other)
        watch(reactor, ours, epoll.IN | epoll.ET, heard.append)
    behind = []
    for count in (15, 16, 1):
        heard.clear()
        for other in theirs[:count]:
            other.send(b"x")
        await until(lambda: len(heard) == count)  # noqa: B023 - it is over in this turn
        behind.append(clock.now < reactor.behind_until)
    assert behind == [False, True, True]
    assert clock.now + 0.002 >= reactor.behind_until
    reactor.close()


async def test_a_closed_reactor_delivers_no_events_and_closes_its_descriptor(pairs):
    before = open_sockets()
    reactor = Reactor(asyncio.get_running_loop())
    ours, theirs = pairs()
    heard = []
    watch(reactor, ours, epoll.IN, heard.append)
    reactor.run_soon(lambda: heard.append("turn"))
    theirs.send(b"hello")
    reactor.close()
    reactor.close()
    await turns(3)
    assert heard == []
    assert open_sockets() == before + 2
    assert ours.recv(9) == b"hello"


async def test_a_handler_can_close_the_reactor(reactor, pairs):
    (first, theirs), (second, others) = pairs(), pairs()
    heard = []

    def close(_events):
        heard.append(None)
        reactor.close()

    watch(reactor, first, epoll.IN, close)
    watch(reactor, second, epoll.IN, close)
    theirs.send(b"hello")
    others.send(b"hello")
    await until(lambda: heard)
    await turns(3)
    assert len(heard) == 1


async def test_the_duration_of_a_dispatch_is_counted(pairs):
    clock = Clock()
    reactor = Reactor(asyncio.get_running_loop(), clock=clock)
    ours, theirs = pairs()
    before = reactor.iterations.count

    def be_slow(_events):
        ours.recv(9)
        clock.now += 0.03

    watch(reactor, ours, epoll.IN | epoll.ET, be_slow)
    theirs.send(b"hello")
    await until(lambda: reactor.iterations.count > before)
    reactor.close()
    assert reactor.iterations.seconds == pytest.approx(0.03)


ALICE, BOB, CAROL = "alice", "bob", "carol"


@pytest.fixture
def loop():
    return TimerLoop()


@pytest.fixture
def expired():
    return []


@pytest.fixture
def timeouts(loop, expired):
    return Timeouts(SimpleNamespace(loop=loop, clock=loop.clock), 1.0, expired.append)


def test_an_item_expires_after_its_timeout(timeouts, loop, expired):
    timeouts.start(ALICE, loop.now)
    loop.advance(0.9)
    assert expired == []
    loop.advance(0.2)
    assert expired == [ALICE]
    assert len(timeouts) == 0


def test_a_stopped_item_does_not_expire(timeouts, loop, expired):
    timeouts.start(ALICE, loop.now)
    timeouts.start(BOB, loop.now)
    timeouts.stop(ALICE)
    timeouts.stop(ALICE)
    assert list(timeouts.due) == [BOB]
    loop.advance(2)
    assert expired == [BOB]


def test_timers_are_long_enough_to_keep_uvloop_from_spinning(timeouts, loop, expired):
    timeouts.start(ALICE, loop.now)
    loop.advance(0.0004)
    timeouts.start(BOB, loop.now)
    loop.advance(1.0)
    assert expired == [ALICE]
    loop.advance(0.0006)
    assert expired == [ALICE, BOB]


def test_a_single_timer_serves_all_timeouts(timeouts, loop):
    for number in range(100):
        timeouts.start(number, loop.now)
        loop.advance(0.001)
    assert loop.waiting == 1


def test_a_failing_timeout_callback_does_not_delay_other_callbacks(loop):
    expired = []

    def fail_for_alice(item):
        if item == ALICE:
            raise ValueError(item)
        expired.append(item)

    timeouts = Timeouts(SimpleNamespace(loop=loop, clock=loop.clock), 1.0, fail_for_alice)
    timeouts.start(ALICE, loop.now)
    timeouts.start(BOB, loop.now)
    with pytest.raises(ValueError, match=ALICE):
        loop.advance(1)
    loop.advance(1)
    assert expired == [BOB]


def test_no_timeout_expires_and_no_timer_remains_after_the_close(timeouts, loop, expired):
    timeouts.start(ALICE, loop.now)
    timeouts.close()
    assert loop.waiting == 0
    loop.advance(2)
    assert expired == []


def test_an_expiring_item_can_stop_and_start_timeouts(loop):
    expired = []

    def expire(item):
        expired.append((item, loop.now))
        if item == ALICE:
            timeouts.stop(BOB)
            timeouts.stop(CAROL)
            timeouts.start(CAROL, loop.now)

    timeouts = Timeouts(SimpleNamespace(loop=loop, clock=loop.clock), 1.0, expire)
    began = loop.now
    for item in (ALICE, BOB, CAROL):
        timeouts.start(item, began)
    loop.advance(5)
    assert expired == [(ALICE, began + 1), (CAROL, began + 2)]
