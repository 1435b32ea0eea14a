"""Tests with connections to a process that has no free descriptor."""

import asyncio
import errno
import os
import socket

import pytest
from aiohttp import web

from tests.descriptors import descriptors_left
from userspace_proxy.status.accepting import RESERVED, Accepting, Reserve
from userspace_proxy.status.connections import ConnectionLimit, LimitedServer
from userspace_proxy.status.health_checks import MAX_CONNECTIONS_PER_PORT
from userspace_proxy.status.listening import listen

from ..dataplane.waiting import turns
from ..kept import kept_by

WAIT_S = 10.0
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLIENTS = 3 * RESERVED
# The kernel's accept queue holds all of these connections ahead of the probe's.
FLOOD = 100
# The kubelet's default timeout is 1 s. Without reserved descriptors, a probe waits longer than 5 s.
PROBE_S = 5.0


async def answer(request):
    """Respond with whether a descriptor is free; the data plane would use it immediately."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
        text = "a descriptor is free"
    except OSError:
        text = "hello"
    response = web.Response(text=text)
    response.force_close()
    return response


@pytest.fixture
async def both():
    """Yield the addresses of two ports that share a reserve; silent clients stay connected."""
    server, reserve = web.Server(answer), Reserve()
    ports = []
    for _ in range(2):
        limit = ConnectionLimit(MAX_CONNECTIONS_PER_PORT)
        limited = LimitedServer(server, limit, first_request_s=60.0)
        sock = listen(socket.AF_INET, ("127.0.0.1", 0))
        ports.append((sock.getsockname(), Accepting(limited, sock, reserve)))
    yield [address for address, _ in ports]
    for _, accepting in (*ports, *ports):
        accepting.close()
    await server.shutdown(1.0)
    reserve.close()


@pytest.fixture
def accepting(both):
    return both[0]


@pytest.fixture
def clients():
    """Client sockets, opened before the process runs out of descriptors."""
    clients = [socket.socket() for _ in range(CLIENTS)]
    for client in clients:
        client.setblocking(False)
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def flood():
    """Sockets of clients that connect but send nothing."""
    flood = [socket.socket() for _ in range(FLOOD)]
    for client in flood:
        client.setblocking(False)
    yield flood
    for client in flood:
        client.close()


async def ask(client, address):
    client.connect_ex(address)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_S):
        await loop.sock_sendall(client, REQUEST)
    return await read_answer(client)


async def read_answer(client):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_S):
        answer = b""
        while chunk := await loop.sock_recv(client, 1000):
            answer += chunk
    return answer.rpartition(b"\r\n\r\n")[2].decode()


async def test_requests_are_served_without_a_free_descriptor(accepting, clients):
    with descriptors_left(0):
        assert [await ask(client, accepting) for client in clients] == ["hello"] * CLIENTS


async def test_silent_connections_are_closed_when_the_reserve_is_empty(accepting, clients):
    *silent, last = clients
    with descriptors_left(0):
        for client in silent:
            client.connect_ex(accepting)
        assert await ask(last, accepting)


async def test_every_probe_among_flooding_connections_is_answered(accepting, flood, clients):
    probes = clients[:10]
    for number, client in enumerate(flood):
        client.connect_ex(accepting)
        if number % 10 == 5:
            probe = probes[number // 10]
            probe.connect_ex(accepting)
            probe.send(REQUEST)
    answers = [await read_answer(probe) for probe in probes]
    assert answers == ["a descriptor is free"] * 10


async def test_a_probe_is_answered_in_time_during_a_flood(accepting, flood, clients):
    probe = clients[0]
    with descriptors_left(0):
        for client in flood:
            client.connect_ex(accepting)
        async with asyncio.timeout(PROBE_S):
            assert await ask(probe, accepting)


async def test_a_flood_on_one_port_leaves_descriptors_for_other_ports_probes(both, flood, clients):
    flooded, probed = both
    with descriptors_left(0):
        for client in flood:
            client.connect_ex(flooded)
        async with asyncio.timeout(WAIT_S):
            # Only as many connections as the reserve has descriptors can stay open.
            for client in flood[:-RESERVED]:
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        assert await ask(clients[0], probed)


class WithoutMemory(socket.socket):
    """A listening socket whose accept() fails as if the kernel were out of memory."""

    calls = 0

    def accept(self):
        self.calls += 1
        raise OSError(errno.ENOBUFS, "No buffer space available")


async def test_accept_is_retried_at_a_limited_rate_while_the_kernel_lacks_memory(clients):
    sock = WithoutMemory(fileno=listen(socket.AF_INET, ("127.0.0.1", 0)).detach())
    limited = LimitedServer(web.Server(answer), ConnectionLimit(MAX_CONNECTIONS_PER_PORT))
    accepting = Accepting(limited, sock, Reserve())
    clients[0].connect_ex(sock.getsockname())
    await turns(100)
    assert 1 <= sock.calls < 20
    retry = accepting._retry
    accepting.close()
    assert retry.cancelled()


async def test_a_closed_connection_leaves_no_state_and_a_closed_port_refuses_clients(clients):
    server, reserve = web.Server(answer), Reserve()
    sock = listen(socket.AF_INET, ("127.0.0.1", 0))
    accepting = Accepting(LimitedServer(server, ConnectionLimit(8)), sock, reserve)
    before, address = kept_by(accepting), sock.getsockname()
    assert await ask(clients[0], address)
    assert kept_by(accepting) == before
    accepting.close()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(address):
        pass
    await server.shutdown(1.0)
    reserve.close()


def test_a_reserve_lends_its_descriptors_and_is_refilled():
    reserve = Reserve(2)
    reserve.fill()
    assert [reserve.lend(), reserve.lend(), reserve.lend()] == [True, True, False]
    reserve.fill()
    assert reserve.lend()
    reserve.close()
    assert not reserve.lend()
