"""Connections of a process that has no descriptor left."""

import asyncio
import contextlib
import os
import resource
import socket

import pytest
from aiohttp import web

from userspace_proxy.status.accepting import RESERVED, Accepting, Reserve
from userspace_proxy.status.connections import ConnectionLimit, LimitedServer, answering
from userspace_proxy.status.listening import listen

WAIT_S = 10.0
CLIENTS = 3 * RESERVED
# All wait in the kernel's queue, before the probe.
FLOOD = 100
# The kubelet gives it 1 s; so much more, as a busy machine may need it.
PROBE_S = 5.0


async def answer(request):
    with answering(request):
        response = web.Response(text="hello")
        response.force_close()
        return response


@pytest.fixture
async def accepting():
    """A server whose connections don't end by themselves."""
    server = web.Server(answer)
    limited = LimitedServer(server, ConnectionLimit(100), first_request_s=60.0)
    sock, reserve = listen(socket.AF_INET, ("127.0.0.1", 0)), Reserve()
    address = sock.getsockname()
    accepting = Accepting(limited, sock, reserve)
    yield address
    accepting.close()
    accepting.close()
    await server.shutdown(1.0)
    reserve.close()


@pytest.fixture
def clients():
    """Sockets that are there before descriptors run out."""
    clients = [socket.socket() for _ in range(CLIENTS)]
    for client in clients:
        client.setblocking(False)
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def flood():
    """Sockets of clients from elsewhere: they don't have the address that they dial."""
    flood = [socket.socket() for _ in range(FLOOD)]
    for client in flood:
        client.setblocking(False)
        client.bind(("127.0.0.2", 0))
    yield flood
    for client in flood:
        client.close()


@contextlib.contextmanager
def no_descriptor():
    """Take every free descriptor; in a running loop, as uvloop takes some when it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def ask(client, address):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_S):
        client.connect_ex(address)
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while chunk := await loop.sock_recv(client, 1000):
            answer += chunk
    return answer.endswith(b"hello")


async def test_requests_are_answered_without_a_free_descriptor(accepting, clients):
    with no_descriptor():
        assert [await ask(client, accepting) for client in clients] == [True] * CLIENTS


async def test_silent_connections_end_when_the_reserve_is_empty(accepting, clients):
    *silent, last = clients
    with no_descriptor():
        for client in silent:
            client.connect_ex(accepting)
        assert await ask(last, accepting)


async def test_a_probe_of_the_node_itself_is_answered_behind_a_flood(accepting, flood, clients):
    probe = clients[0]
    with no_descriptor():
        for client in flood:
            client.connect_ex(accepting)
        async with asyncio.timeout(PROBE_S):
            assert await ask(probe, accepting)


def test_a_reserve_lends_what_it_holds_and_is_refilled():
    reserve = Reserve(2)
    reserve.fill()
    assert [reserve.lend(), reserve.lend(), reserve.lend()] == [True, True, False]
    reserve.fill()
    assert reserve.lend()
    reserve.close()
    assert not reserve.lend()
