"""What one side sent before its reset arrives at the other side, however slow that reads."""

from __future__ import annotations

import asyncio
import fcntl
import random
import termios

import pytest

from userspace_proxy.dataplane import Tuning

from .timers import TimerLoop
from .waiting import until

SIDES = pytest.mark.parametrize("first", ["client", "endpoint"])
PIPES = pytest.mark.parametrize("pipes", [32, 0], ids=["spliced", "copied"])


async def both_ends(house, first):
    """Return the two ends of a connection, the one that acts first before the other."""
    pod = house.endpoint()
    client, server = await house.pair(house.service(pod.address), pod)
    await until(lambda: all(c.up for c in house.plane.connections), "the dial is answered")
    return (client, server) if first == "client" else (server, client)


@SIDES
@PIPES
@pytest.mark.parametrize("size", [300_000, 2_000_000])
async def test_what_was_sent_before_a_reset_arrives_at_a_reader_that_was_stalled(
    build, first, pipes, size
):
    house = build(Tuning(max_pipes=pipes))
    resets, stalls = await both_ends(house, first)
    data = random.Random(size).randbytes(size)
    await reset_behind(house, resets, data)
    assert house.plane.descriptors.in_use >= 3
    assert await stalls.read_exactly(size) == data
    assert await stalls.was_reset()
    await until(lambda: not house.plane.connections)
    assert len(house.plane.late_resets) == 0


@SIDES
async def test_a_reader_that_stays_stalled_is_reset_after_its_time(build, first):
    timers = TimerLoop(asyncio.get_running_loop())
    house = build(None, timers.clock, timers)
    resets, stalls = await both_ends(house, first)
    await reset_behind(house, resets, bytes(2_000_000))
    timers.advance(4.9)
    assert house.plane.connections
    timers.advance(0.3)
    assert house.plane.connections == set()
    assert await stalls.was_reset()


@SIDES
async def test_a_reader_that_leaves_meanwhile_ends_the_wait(house, first):
    resets, stalls = await both_ends(house, first)
    await reset_behind(house, resets, bytes(2_000_000))
    stalls.reset()
    await until(lambda: not house.plane.connections, "the end of the connection")
    assert len(house.plane.late_resets) == 0
    assert len(house.plane.pipes._free) == house.plane.pipes.open_pipes


@SIDES
async def test_a_reset_without_undelivered_bytes_does_not_wait(house, first):
    resets, hears = await both_ends(house, first)
    await resets.send(b"word")
    assert await hears.read() == b"word"
    resets.reset()
    assert await hears.was_reset()
    assert house.plane.late_resets._timer is None


async def reset_behind(house, peer, data):
    """Send data that nobody reads yet, and reset when the proxy's kernel has acknowledged it."""
    await peer.send(data)
    await until(lambda: unacknowledged(peer) == 0, "the proxy's kernel has everything")
    peer.reset()
    await until(lambda: len(house.plane.late_resets), "the reset waits")


def unacknowledged(peer):
    """Return how many bytes the other side's kernel hasn't acknowledged: SIOCOUTQ."""
    queued = bytearray(4)
    fcntl.ioctl(peer.sock, termios.TIOCOUTQ, queued)
    return int.from_bytes(queued, "little")
