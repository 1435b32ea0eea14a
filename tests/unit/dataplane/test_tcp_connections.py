from __future__ import annotations

import contextlib
import errno
import fcntl
import random
import socket
import termios
import time
from pathlib import Path

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.calls import SystemCalls
from userspace_proxy.dataplane.client_address import ClientAddressDialer
from userspace_proxy.dataplane.reactor import Reactor
from userspace_proxy.dataplane.tcp_connections import (
    BEHIND_S,
    HELD_S,
    LIMIT_S,
    HeldAcks,
    _undelivered,
)
from userspace_proxy.dataplane.tuning import BATCH
from userspace_proxy.kernel.listening_sockets import hold_acks
from userspace_proxy.model import Balance, Handling, ProxyProtocol
from userspace_proxy.model.serving import Serving

from .peers import Peer, address_of, family_of
from .rig import SIDES
from .waiters import HOLD, count_waiting, limited, waiting
from .waiting import turns, until


async def test_on_idle_is_called_only_when_the_last_connection_ends(rig):
    told = []
    pod, web = rig.served()
    pairs = [await rig.pair(web, pod) for _ in range(2)]
    await until(lambda: len(rig.connections.open) == 2)
    rig.connections.on_idle = lambda: told.append(len(rig.connections.open))
    for count, (client, server) in zip((1, 0), pairs, strict=True):
        assert told == []
        client.close()
        server.close()
        await until(lambda count=count: len(rig.connections.open) == count)
    assert told == [0]


async def test_reset_all_resets_and_counts_all_connections(rig):
    pod, web = rig.served()
    pairs = [await rig.pair(web, pod) for _ in range(3)]
    assert rig.connections.reset_all() == 3
    for client, server in pairs:
        assert await client.was_reset()
        assert await server.was_reset()
    assert rig.connections.reset_all() == 0


async def test_connections_are_kept_in_order_of_acceptance(rig):
    pod, web = rig.served()
    ports = [(await rig.pair(web, pod))[0].sock.getsockname()[1] for _ in range(32)]
    assert [connection.address[1] for connection in rig.connections.open] == ports


async def test_the_idle_time_of_a_waiting_client_starts_when_an_endpoint_answers(build, timers):
    rig = build(Tuning(), timers.clock, timers)
    pod = rig.endpoint()
    web = rig.service(pod.address, **limited(1))
    first = await rig.pair(web, pod)
    timers.advance(1.0)
    (waited,) = await waiting(rig, web, 1)
    waiter = list(rig.connections.open)[-1]
    accepted_at = timers.clock()
    timers.advance(3.0)
    assert waiter.idle_since(timers.clock()) == accepted_at
    for end in first:
        end.close()
    await pod.accept()
    await until(lambda: waiter.up, "the dial is answered")
    answered_at = timers.clock()
    # The first check is still to come.
    timers.advance(0.25)
    assert waiter.idle_since(timers.clock()) == answered_at > accepted_at + 2.0
    waited.close()


@pytest.mark.parametrize("reason", ["hold", "limit"])
async def test_waiting_clients_are_reset_when_their_service_is_deleted(rig, reason):
    pod = rig.endpoint()
    if reason == "hold":
        web = rig.service(**HOLD)
    else:
        web = rig.service(pod.address, **limited(1))
        await rig.pair(web, pod)
    clients = await waiting(rig, web, 20)
    web.close()
    for client in clients:
        assert await client.was_reset()
    assert count_waiting(web) == 0


async def test_a_connection_whose_client_waited_ends_with_a_fin(rig):
    web = rig.service(**HOLD)
    (client,) = await waiting(rig, web, 1)
    pod = rig.endpoint()
    rig.update(web, pod.address, **HOLD)
    server = await pod.accept()
    client.finish()
    assert await server.read_all() == b""
    await server.send(b"answer")
    server.close()
    assert await client.read_all() == b"answer"


FAMILIES = pytest.mark.parametrize("ip", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
ATTEMPTS = 10
"""The best attempt counts: a busy machine may delay the kernel's ACKs (40 ms; handshake: 200)."""
KERNEL_S = 0.04


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
async def frozen(node, build, timers):
    """A rig with the test's clock, in a namespace without traffic of other tests."""
    return build(None, timers.clock, timers)


def segments():
    """Return how many TCP segments this namespace has sent."""
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("OutSegs")])


def has_quick_acks(sock):
    return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))


def asks(rig, web, *requests, nagle=False):
    """Connect, and send requests before the proxy accepts the connection; return the client."""
    sock = socket.create_connection(web.address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not nagle)
    for request in requests:
        sock.sendall(request)
    return rig.keep(Peer(sock))


async def exchange(rig, web, pod):
    """Ask, answer and close; return when the data plane has closed both sides."""
    client = asks(rig, web, b"question")
    server = await pod.accept()
    assert await server.read() == b"question"
    await server.send(b"answer")
    assert await client.read() == b"answer"
    client.finish()
    assert await server.read() == b""
    server.close()
    assert await client.read() == b""
    await until(lambda: not rig.connections.open)


async def joined(rig):
    """Return the only connection after its endpoint has answered."""
    await until(lambda: [c.up for c in rig.connections.open if c.up])
    (connection,) = rig.connections.open
    return connection


@FAMILIES
async def test_a_short_connection_uses_17_segments(frozen, ip):
    pod = frozen.endpoint(ip)
    web = frozen.service(pod.address, at=ip)
    await exchange(frozen, web, pod)
    taken = []
    while 17 not in taken and len(taken) < ATTEMPTS:
        before = segments()
        await exchange(frozen, web, pod)
        taken.append(segments() - before)
    assert min(taken) == 17


@FAMILIES
async def test_a_listener_delays_acks_again_after_refusing(frozen, ip):
    pod = frozen.endpoint(ip)
    web = frozen.service(pod.address, at=ip)
    frozen.update(web)
    frozen.update(web, pod.address)
    asks(frozen, web)
    assert not has_quick_acks((await joined(frozen)).client)


@pytest.mark.parametrize("client", [None, "127.9.9.9"], ids=["node-address", "client-address"])
@pytest.mark.parametrize(("holds_ack", "expected"), [(True, 2), (False, 3)])
def test_only_a_dial_with_a_delayed_ack_sends_it_with_the_first_bytes(
    node, stack, client, holds_ack, expected
):
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    taken = []
    for _ in range(ATTEMPTS):
        before = segments()
        sock = dialled(client, address_of(listener), holds_ack)
        taken.append(segments() - before)
        sock.close()
        listener.accept()[0].close()
    assert min(taken) == expected


def dialled(client, at, holds_ack):
    calls = SystemCalls(1)
    dialer = ClientAddressDialer(calls)
    if client is not None:
        return calls.socket(dialer.dial(client, at, holds_ack))

    class Dialling:
        address, is_preserved, group = ("127.0.0.1", 4711), False, None

    class Group:
        detours = ()
        serving = Serving(())

    dialling = Dialling()
    dialling.group = Group()
    return calls.socket(dialer.dial_for(dialling, at, 0.0, False, holds_ack))


async def test_a_dial_delays_its_ack_if_the_previous_client_sent_data_first(frozen):
    _, web = frozen.served()
    held = []
    for request in (b"question", b"question", b"", b"", b"question", b"question"):
        client = asks(frozen, web, request)
        held.append((await joined(frozen)).holds_ack)
        client.reset()
        await until(lambda: not frozen.connections.open)
    assert held == [False, True, True, False, False, True]


async def test_a_proxy_header_counts_as_data_to_send(frozen):
    pod = frozen.endpoint()
    web = frozen.service(pod.address, handling=Handling(proxy_protocol=ProxyProtocol.V1))
    for held in (False, True, True):
        client = asks(frozen, web)
        assert (await joined(frozen)).holds_ack is held
        client.reset()
        await until(lambda: not frozen.connections.open)


async def test_a_dial_after_the_ack_delay_delays_no_ack(frozen, timers):
    pod = frozen.endpoint()
    web = frozen.service(frozen.silent(), pod.address)
    web.group.sends_at_once = True
    asks(frozen, web, b"question")
    await until(lambda: frozen.connections.open)
    (connection,) = frozen.connections.open
    assert connection.holds_ack
    timers.advance(1.1)
    assert await (await pod.accept()).read() == b"question"
    assert not connection.holds_ack


async def best_wait(attempt, limit_s):
    """Return the shortest time of ATTEMPTS attempts, or the first time below the limit."""
    took = []
    while len(took) < ATTEMPTS:
        took.append(await attempt())
        if took[-1] < limit_s:
            break
    return min(took)


async def test_a_server_that_sends_first_is_not_delayed(frozen):
    pod, web = frozen.served()

    async def attempt():
        web.group.sends_at_once = True
        began = time.monotonic()
        client = asks(frozen, web)
        await (await pod.accept()).send(b"welcome")
        assert await client.read() == b"welcome"
        took = time.monotonic() - began
        client.reset()
        await until(lambda: not frozen.connections.open)
        return took

    assert await best_wait(attempt, KERNEL_S) < KERNEL_S


@FAMILIES
@pytest.mark.parametrize("is_client", [True, False], ids=["client", "server"])
async def test_writing_twice_does_not_wait_for_the_kernels_ack_delay(frozen, timers, ip, is_client):
    pod = frozen.endpoint(ip)
    web = frozen.service(pod.address, at=ip)
    web.group.sends_at_once = True
    asked = (b"half ", b"question") if is_client else (b"question",)

    async def attempt():
        client = asks(frozen, web, *asked, nagle=is_client)
        server = await pod.accept()
        received = await server.read()
        if not is_client:
            await server.send(b"half ")
            await server.send(b"answer")
            received = await client.read()
        assert received.startswith(b"half ")
        timers.advance(HELD_S)
        began = time.monotonic()
        ways = [c.up if is_client else c.down for c in frozen.connections.open]
        await until(lambda: sum(way.bytes_moved for way in ways) == (13 if is_client else 11))
        took = time.monotonic() - began
        client.reset()
        await until(lambda: not frozen.connections.open)
        return took

    assert await best_wait(attempt, KERNEL_S / 2) < KERNEL_S / 2


async def test_quick_acks_are_restored_on_both_sides_of_a_lasting_connection(frozen, timers):
    pod = frozen.endpoint()
    asks(frozen, frozen.service(pod.address))
    connection = await joined(frozen)
    timers.advance(HELD_S * 0.9)
    assert not has_quick_acks(connection.client)
    timers.advance(HELD_S * 0.2)
    assert has_quick_acks(connection.client)
    assert has_quick_acks(connection.up.sink)
    assert not frozen.connections.held_acks


async def test_quick_acks_are_restored_on_a_connection_that_is_still_dialling(frozen, timers):
    web = frozen.service(frozen.silent())
    web.group.sends_at_once = True
    asks(frozen, web, b"question")
    await until(lambda: frozen.connections.open)
    (connection,) = frozen.connections.open
    assert not has_quick_acks(connection._endpoint_socket)
    timers.advance(HELD_S)
    assert has_quick_acks(connection.client)
    assert has_quick_acks(connection._endpoint_socket)


async def test_no_delayed_acks_are_recorded_for_an_ended_connection(frozen):
    pod, web = frozen.served()
    await exchange(frozen, web, pod)
    assert not frozen.connections.held_acks


async def test_closing_the_data_plane_cancels_its_timers(frozen, timers):
    pod = frozen.endpoint()
    await frozen.pair(frozen.service(pod.address), pod)
    frozen.dataplane.close()
    assert timers.waiting == 0


class Connection:
    """An accepted connection without an endpoint."""

    endpoint_fd = -1

    def __init__(self, sock, client_fd, started):
        self.client = sock
        self.client_fd = client_fd
        self.started = started


@pytest.fixture
async def held(timers, stack):
    """A reactor, the held ACKs on it, and a connection."""
    reactor = Reactor(timers, clock=timers.clock)
    stack.callback(reactor.close)
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    hold_acks(listener)
    stack.enter_context(socket.create_connection(address_of(listener)))
    accepted = stack.enter_context(listener.accept()[0])
    connection = Connection(accepted, reactor.calls.adopt(accepted), timers.now)
    held = HeldAcks(reactor)
    stack.callback(held.close)
    held.start(connection, timers.now)
    return reactor, held, connection


async def test_a_late_loop_delays_acks_until_it_catches_up(held, timers):
    reactor, held, connection = held
    reactor.behind_until = timers.now + 2.5 * HELD_S
    timers.advance(2.1 * HELD_S)
    assert not has_quick_acks(connection.client)
    timers.advance(HELD_S)
    assert has_quick_acks(connection.client)
    assert timers.waiting == 0


async def test_a_loop_that_stays_behind_delays_acks_for_20_ms_at_most(held, timers):
    reactor, held, connection = held
    reactor.behind_until = timers.now + 1000
    timers.advance(BEHIND_S * 0.8)
    assert not has_quick_acks(connection.client)
    timers.advance(BEHIND_S * 0.2)
    assert has_quick_acks(connection.client)
    assert not held


@contextlib.contextmanager
def calls_of(sock):
    calls = SystemCalls(1)
    calls.adopt(sock)
    yield calls
    calls.close_epoll()


@FAMILIES
def test_accepted_sockets_inherit_and_then_release_delayed_acks(stack, ip):
    listener = stack.enter_context(socket.create_server((ip, 0), family=family_of(ip)))
    hold_acks(listener)
    stack.enter_context(socket.create_connection(address_of(listener)))
    accepted = stack.enter_context(listener.accept()[0])
    assert not has_quick_acks(accepted)
    calls = stack.enter_context(calls_of(accepted))
    calls.send_acks(accepted.fileno())
    assert has_quick_acks(accepted)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_delaying_acks_of_a_non_tcp_socket_is_not_an_error(stack, kind):
    for sock in socket.socketpair(type=kind):
        stack.enter_context(sock)
        hold_acks(sock)
        stack.enter_context(calls_of(sock)).send_acks(sock.fileno())


PIPES = pytest.mark.parametrize("pipes", [32, 0], ids=["spliced", "copied"])

# More than the proxy forwards to a reader that never reads.
STALLING_BYTES = 4_000_000
# More than any kernel accepts.
MORE_THAN_IS_TAKEN = 20_000_000

# More than the reader's window and a pipe hold, so the rest waits in the proxy's kernel, which
# accepts 2 to 5 MB, depending on how soon its receive buffer grows.
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
async def test_a_reader_that_stays_stalled_is_reset_after_its_timeout(
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
    # On a busy machine the reader's kernel may have acknowledged the last bytes late.
    assert timers.now - began < 5.5
    assert await stalls.was_reset()


@SIDES
@PIPES
async def test_a_slow_reader_receives_all_bytes_acknowledged_by_the_proxys_kernel(
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
    """Return whether the next check will find that bytes have moved."""
    waiting = rig.connections.late_resets.waiting.values()
    return any(_undelivered(each.direction) != each.progress[1] for each in waiting)


@SIDES
async def test_a_slow_reader_is_reset_after_a_minute(timed, timers, first):
    resets, slow = await timed.both_ends(first)
    await reset_behind(timed, resets, bytes(MORE_THAN_IS_TAKEN))
    began = timers.now
    while timed.connections.open:
        # Two segments on loopback: fewer may not open the window, and then don't count as progress.
        await slow.read_exactly(140_000)
        await until(lambda: has_progress(timed), "the kernel has sent more")
        timers.advance(4.0)
    assert LIMIT_S <= timers.now - began < LIMIT_S + 5


async def test_forwarded_bytes_count_as_progress_even_if_as_many_remain(timed, timers):
    resets, _ = await timed.both_ends("client")
    await reset_behind(timed, resets, bytes(MORE_THAN_IS_TAKEN))
    (waiting,) = timed.connections.late_resets.waiting.values()
    timers.advance(4.9)
    # Simulate a reader that reads exactly as much as arrives: bytes move, and as many are left.
    waiting.direction.bytes_moved += 64
    timers.advance(4.9)
    assert timed.connections.open
    # A whole period more, because the kernel itself may have moved bytes.
    timers.advance(5)
    assert not timed.connections.open


@SIDES
async def test_a_waiting_reset_ends_when_the_reader_resets_and_the_pipe_is_not_reused(rig, first):
    resets, stalls = await rig.both_ends(first)
    await reset_behind(rig, resets, bytes(STALLING_BYTES))
    assert rig.engine.pipes.open_pipes == 1
    stalls.reset()
    await until(lambda: not rig.connections.open, "the end of the connection")
    assert rig.engine.pipes.open_pipes == 0


@SIDES
async def test_a_reset_without_undelivered_bytes_is_immediate(rig, first):
    resets, hears = await rig.both_ends(first)
    await resets.send(b"word")
    assert await hears.read() == b"word"
    resets.reset()
    assert await hears.was_reset()
    assert not rig.connections.late_resets._timer


async def read_slowly(peer, timers):
    """Return the bytes that a client which reads 250 kB per second gets until a FIN or RST."""
    got = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while some := await peer.read(250_000):
            got += some
            timers.advance(1.0)
            await turns(3)
    return got


async def reset_behind(rig, peer, data):
    """Send data to a stalled reader, and reset; return how many bytes were acknowledged.

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
    """Return whether the proxy waits for room in the reader's socket buffer."""
    return any(c.up.is_stuck or c.down.is_stuck for c in rig.connections.open)


def unacknowledged(peer):
    """Return how many bytes the peer's kernel hasn't acknowledged (SIOCOUTQ)."""
    queued = bytearray(4)
    fcntl.ioctl(peer.sock, termios.TIOCOUTQ, queued)
    return int.from_bytes(queued, "little")


TWO_CONNECTIONS = Tuning(descriptor_limit=5)
"""One descriptor for the listener, and two for each connection."""


async def serving_two(build):
    """Return a rig at its descriptor limit, a Service, its endpoint and both connections' ends."""
    rig = build(TWO_CONNECTIONS)
    pod, web = rig.served()
    return rig, web, pod, [await rig.pair(web, pod) for _ in range(2)]


async def test_an_accept_queue_longer_than_a_batch_is_drained(rig):
    pod, web = rig.served()
    clients = [await rig.client(web) for _ in range(2 * BATCH + 1)]
    for _ in clients:
        await pod.accept()
    assert len(rig.connections.open) == len(clients)


async def test_at_the_descriptor_limit_clients_wait_in_the_accept_queue(build):
    rig, web, pod, _ = await serving_two(build)
    waiting = await rig.client(web)
    await until(lambda: not rig.engine.descriptors.is_accepting)
    assert waiting.send_some(b"patience") == 8
    assert pod.accept_now() is None
    assert rig.engine.descriptors.in_use == 5


async def test_a_waiting_client_is_served_when_a_connection_ends(build):
    rig, web, pod, pairs = await serving_two(build)
    waiting = await rig.client(web)
    await waiting.send(b"patience")
    await until(lambda: not rig.engine.descriptors.is_accepting)
    pairs[0][0].reset()
    assert await (await pod.accept()).read() == b"patience"


@pytest.mark.pure
async def test_a_paused_listener_that_cannot_be_watched_is_retried_later(build, monkeypatch):
    rig, web, pod, pairs = await serving_two(build)
    waiting = await rig.client(web)
    await waiting.send(b"patience")
    await until(lambda: not rig.engine.descriptors.is_accepting)
    tries = []

    def out_of_watches(*_args):
        tries.append(1)
        return -errno.ENOSPC

    with monkeypatch.context() as patch:
        patch.setattr(rig.engine.reactor, "watch", out_of_watches)
        pairs[0][0].reset()
        await until(lambda: tries)
    assert await (await pod.accept()).read() == b"patience"


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "refusing"])
async def test_a_paused_listener_resets_its_waiting_clients_and_stays_paused(build, is_closed):
    rig, web, _pod, pairs = await serving_two(build)
    waiting = await rig.client(web)
    await until(lambda: not rig.engine.descriptors.is_accepting)
    if is_closed:
        web.close()
    else:
        rig.update(web)
    assert await waiting.was_reset()
    pairs[0][0].reset()
    await until(lambda: rig.engine.descriptors.is_accepting)
    with pytest.raises(ConnectionRefusedError):
        await rig.client(web)


async def test_a_paused_listener_serves_again_after_refusing(build):
    rig, web, pod, pairs = await serving_two(build)
    await rig.client(web)
    await until(lambda: not rig.engine.descriptors.is_accepting)
    rig.update(web)
    rig.update(web, pod.address)
    later = await rig.client(web)
    await later.send(b"me too")
    pairs[0][0].reset()
    assert await (await pod.accept()).read() == b"me too"
    pairs[1][0].reset()
    await rig.pair(web, pod)


async def test_with_descriptors_for_only_one_connection_consecutive_clients_are_served(build):
    rig = build(Tuning(descriptor_limit=23))
    pod = rig.endpoint()
    services = [rig.service(pod.address) for _ in range(20)]
    for web in services[:2] * 2:
        client = await rig.client(web)
        (await pod.accept()).reset()
        assert await client.was_reset()


async def test_clients_wait_in_the_accept_queue_without_a_descriptor_for_accept(rig):
    pod, web = rig.served()
    with socket.socket() as waiting:
        waiting.setblocking(False)
        with descriptors_left(0):
            waiting.connect_ex(web.address)
            await until(lambda: not rig.engine.descriptors.is_accepting)
            waiting.send(b"patience")
        assert await (await pod.accept()).read() == b"patience"


async def test_clients_that_leave_before_accept_leave_no_connection_open(rig):
    pod, web = rig.served()
    for _ in range(3):
        (await rig.client(web)).reset()
    await rig.pair(web, pod)
    await until(lambda: len(rig.connections.open) == 1)


@pytest.mark.parametrize("dead", ["silent", "refusing"])
async def test_a_failed_dial_does_not_count_as_load(build, dead):
    rig = build(Tuning(connect_timeout_s=0.02))
    web = rig.service(getattr(rig, dead)(), handling=Handling(balance=Balance.LEAST_CONNECTIONS))
    assert await rig.resets_a_client(web)
    assert web.group.balancers._dialling == {}
