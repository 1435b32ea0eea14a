"""How many segments a connection takes, and that nothing waits for an ACK for long."""

import contextlib
import socket
import time
from pathlib import Path

import pytest

from userspace_proxy.dataplane.calls import SystemCalls
from userspace_proxy.dataplane.client_address import ClientAddressDialer
from userspace_proxy.dataplane.held_acks import BEHIND_S, HELD_S, HeldAcks, hold_acks, send_acks
from userspace_proxy.dataplane.reactor import Reactor
from userspace_proxy.model import ProxyProtocol
from userspace_proxy.model.handling import Handling
from userspace_proxy.model.serving import Serving

from .peers import Peer, address_of, family_of
from .waiting import until

FAMILIES = pytest.mark.parametrize("ip", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
ATTEMPTS = 10
"""The kernel itself sends an ACK after 40 ms, and a handshake's after 200 ms: a busy machine may
take longer, so the best of so many counts."""
KERNEL_S = 0.04


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
async def frozen(node, build, timers):
    """A rig whose clock the test moves, in a namespace that no other test sends in."""
    return build(None, timers.clock, timers)


def segments():
    """Return how many segments this namespace has sent."""
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("OutSegs")])


def has_quick_acks(sock):
    return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))


def asks(rig, web, *requests, nagle=False):
    """Connect, and send each request before the proxy has accepted."""
    sock = socket.create_connection(web.address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not nagle)
    for request in requests:
        sock.sendall(request)
    return rig.keep(Peer(sock))


async def exchange(rig, web, pod):
    """Ask, answer, close; return when the data plane has closed both sides."""
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
    """Return the only connection once its endpoint has answered."""
    await until(lambda: [c.up for c in rig.connections.open if c.up])
    (connection,) = rig.connections.open
    return connection


@FAMILIES
async def test_a_short_connection_takes_17_segments(frozen, ip):
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
async def test_a_listener_that_has_refused_holds_acks_again(frozen, ip):
    pod = frozen.endpoint(ip)
    web = frozen.service(pod.address, at=ip)
    frozen.update(web)
    frozen.update(web, pod.address)
    asks(frozen, web)
    assert not has_quick_acks((await joined(frozen)).client)


@pytest.mark.parametrize("client", [None, "127.9.9.9"], ids=["node-address", "client-address"])
@pytest.mark.parametrize(("holds_ack", "expected"), [(True, 2), (False, 3)])
def test_only_a_dial_that_holds_the_ack_leaves_it_to_the_first_bytes(
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


async def test_a_dial_holds_its_ack_if_the_last_client_had_sent_when_its_endpoint_answered(frozen):
    _, web = frozen.served()
    held = []
    for request in (b"question", b"question", b"", b"", b"question", b"question"):
        client = asks(frozen, web, request)
        held.append((await joined(frozen)).holds_ack)
        client.reset()
        await until(lambda: not frozen.connections.open)
    assert held == [False, True, True, False, False, True]


async def test_a_proxy_header_is_something_to_send(frozen):
    pod = frozen.endpoint()
    web = frozen.service(pod.address, handling=Handling(proxy_protocol=ProxyProtocol.V1))
    for held in (False, True, True):
        client = asks(frozen, web)
        assert (await joined(frozen)).holds_ack is held
        client.reset()
        await until(lambda: not frozen.connections.open)


async def test_a_dial_after_the_time_holds_nothing(frozen, timers):
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
    """Return the shortest time of some attempts, the first one below the limit."""
    took = []
    while len(took) < ATTEMPTS:
        took.append(await attempt())
        if took[-1] < limit_s:
            break
    return min(took)


async def test_a_server_that_speaks_first_does_not_wait_even_if_the_last_one_did_not(frozen):
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
async def test_a_client_that_writes_twice_waits_as_long_as_acks_are_held(frozen, timers, ip):
    pod = frozen.endpoint(ip)
    web = frozen.service(pod.address, at=ip)
    web.group.sends_at_once = True

    async def attempt():
        client = asks(frozen, web, b"half ", b"question", nagle=True)
        server = await pod.accept()
        assert (await server.read()).startswith(b"half ")
        timers.advance(HELD_S)
        began = time.monotonic()
        await until(lambda: sum(c.up.bytes_moved for c in frozen.connections.open) == 13)
        took = time.monotonic() - began
        client.reset()
        await until(lambda: not frozen.connections.open)
        return took

    assert await best_wait(attempt, KERNEL_S / 2) < KERNEL_S / 2


@FAMILIES
async def test_a_server_that_writes_twice_waits_as_long_as_acks_are_held(frozen, timers, ip):
    pod = frozen.endpoint(ip)
    web = frozen.service(pod.address, at=ip)
    web.group.sends_at_once = True

    async def attempt():
        client = asks(frozen, web, b"question")
        server = await pod.accept()
        assert await server.read() == b"question"
        await server.send(b"half ")
        await server.send(b"answer")
        assert (await client.read()).startswith(b"half ")
        timers.advance(HELD_S)
        began = time.monotonic()
        await until(lambda: sum(c.down.bytes_moved for c in frozen.connections.open) == 11)
        took = time.monotonic() - began
        client.reset()
        await until(lambda: not frozen.connections.open)
        return took

    assert await best_wait(attempt, KERNEL_S / 2) < KERNEL_S / 2


async def test_a_connection_that_stays_open_has_the_kernels_own_acks_on_both_sides(frozen, timers):
    pod = frozen.endpoint()
    asks(frozen, frozen.service(pod.address))
    connection = await joined(frozen)
    timers.advance(HELD_S * 0.9)
    assert not has_quick_acks(connection.client)
    timers.advance(HELD_S * 0.2)
    assert has_quick_acks(connection.client)
    assert has_quick_acks(connection.up.sink)
    assert not frozen.connections.held_acks


async def test_a_connection_that_is_still_dialled_has_them_too(frozen, timers):
    web = frozen.service(frozen.silent())
    web.group.sends_at_once = True
    asks(frozen, web, b"question")
    await until(lambda: frozen.connections.open)
    (connection,) = frozen.connections.open
    assert not has_quick_acks(connection._endpoint_socket)
    timers.advance(HELD_S)
    assert has_quick_acks(connection.client)
    assert has_quick_acks(connection._endpoint_socket)


async def test_connections_that_end_are_forgotten(frozen):
    pod, web = frozen.served()
    await exchange(frozen, web, pod)
    assert not frozen.connections.held_acks


async def test_no_timer_outlives_the_data_plane(frozen, timers):
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
    """A reactor, held ACKs on it, and one connection."""
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


async def test_a_loop_that_is_behind_holds_acks_until_it_is_not(held, timers):
    reactor, held, connection = held
    reactor._behind_until = timers.now + 2.5 * HELD_S
    timers.advance(2.1 * HELD_S)
    assert not has_quick_acks(connection.client)
    timers.advance(HELD_S)
    assert has_quick_acks(connection.client)
    assert timers.waiting == 0


async def test_a_loop_that_stays_behind_holds_acks_for_20_ms_at_most(held, timers):
    reactor, held, connection = held
    reactor._behind_until = timers.now + 1000
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
def test_accepted_sockets_inherit_held_acks_and_give_them_up(stack, ip):
    listener = stack.enter_context(socket.create_server((ip, 0), family=family_of(ip)))
    hold_acks(listener)
    stack.enter_context(socket.create_connection(address_of(listener)))
    accepted = stack.enter_context(listener.accept()[0])
    assert not has_quick_acks(accepted)
    calls = stack.enter_context(calls_of(accepted))
    send_acks(calls, accepted.fileno())
    assert has_quick_acks(accepted)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_other_sockets_than_tcps_are_left_alone(stack, kind):
    for sock in socket.socketpair(type=kind):
        stack.enter_context(sock)
        hold_acks(sock)
        send_acks(stack.enter_context(calls_of(sock)), sock.fileno())
