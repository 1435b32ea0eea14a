from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.port_keys import port_key
from userspace_proxy.dataplane import EndpointGroup, Tuning, relay
from userspace_proxy.dataplane import reactor as epoll
from userspace_proxy.dataplane.calls import SystemCalls
from userspace_proxy.dataplane.descriptors import Descriptors
from userspace_proxy.dataplane.relay import PIPE_BYTES, RETRY_S, PipePool
from userspace_proxy.dataplane.tuning import BUFFER_BYTES, BULK_BYTES, ROUNDS, SPLICE_ROUNDS
from userspace_proxy.model.serving import Serving

from .actors import ACTIONS, ONE_SIDE, OTHER_SIDE, Actor, assert_equal_or_told, end_all
from .peers import MIB, pour, read_digest
from .rig import SIDES, Rig
from .waiting import until


def error_of(peer):
    """Return the number of a socket's pending error; 0 if there is none."""
    return peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@SIDES
async def test_a_fin_closes_one_direction_and_later_data_still_arrives(rig, first):
    asks, answers = await rig.both_ends(first)
    await asks.send(b"question")
    asks.finish()
    assert await answers.read_all() == b"question"
    for part in (b"an", b"swer"):
        await answers.send(part)
        assert await asks.read() == part
    answers.finish()
    assert await asks.read() == b""
    await until(lambda: not rig.connections.open)


@SIDES
async def test_a_reset_arrives_after_the_bytes_sent_before(rig, first):
    resets, hears = await rig.both_ends(first)
    await resets.send(bytes(100_000))
    await until(lambda: sum(c.up.bytes_moved + c.down.bytes_moved for c in rig.connections.open))
    resets.reset()
    assert len(await hears.read_exactly(100_000)) == 100_000
    assert await hears.was_reset()
    assert rig.connections.open == {}


@SIDES
async def test_a_reset_sent_right_after_data_arrives_after_the_data(rig, first):
    resets, hears = await rig.both_ends(first)
    assert resets.send_some(b"last words") == 10
    resets.reset()
    assert await hears.read_exactly(10) == b"last words"
    assert await hears.was_reset()


@SIDES
@pytest.mark.parametrize("words", [b"", b"last words"], ids=["empty", "with-data"])
async def test_a_reset_after_a_fin_is_forwarded_as_a_reset(rig, first, words):
    resets, hears = await rig.both_ends(first)
    resets.send_some(words)
    resets.finish()
    assert await hears.read_all() == words
    resets.reset()
    await until(lambda: error_of(hears), "the other side sees the error without sending")
    assert rig.connections.open == {}


@SIDES
async def test_an_rdhup_event_after_a_reset_does_not_count_as_a_fin(rig, first):
    await rig.both_ends(first)
    (connection,) = rig.connections.open
    direction = connection.up if first == "client" else connection.down
    # The other direction has read the reset during the same event.
    direction.pump_last()
    direction.on(direction.source_fd, epoll.IN | epoll.RDHUP)
    assert not direction.has_fin


@SIDES
async def test_a_fin_followed_by_a_reset_is_forwarded_as_a_reset(rig, first):
    resets, hears = await rig.both_ends(first)
    resets.finish()
    resets.reset()
    await until(lambda: error_of(hears), "the other side sees the error without sending")
    assert rig.connections.open == {}


@SIDES
async def test_a_reset_resets_both_directions(rig, first):
    resets, hears = await rig.both_ends(first)
    await until(lambda: not resets.fill() and not hears.fill(), "both directions are full")
    resets.reset()
    assert await hears.was_reset()
    assert rig.connections.open == {}


@SIDES
async def test_an_early_response_before_a_reset_reaches_a_side_still_sending(rig, first):
    """An example is a server that answers 413 and closes without reading the upload."""
    uploads, refuses = await rig.both_ends(first)
    await until(lambda: not uploads.fill(), "the upload is stuck")
    await refuses.send(b"413 too large")
    refuses.close()
    assert await uploads.read_exactly(13) == b"413 too large"
    assert await uploads.was_reset()


@SIDES
@pytest.mark.parametrize("size", [1, 65536, BUFFER_BYTES, 2 * BUFFER_BYTES, 3 * BUFFER_BYTES + 1])
async def test_a_fin_sent_with_data_is_not_lost(rig, first, size):
    sends, hears = await rig.both_ends(first)
    data = random.Random(size).randbytes(size)
    sent = sends.send_some(data)
    sends.finish()
    assert await hears.read_all() == data[:sent]


@SIDES
async def test_a_fin_after_more_bytes_than_a_turn_moves_is_not_lost(rig, first):
    sends, hears = await rig.both_ends(first)
    for sock in (sends.sock, hears.sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * MIB)
    sent = sends.fill()
    sends.finish()
    assert len(await hears.read_all()) == sent


def packets_received(peer):
    """Return how many packets arrived (tcpi_segs_in)."""
    info = peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[140:144], "little")


@SIDES
async def test_a_fin_received_with_data_is_sent_with_the_data(rig, first):
    sends, hears = await rig.both_ends(first)
    await sends.send(b"first")
    assert await hears.read() == b"first"
    before = packets_received(hears)
    sends.send_some(b"last words")
    sends.finish()
    assert await hears.read_all() == b"last words"
    assert packets_received(hears) == before + 1


@SIDES
async def test_urgent_data_between_data_and_fin_is_forwarded(rig, first):
    sends, hears = await rig.both_ends(first)
    sends.send_some(b"abc")
    sends.sock.send(b"!", socket.MSG_OOB)
    sends.send_some(b"d" * 3000)
    sends.finish()
    assert await hears.read_all() == b"abc!" + b"d" * 3000


@SIDES
async def test_old_urgent_data_does_not_hide_data_before_the_fin(rig, first):
    sends, hears = await rig.both_ends(first)
    sends.sock.send(b"!", socket.MSG_OOB)
    assert await hears.read() == b"!"
    sends.send_some(b"abc")
    sends.sock.send(b"!", socket.MSG_OOB)
    sends.send_some(b"def")
    sends.finish()
    assert await hears.read_all() == b"abc!def"


@SIDES
async def test_closing_both_sides_one_after_the_other_sends_no_reset(rig, first):
    ends, answers = await rig.both_ends(first)
    ends.finish()
    assert await answers.read() == b""
    answers.send_some(bytes(100_000))
    answers.finish()
    assert len(await ends.read_all()) == 100_000
    await until(lambda: not rig.connections.open)
    assert not error_of(ends)
    assert not error_of(answers)


def test_data_planes_in_two_threads_do_not_mix_their_bytes():
    """An embedder may have several loops; reading releases the GIL to another thread."""

    async def carry(seed):
        rig = Rig()
        client, server = await rig.both_ends()
        digests = await asyncio.gather(pour(client, 30 * MIB, seed), read_digest(server))
        rig.close()
        return digests

    with ThreadPoolExecutor(2) as threads:
        for sent, heard in threads.map(asyncio.run, [carry(1), carry(2)]):
            assert sent == heard


@SIDES
async def test_a_stalled_reader_bounds_queued_bytes_and_stops_the_sender(rig, first):
    sends, _stalls = await rig.both_ends(first)
    await until(lambda: not sends.fill() and any(rig.pending()), "the sender is stopped")
    assert max(rig.pending()) <= PIPE_BYTES
    client, server = await rig.both_ends()
    await client.send(b"the others go on")
    assert await server.read() == b"the others go on"


TURN_BYTES = ROUNDS * 4096


@pytest.fixture
async def small_turns(build, monkeypatch):
    """A rig whose turns are so short that a socket's contents need many of them."""
    monkeypatch.setattr(epoll, "BUFFER_BYTES", TURN_BYTES // ROUNDS)
    return build()


@SIDES
async def test_a_bulk_transfer_does_not_starve_other_connections(small_turns, first):
    rig = small_turns
    sends, hears = await rig.both_ends(first)
    client, server = await rig.both_ends(first)
    bulk = sends.fill()
    assert client.send_some(b"question") == 8
    rig.engine.reactor._dispatch()
    assert server.sock.recv(9) == b"question"
    # One turn was for the event, the other for the continuation of the transfer.
    assert sorted(rig.bytes_moved()) == [0, 0, 8, 2 * TURN_BYTES]
    sends.finish()
    assert len(await hears.read_all()) == bulk


@SIDES
async def test_a_direction_waiting_for_its_turn_ignores_events(small_turns, first):
    sends, _ = await small_turns.both_ends(first)
    sends.fill()
    (connection,) = small_turns.connections.open
    direction = connection.up if first == "client" else connection.down
    for _ in range(3):
        direction.pump()
    assert direction.bytes_moved == TURN_BYTES


@SIDES
async def test_more_data_than_a_turn_moves_arrives_before_a_reset(small_turns, first):
    """The rest is read when a send reports the error, because no later turn reads it."""
    resets, hears = await small_turns.both_ends(first)
    words = bytes(TURN_BYTES * 3 // 2)
    await until(
        lambda: not hears.fill() and any(small_turns.pending()), "the other direction is stuck"
    )
    assert resets.send_some(words) == len(words)
    resets.close()
    assert await hears.read_exactly(len(words)) == words
    assert await hears.was_reset()


async def test_urgent_data_before_a_reset_keeps_its_position(rig):
    pod = rig.endpoint()
    connection, client = await rig.begun(
        EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    )
    await client.send(b"hello")
    connection.begin()
    server = pod.accept_now()
    server.sock.send(b"!", socket.MSG_OOB)
    server.send_some(b"bye")
    server.reset()
    # The event was reported before the reset, so sending "hello" reports the error first.
    connection._on_dialling(epoll.OUT)
    assert await client.read_exactly(4) == b"!bye"


@SIDES
async def test_bulk_data_behind_urgent_data_arrives_before_a_reset(rig, first):
    """The reset is late: the splice reports it, and bytes follow the urgent mark."""
    sends, hears = await rig.both_ends(first)
    (connection,) = rig.connections.open
    sends.sock.send(b"!", socket.MSG_OOB)
    sends.send_some(b"bye")
    sends.reset()
    connection.is_aborting = True
    for direction in (connection.up, connection.down):
        direction._is_bulk = True
        direction.pump_last()
    # Check this now, because no event follows.
    assert connection.up.bytes_moved + connection.down.bytes_moved == 4
    assert await hears.read_exactly(4) == b"!bye"


STEPS = st.lists(st.tuples(st.sampled_from([0, 1]), ACTIONS), max_size=14)


FACTORIES = pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


async def play(rig, steps):
    """Run the steps of both ends, then close what is still open; return both ends."""
    first, second = await rig.both_ends()
    actors = Actor(first, ONE_SIDE), Actor(second, OTHER_SIDE)
    for who, (what, how) in steps:
        await actors[who].act(what, how)
    await end_all(rig, actors)
    return actors


@pytest.mark.hypothesis
@FACTORIES
def test_under_any_operations_bytes_are_equal_or_both_sides_see_an_error(factory):
    with asyncio.Runner(loop_factory=factory) as runner:

        async def build():
            return Rig()

        rig = runner.run(build())

        @settings(max_examples=150, deadline=None)
        @given(STEPS)
        def check(steps):
            actors = runner.run(play(rig, steps))
            assert_equal_or_told(*actors)
            rig.close_kept()

        try:
            check()
        finally:
            rig.close()
        assert rig.bugs == []


async def test_send_queues_are_not_bounded_for_short_messages(rig, monkeypatch):
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


async def test_a_directions_send_queue_is_bounded_only_once(rig, monkeypatch):
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


async def test_a_pipe_has_a_capacity_of_1_mib(make):
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


async def test_a_pipe_containing_bytes_is_closed(make, descriptors):
    pool = make(2)
    pipe = pool.take(NOW)
    os.write(pipe.write_end, b"left behind")
    pool.give(pipe, 10)
    assert (pool.open_pipes, descriptors.in_use) == (0, 0)
    assert not Path(f"/proc/self/fd/{pipe.read_end}").exists()


async def test_a_pool_creates_at_most_the_maximum_number_of_pipes(make):
    pool = make(2)
    pipes = [pool.take(NOW), pool.take(NOW)]
    assert pool.take(NOW) is None
    for pipe in pipes:
        pool.give(pipe, 0)


async def test_no_pipe_is_opened_without_free_descriptors(make, descriptors):
    pool = make(2)
    descriptors.take(99)
    assert pool.take(NOW) is None
    descriptors.give(99)


async def test_a_closed_pool_provides_no_pipes(make, descriptors):
    pool = make(2)
    used, free = pool.take(NOW), pool.take(NOW)
    pool.give(free, 0)
    pool.close()
    assert pool.open_pipes == 1
    pool.give(used, 0)
    pool.close()
    assert pool.take(NOW) is None
    assert descriptors.in_use == 0


@pytest.mark.pure
async def test_a_large_pipe_denied_by_the_kernel_is_requested_again_later(
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
    """A rig with pipes; in a second run, without pipes."""
    return build(Tuning(max_pipes=request.param))


@SIDES
async def test_bulk_data_arrives_unchanged_and_its_pipes_are_returned(bulk_rig, first):
    sends, hears = await bulk_rig.both_ends(first)
    sent, heard = await asyncio.gather(pour(sends, 60 * MIB, 1), read_digest(hears))
    assert sent == heard
    pipes = bulk_rig.engine.pipes
    assert len(pipes._free) == pipes.open_pipes
    assert bool(pipes.open_pipes) == bool(pipes._max_pipes)


async def test_small_messages_use_no_pipe(rig):
    client, server = await rig.both_ends()
    for _ in range(50):
        await client.send(b"question")
        assert await server.read() == b"question"
    assert rig.engine.pipes.open_pipes == 0


@SIDES
async def test_short_messages_after_bulk_data_are_copied(rig, first):
    sends, hears = await rig.both_ends(first)
    await asyncio.gather(sends.send(bytes(8 * MIB)), hears.read_exactly(8 * MIB))
    await sends.send(b"a word")
    assert await hears.read_exactly(6) == b"a word"
    (connection,) = rig.connections.open
    direction = connection.up if first == "client" else connection.down
    assert direction._is_bulk is False
    assert len(rig.engine.pipes._free) == rig.engine.pipes.open_pipes


@SIDES
async def test_a_direction_splices_again_after_copying_one_part_of_bulk_data(rig, first):
    sends, hears = await rig.both_ends(first)
    # This opens TCP's windows. After a short message, the next bytes are copied.
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
async def test_a_reset_during_a_bulk_transfer_returns_its_pipe(rig, first):
    sends, hears = await rig.both_ends(first)
    await until(lambda: not sends.fill() and any(rig.pending()), "the sender is stopped")
    hears.reset()
    await until(lambda: not rig.connections.open, "the end of the connection")
    assert len(rig.engine.pipes._free) == rig.engine.pipes.open_pipes


@SIDES
async def test_a_reset_detected_by_a_bulk_read_returns_the_pipe(rig, first):
    """The last bytes are read again, which must not take a second pipe and leak the first one."""
    sends, hears = await rig.both_ends(first)
    await asyncio.gather(sends.send(bytes(MIB)), hears.read_exactly(MIB))
    (connection,) = rig.connections.open
    (connection.up if first == "client" else connection.down)._is_bulk = True
    sends.reset()
    assert await hears.was_reset()
    assert len(rig.engine.pipes._free) == rig.engine.pipes.open_pipes


@SIDES
async def test_a_reset_detected_by_a_bulk_write_returns_the_pipe(rig, first):
    sends, hears = await rig.both_ends(first)
    (connection,) = rig.connections.open
    (connection.up if first == "client" else connection.down)._is_bulk = True
    sends.fill()
    hears.reset()
    await until(lambda: not rig.connections.open, "the end of the connection")
    assert len(rig.engine.pipes._free) == rig.engine.pipes.open_pipes


@SIDES
async def test_spliced_bulk_data_does_not_starve_other_connections(rig, first, monkeypatch):
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
