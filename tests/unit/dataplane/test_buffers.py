import asyncio
import fcntl
import struct

import pytest

from userspace_proxy.dataplane import Tuning

from .waiting import until

MIB = 1 << 20
STALLED = 6
# A look a millisecond: packets on loopback take some microseconds.
QUIET_LOOKS = 10
# linux/sockios.h: what is queued and was never sent.
SIOCOUTQNSD = 0x894B
# 2 MiB, and a pipe's filling that begins below that bound and ends above it.
MOST_BYTES = 3 * MIB


def unsent_bytes(direction):
    """Return what waits in the kernel for a reader that has no room."""
    answer = fcntl.ioctl(direction.sink.fileno(), SIOCOUTQNSD, bytes(4))
    return struct.unpack("i", answer)[0]


async def run_and_stall(rig, web, pod, first):
    """Move some bulk, then stop to read; returns the direction when nothing moves any more."""
    before = set(rig.connections.open)
    ends = await rig.pair(web, pod)
    sends, hears = ends if first == "client" else ends[::-1]
    await asyncio.gather(sends.send(bytes(32 * MIB)), hears.read_exactly(32 * MIB))
    (connection,) = rig.connections.open - before
    direction = connection.up if first == "client" else connection.down
    quiet = 0

    def is_stalled():
        nonlocal quiet
        quiet = quiet + 1 if not sends.fill() and direction.waiting_bytes else 0
        return quiet == QUIET_LOOKS

    await until(is_stalled, "the sender is stopped")
    return direction


@pytest.mark.long
@pytest.mark.parametrize("max_pipes", [32, 0], ids=["spliced", "copied"])
@pytest.mark.parametrize("first", ["client", "endpoint"])
async def test_a_stalled_reader_holds_bounded_memory_while_others_run(build, first, max_pipes):
    rig = build(Tuning(max_pipes=max_pipes))
    pod = rig.endpoint()
    web = rig.service(pod.address)
    stalled = [await run_and_stall(rig, web, pod, first) for _ in range(STALLED)]
    client, server = await rig.pair(web, pod)
    block = bytes(MIB)
    _, heard = await asyncio.gather(client.send(block * 64), server.read_exactly(64 * MIB))
    assert len(heard) == 64 * MIB
    assert max(map(unsent_bytes, stalled)) <= MOST_BYTES


async def test_short_messages_cost_no_system_call_for_buffers(rig, monkeypatch):
    bounded = []
    monkeypatch.setattr(
        "userspace_proxy.dataplane.relay.bound_buffers", lambda *ends: bounded.append(ends)
    )
    pod = rig.endpoint()
    client, server = await rig.pair(rig.service(pod.address), pod)
    for _ in range(20):
        await client.send(b"question")
        assert await server.read() == b"question"
    assert bounded == []


async def test_a_direction_is_bounded_once(rig, monkeypatch):
    bounded = []
    monkeypatch.setattr(
        "userspace_proxy.dataplane.relay.bound_buffers", lambda *ends: bounded.append(ends)
    )
    pod = rig.endpoint()
    client, server = await rig.pair(rig.service(pod.address), pod)
    for _ in range(3):
        await asyncio.gather(client.send(bytes(8 * MIB)), server.read_exactly(8 * MIB))
        await client.send(b"a word")
        assert await server.read_exactly(6) == b"a word"
    assert len(bounded) == 1
