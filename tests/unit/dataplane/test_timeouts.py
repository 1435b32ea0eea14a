import pytest

from userspace_proxy.dataplane.timeouts import Timeouts

from .timers import TimerLoop

ALICE, BOB, CAROL = "alice", "bob", "carol"


@pytest.fixture
def loop():
    return TimerLoop()


@pytest.fixture
def expired():
    return []


@pytest.fixture
def timeouts(loop, expired):
    return Timeouts(loop, loop.clock, 1.0, expired.append)


def test_an_item_expires_after_its_time_and_not_before(timeouts, loop, expired):
    timeouts.start(ALICE, loop.now)
    loop.advance(0.9)
    assert expired == []
    loop.advance(0.2)
    assert expired == [ALICE]
    assert len(timeouts) == 0


def test_an_item_that_was_stopped_does_not_expire(timeouts, loop, expired):
    timeouts.start(ALICE, loop.now)
    timeouts.start(BOB, loop.now)
    timeouts.stop(ALICE)
    timeouts.stop(ALICE)
    assert (ALICE in timeouts, BOB in timeouts) == (False, True)
    loop.advance(2)
    assert expired == [BOB]


def test_no_timer_is_so_short_that_uvloop_runs_without_a_pause(timeouts, loop, expired):
    timeouts.start(ALICE, loop.now)
    loop.advance(0.0004)
    timeouts.start(BOB, loop.now)
    loop.advance(1.0)
    assert expired == [ALICE]
    loop.advance(0.0006)
    assert expired == [ALICE, BOB]


def test_one_timer_serves_all_timeouts(timeouts, loop):
    for number in range(100):
        timeouts.start(number, loop.now)
        loop.advance(0.001)
    assert loop.waiting == 1


def test_a_callback_that_fails_does_not_keep_the_others_waiting(loop):
    expired = []

    def fail_for_alice(item):
        if item == ALICE:
            raise ValueError(item)
        expired.append(item)

    timeouts = Timeouts(loop, loop.clock, 1.0, fail_for_alice)
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


def test_an_expiring_item_may_end_and_start_deadlines_that_are_due(loop):
    expired = []

    def expire(item):
        expired.append((item, loop.now))
        if item == ALICE:
            timeouts.stop(BOB)
            timeouts.stop(CAROL)
            timeouts.start(CAROL, loop.now)

    timeouts = Timeouts(loop, loop.clock, 1.0, expire)
    began = loop.now
    for item in (ALICE, BOB, CAROL):
        timeouts.start(item, began)
    loop.advance(5)
    assert expired == [(ALICE, began + 1), (CAROL, began + 2)]
