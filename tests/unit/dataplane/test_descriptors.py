import logging
import resource
import socket
import subprocess
import sys

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.dataplane.descriptors import Descriptors
from userspace_proxy.linux import bounded

from .peers import Peer
from .timers import TimerLoop
from .waiters import HOLD, count_waiting
from .waiting import until


@pytest.fixture
def loop():
    return TimerLoop()


def wait(descriptors, loop, called, name="listener"):
    descriptors.wait(lambda: called.append(name), loop.now)


def test_has_room_is_true_up_to_the_descriptor_limit(loop):
    descriptors = Descriptors(loop, 10)
    descriptors.take(8)
    assert descriptors.has_room(2)
    assert not descriptors.has_room(3)


def test_flows_beyond_their_reserve_reduce_the_room_for_connections(loop):
    descriptors = Descriptors(loop, 100)
    for _ in range(20):
        descriptors.take_for_flow()
    assert descriptors.has_room(80)
    assert not descriptors.has_room(81)
    for _ in range(20):
        descriptors.give_for_flow()
    assert descriptors.has_room(94)
    assert not descriptors.has_room(95)


def test_a_waiting_callback_runs_as_soon_as_enough_descriptors_are_free(loop):
    descriptors, called = Descriptors(loop, 100), []
    descriptors.take(100)
    wait(descriptors, loop, called)
    assert not descriptors.is_accepting
    # Sixteen must be free, and six more are reserved for flows.
    descriptors.give(21)
    assert called == []
    descriptors.give(1)
    assert called == ["listener"]
    assert descriptors.is_accepting
    descriptors.give(10)
    assert called == ["listener"]


def test_a_single_timer_runs_all_waiting_callbacks(loop):
    descriptors, called = Descriptors(loop, 10), []
    wait(descriptors, loop, called, "web")
    wait(descriptors, loop, called, "cart")
    assert loop.waiting == 1
    loop.advance(1)
    assert called == ["web", "cart"]


def test_a_callback_that_waits_again_runs_again(loop):
    descriptors = Descriptors(loop, 10)
    called = []

    def again():
        called.append(loop.now)
        if len(called) < 3:
            descriptors.wait(again, loop.now)

    descriptors.wait(again, loop.now)
    loop.advance(5)
    assert len(called) == 3


def test_no_callback_runs_and_no_timer_remains_after_close(loop):
    descriptors, called = Descriptors(loop, 10), []
    wait(descriptors, loop, called)
    descriptors.close()
    loop.advance(1)
    descriptors.give(10)
    assert called == []
    assert loop.waiting == 0


def test_the_descriptor_limit_is_logged_once_a_minute(loop, caplog):
    caplog.set_level(logging.WARNING)
    descriptors = Descriptors(loop, 10)
    descriptors.take(10)
    for now in (0, 59, 60, 61, 119, 120):
        descriptors.wait(lambda: None, now)
    assert [record.getMessage() for record in caplog.records] == [
        "descriptor limit reached, pausing accepts"
    ] * 3
    assert (caplog.records[0].limit, caplog.records[0].in_use) == (10, 10)


def test_a_shortage_below_the_descriptor_limit_is_logged_without_naming_the_limit(loop, caplog):
    Descriptors(loop, 10).wait(lambda: None, 0)
    assert caplog.messages == ["out of descriptors or memory, delaying accepts or dials"]


def test_the_descriptor_limit_is_the_process_limit_minus_a_reserve(loop):
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert soft - 600 < Descriptors(loop).limit < soft - 64


def test_the_soft_limit_is_raised_to_the_hard_limit():
    code = (
        "import resource as r; from userspace_proxy.linux import raise_descriptor_limit as up;"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 150)); up(); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["150", "150"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(20_000, 20_000, id="as-set"),
        pytest.param(2**30, 262_144, id="a-billion"),
        pytest.param(resource.RLIM_INFINITY, 262_144, id="infinity"),
    ],
)
def test_a_descriptor_limit_above_the_maximum_is_reduced(limit, expected):
    assert bounded(limit) == expected


def test_a_descriptor_limit_set_by_hold_applies_until_hold_lifts_it(loop, caplog):
    descriptors, called = Descriptors(loop, 100), []
    descriptors.take(40)
    descriptors.hold(4)
    assert descriptors.has_room(4)
    assert not descriptors.has_room(5)
    wait(descriptors, loop, called)
    loop.advance(1)
    assert not caplog.records
    wait(descriptors, loop, called := [])
    assert descriptors.is_stalled(loop.now)
    descriptors.hold(None)
    assert called == ["listener"]
    assert not descriptors.is_stalled(loop.now)
    assert descriptors.has_room(54)


def test_a_lasting_pause_counts_as_a_stall(loop):
    descriptors = Descriptors(loop, 10)
    descriptors.take(10)
    for _ in range(2):
        assert not descriptors.is_stalled(loop.now)
        wait(descriptors, loop, [])
        loop.advance(0.25)
    assert descriptors.is_stalled(loop.now)


def test_a_pause_followed_by_room_does_not_count_towards_a_later_stall(loop):
    descriptors = Descriptors(loop, 10)
    descriptors.take(10)
    wait(descriptors, loop, called := [])
    descriptors.give(1)
    loop.advance(0.25)
    assert called == ["listener"]
    descriptors.give(3)
    loop.advance(0.5)
    descriptors.take(4)
    assert not descriptors.is_stalled(loop.now)


def test_a_pause_an_hour_ago_does_not_make_a_new_pause_count_as_a_stall(loop):
    """Otherwise, an hour later, the first client over the limit would cause a reset at once."""
    descriptors = Descriptors(loop, 10)
    descriptors.take(10)
    # A failed dial, or a listener that has since been closed, caused this pause.
    wait(descriptors, loop, called := [])
    loop.advance(3600)
    assert called == ["listener"]
    assert not descriptors.is_stalled(loop.now)
    wait(descriptors, loop, called)
    assert not descriptors.is_stalled(loop.now)


def test_the_descriptor_limit_holds_despite_ample_memory(loop):
    descriptors = Descriptors(loop, 100)
    descriptors.hold(1000)
    assert not descriptors.has_room(95)


async def test_a_client_waits_for_a_free_descriptor(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address, **HOLD)
    client = rig.keep(Peer(socket.socket()))
    client.sock.setblocking(False)
    client.sock.connect_ex(web.address)
    # One descriptor is left for the accepted client.
    spare = socket.socket()
    with descriptors_left(0):
        spare.close()
        await until(lambda: count_waiting(web) == 1)
    await client.send(b"early")
    assert await (await pod.accept()).read() == b"early"
    assert (count_waiting(web), web.group.counters.refused) == (0, 0)
