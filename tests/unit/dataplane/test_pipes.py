"""Pipes are few, kept, and never handed on with bytes in them."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from userspace_proxy.dataplane import Tuning, relay
from userspace_proxy.dataplane.calls import SystemCalls
from userspace_proxy.dataplane.descriptors import Descriptors
from userspace_proxy.dataplane.pipes import PIPE_BYTES, RETRY_S, PipePool
from userspace_proxy.dataplane.tuning import BUFFER_BYTES, BULK_BYTES, SPLICE_ROUNDS

from .peers import MIB, drink, pour
from .rig import SIDES
from .waiting import until

NOW = 1000.0


@pytest.fixture
async def descriptors():
    descriptors = Descriptors(asyncio.get_running_loop(), limit=100)
    yield descriptors
    assert descriptors.in_use == 0
    descriptors.close()


@pytest.fixture
def make(descriptors):
    pools = []
    calls = SystemCalls(BUFFER_BYTES)

    def make(max_pipes):
        pools.append(PipePool(calls, descriptors, max_pipes))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    calls.close_epoll()


async def test_a_pipe_holds_a_mebibyte(make):
    pool = make(1)
    pipe = pool.take(NOW)
    assert fcntl.fcntl(pipe.read_end, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
    pool.give(pipe, 0)


async def test_a_pipe_returned_empty_is_reused(make):
    pool = make(2)
    pipe = pool.take(NOW)
    pool.give(pipe, 0)
    assert pool.take(NOW) is pipe
    assert pool.open_pipes == 1
    pool.give(pipe, 0)


async def test_a_pipe_with_bytes_in_it_is_closed(make, descriptors):
    pool = make(2)
    pipe = pool.take(NOW)
    os.write(pipe.write_end, b"somebody's")
    pool.give(pipe, 10)
    assert (pool.open_pipes, descriptors.in_use) == (0, 0)
    assert not Path(f"/proc/self/fd/{pipe.read_end}").exists()


async def test_a_pool_creates_no_more_pipes_than_its_bound(make):
    pool = make(2)
    pipes = [pool.take(NOW), pool.take(NOW)]
    assert pool.take(NOW) is None
    for pipe in pipes:
        pool.give(pipe, 0)


async def test_none_is_opened_without_descriptors_to_spare(make, descriptors):
    pool = make(2)
    descriptors.take(99)
    assert pool.take(NOW) is None
    descriptors.give(99)


async def test_a_closed_pool_has_none(make, descriptors):
    pool = make(2)
    used, free = pool.take(NOW), pool.take(NOW)
    pool.give(free, 0)
    pool.close()
    assert pool.open_pipes == 1
    pool.give(used, 0)
    pool.close()
    assert pool.take(NOW) is None
    assert descriptors.in_use == 0


async def test_a_large_pipe_that_the_kernel_denies_is_requested_again_later(
    make, descriptors, monkeypatch
):
    asked = []

    def refuse(*args):
        asked.append(args)
        raise PermissionError(1, "Operation not permitted")

    pool = make(3)
    kept = pool.take(NOW)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", refuse)
        assert pool.take(NOW) is None
        assert pool.take(NOW + RETRY_S - 0.1) is None
        assert len(asked) == 1
        assert (pool.open_pipes, descriptors.in_use) == (1, 2)
        assert pool.take(NOW + RETRY_S) is None
        assert len(asked) == 2
    pool.give(kept, 0)
    assert pool.take(NOW + RETRY_S) is kept
    another = pool.take(NOW + 2 * RETRY_S)
    assert another is not None
    pool.give(kept, 0)
    pool.give(another, 0)


@pytest.fixture(params=[32, 0], ids=["spliced", "copied"])
async def bulk_rig(build, request):
    """A data plane with pipes, and one without."""
    return build(Tuning(max_pipes=request.param))


@SIDES
async def test_bulk_arrives_unchanged_and_the_pipes_are_returned(bulk_rig, first):
    sends, hears = await bulk_rig.both_ends(first)
    sent, heard = await asyncio.gather(pour(sends, 60 * MIB, 1), drink(hears))
    assert sent == heard
    pipes = bulk_rig.engine.pipes
    assert len(pipes._free) == pipes.open_pipes
    assert bool(pipes.open_pipes) == bool(pipes._max_pipes)


async def test_small_messages_take_no_pipe(rig):
    client, server = await rig.both_ends()
    for _ in range(50):
        await client.send(b"question")
        assert await server.read() == b"question"
    assert rig.engine.pipes.open_pipes == 0


@SIDES
async def test_short_messages_after_bulk_are_copied_again(rig, first):
    sends, hears = await rig.both_ends(first)
    await asyncio.gather(sends.send(bytes(8 * MIB)), hears.read_exactly(8 * MIB))
    await sends.send(b"a word")
    assert await hears.read_exactly(6) == b"a word"
    (connection,) = rig.connections.open
    direction = connection.up if first == "client" else connection.down
    assert direction._is_bulk is False
    assert len(rig.engine.pipes._free) == rig.engine.pipes.open_pipes


@SIDES
async def test_bulk_of_which_each_turn_finds_a_part_is_copied_once(rig, first):
    sends, hears = await rig.both_ends(first)
    # Opens the windows; the word has the next bytes copied.
    await asyncio.gather(sends.send(bytes(8 * MIB)), hears.read_exactly(8 * MIB))
    await sends.send(b"a word")
    assert await hears.read_exactly(6) == b"a word"
    (connection,) = rig.connections.open
    direction = connection.up if first == "client" else connection.down
    part = 3 * BULK_BYTES
    assert sends.sock.send(bytes(part)) == part
    rig.engine.reactor._dispatch()
    assert direction._is_bulk is True
    assert len(await hears.read_exactly(part)) == part


@SIDES
async def test_a_reset_in_the_midst_of_bulk_leaves_no_pipe_behind(rig, first):
    sends, hears = await rig.both_ends(first)
    await until(lambda: not sends.fill() and any(rig.pending()), "the sender is stopped")
    hears.reset()
    await until(lambda: not rig.connections.open, "the end of the connection")
    assert len(rig.engine.pipes._free) == rig.engine.pipes.open_pipes


@SIDES
async def test_a_reset_that_a_read_of_bulk_meets_leaves_no_pipe_behind(rig, first):
    """The last words are read once more, and took a second pipe while the first was forgotten."""
    sends, hears = await rig.both_ends(first)
    await asyncio.gather(sends.send(bytes(MIB)), hears.read_exactly(MIB))
    (connection,) = rig.connections.open
    (connection.up if first == "client" else connection.down)._is_bulk = True
    sends.reset()
    assert await hears.was_reset()
    assert len(rig.engine.pipes._free) == rig.engine.pipes.open_pipes


@SIDES
async def test_a_reset_that_a_write_of_bulk_meets_leaves_no_pipe_behind(rig, first):
    sends, hears = await rig.both_ends(first)
    (connection,) = rig.connections.open
    (connection.up if first == "client" else connection.down)._is_bulk = True
    sends.fill()
    hears.reset()
    await until(lambda: not rig.connections.open, "the end of the connection")
    assert len(rig.engine.pipes._free) == rig.engine.pipes.open_pipes


@SIDES
async def test_spliced_bulk_leaves_the_others_their_turn(rig, first, monkeypatch):
    monkeypatch.setattr(relay, "PIPE_BYTES", 65536)
    sends, hears = await rig.both_ends(first)
    client, server = await rig.both_ends(first)
    bulk = sends.fill()
    await client.send(b"question")
    rig.engine.reactor._dispatch()
    assert server.sock.recv(9) == b"question"
    turn = BUFFER_BYTES + SPLICE_ROUNDS * 65536
    assert max(rig.bytes_moved()) <= 2 * turn < bulk
    sends.finish()
    assert len(await hears.read_all()) == bulk
