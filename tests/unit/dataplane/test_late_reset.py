"""What one side sent before its reset arrives at the other side, however slow that reads."""

from __future__ import annotations

import contextlib
import fcntl
import random
import termios

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.late_reset import LIMIT_S, _undelivered

from .rig import SIDES
from .waiting import turns, until

PIPES = pytest.mark.parametrize("pipes", [32, 0], ids=["spliced", "copied"])

# More than the proxy passes on to a reader that never reads, and more than all kernels take.
STALLING_BYTES = 4_000_000
MORE_THAN_IS_TAKEN = 20_000_000

# More than the reader's window and a pipe contain: the rest waits in the proxy's kernel. How
# much that takes depends on how soon its receive buffer grows, 2 to 5 MB.
TAKEN_AT_LEAST = 1_000_000


@SIDES
@PIPES
@pytest.mark.parametrize("size", [300_000, 2_000_000, STALLING_BYTES])
async def test_bytes_sent_before_a_reset_reach_a_reader_that_had_stalled(build, first, pipes, size):
    rig = build(Tuning(max_pipes=pipes))
    resets, stalls = await rig.both_ends(first)
    data = random.Random(size).randbytes(size)
    acknowledged = await reset_behind(rig, resets, data)
    assert acknowledged >= min(size, TAKEN_AT_LEAST)
    assert await stalls.read_exactly(acknowledged) == data[:acknowledged]
    assert await stalls.was_reset()
    await until(lambda: not rig.connections.open)


@SIDES
@PIPES
@pytest.mark.parametrize("size", [2_000_000, STALLING_BYTES, MORE_THAN_IS_TAKEN])
async def test_a_reader_that_stays_stalled_is_reset_after_its_time(
    build, timers, first, pipes, size
):
    rig = build(Tuning(max_pipes=pipes), timers.clock, timers)
    resets, stalls = await rig.both_ends(first)
    await reset_behind(rig, resets, bytes(size))
    timers.advance(4.9)
    assert rig.connections.open
    began = timers.now
    while rig.connections.open:
        timers.advance(0.3)
    # On a busy machine the reader's kernel may have acknowledged the last of it late.
    assert timers.now - began < 5.5
    assert await stalls.was_reset()


@SIDES
@PIPES
async def test_a_slow_reader_gets_all_that_the_proxys_kernel_had_acknowledged(
    build, timers, first, pipes
):
    rig = build(Tuning(max_pipes=pipes), timers.clock, timers)
    resets, slow = await rig.both_ends(first)
    data = random.Random(first).randbytes(MORE_THAN_IS_TAKEN)
    acknowledged = await reset_behind(rig, resets, data)
    assert acknowledged > TAKEN_AT_LEAST
    got = await read_slowly(slow, timers)
    assert len(got) >= acknowledged
    assert got == data[: len(got)]


def has_progress(rig):
    """Return whether the next look will find that bytes have moved."""
    waiting = rig.connections.late_resets._waiting.values()
    return any(_undelivered(each.direction) != each.progress[1] for each in waiting)


@SIDES
async def test_a_reader_that_is_too_slow_is_reset_after_a_minute(timed, timers, first):
    resets, slow = await timed.both_ends(first)
    await reset_behind(timed, resets, bytes(MORE_THAN_IS_TAKEN))
    began = timers.now
    while timed.connections.open:
        # Two segments of loopback: fewer may not open the window, and are no progress then.
        await slow.read_exactly(140_000)
        await until(lambda: has_progress(timed), "the kernel has sent more")
        timers.advance(4.0)
    assert LIMIT_S <= timers.now - began < LIMIT_S + 5


async def test_bytes_that_move_are_progress_also_if_as_many_are_left_as_before(timed, timers):
    resets, _ = await timed.both_ends("client")
    await reset_behind(timed, resets, bytes(MORE_THAN_IS_TAKEN))
    (waiting,) = timed.connections.late_resets._waiting.values()
    timers.advance(4.9)
    # What a reader does that takes exactly what is read meanwhile; a kernel repeats no such size.
    waiting.direction.bytes_moved += 64
    timers.advance(4.9)
    assert timed.connections.open
    # The kernel may have moved some more itself meanwhile.
    timers.advance(5)
    assert not timed.connections.open


@SIDES
async def test_a_reader_that_leaves_meanwhile_ends_the_wait_and_its_pipe_is_not_used_again(
    rig, first
):
    resets, stalls = await rig.both_ends(first)
    await reset_behind(rig, resets, bytes(STALLING_BYTES))
    assert rig.engine.pipes.open_pipes == 1
    stalls.reset()
    await until(lambda: not rig.connections.open, "the end of the connection")
    assert rig.engine.pipes.open_pipes == 0


@SIDES
async def test_a_reset_without_undelivered_bytes_does_not_wait(rig, first):
    resets, hears = await rig.both_ends(first)
    await resets.send(b"word")
    assert await hears.read() == b"word"
    resets.reset()
    assert await hears.was_reset()
    assert rig.connections.late_resets._timer is None


async def read_slowly(peer, timers):
    """Return what a reader of 250 kB a second gets before its reset."""
    got = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while some := await peer.read(250_000):
            got += some
            timers.advance(1.0)
            await turns(3)
    return got


async def reset_behind(rig, peer, data):
    """Send data to a reader that doesn't read, and reset; return how much was acknowledged.

    The reset is sent once the proxy's kernel has acknowledged everything, or accepts no more.
    """
    rest, left = memoryview(data), -1

    def is_sent():
        nonlocal rest, left
        while rest and (sent := peer.send_some(rest[:65536])):
            rest = rest[sent:]
        before, left = left, unacknowledged(peer)
        return not left or (left == before and is_stuck(rig))

    await until(is_sent, "the proxy's kernel has everything, or is full")
    acknowledged = len(data) - len(rest) - unacknowledged(peer)
    peer.reset()
    await until(lambda: rig.connections.late_resets._timer, "the reset waits")
    return acknowledged


def is_stuck(rig):
    """Return whether the proxy waits for room towards the reader."""
    return any(c.up.is_stuck or c.down.is_stuck for c in rig.connections.open)


def unacknowledged(peer):
    """Return how many bytes the other side's kernel hasn't acknowledged: SIOCOUTQ."""
    queued = bytearray(4)
    fcntl.ioctl(peer.sock, termios.TIOCOUTQ, queued)
    return int.from_bytes(queued, "little")
