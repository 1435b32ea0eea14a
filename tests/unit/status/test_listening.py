import asyncio
import socket

import pytest
from aiohttp import web

from userspace_proxy.errors import ListenError
from userspace_proxy.status.listening import (
    FIRST_REQUEST_S,
    REQUEST_S,
    Door,
    address_of,
    join_address,
    open_socket,
)

FLAG = "--healthz-bind-address"


async def open_here(bind):
    return await open_socket(bind, what="health checks", flag=FLAG)


async def test_port_zero_is_any_free_port():
    with await open_here(("127.0.0.1", 0)) as sock:
        host, port = address_of(sock)
        assert host == "127.0.0.1"
        assert port > 0


async def test_a_name_is_looked_up():
    with await open_here(("localhost", 0)) as sock:
        assert address_of(sock)[0] in {"127.0.0.1", "::1"}


async def test_a_socket_that_already_listens_is_handed_back():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert await open_here(sock) is sock
        assert not sock.getblocking()


async def test_a_port_in_use_is_told_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            await open_here(("127.0.0.1", port))
    assert str(caught.value) == (
        f"cannot serve health checks on 127.0.0.1:{port}: Address already in use (stop what "
        "listens there, perhaps kube-proxy, or choose another address with "
        "--healthz-bind-address)"
    )


@pytest.mark.parametrize(
    ("host", "words"),
    [
        pytest.param("192.0.2.1", "Cannot assign requested address", id="not-ours"),
        pytest.param("no such host", "--healthz-bind-address", id="no-name"),
    ],
)
async def test_an_address_that_is_not_of_this_node_is_told(host, words):
    with pytest.raises(ListenError, match="cannot serve health checks on") as caught:
        await open_here((host, 0))
    assert words in str(caught.value)
    assert FLAG in caught.value.hint


@pytest.mark.parametrize(
    ("host", "expected"),
    [pytest.param("::1", "[::1]:80", id="v6"), pytest.param("10.0.0.1", "10.0.0.1:80", id="v4")],
)
def test_addresses_are_written_as_in_a_url(host, expected):
    assert join_address(host, 80) == expected


async def hello(_request):
    return web.Response(text="hello")


class Guarded:
    """A server behind a door; ``connect`` opens a client's connection to it."""

    def __init__(self, limit):
        self._server = web.Server(hello)
        self.door = Door(self._server, limit=limit)
        self._writers = []

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self.door, "127.0.0.1", 0)
        return self

    async def connect(self):
        reader, writer = await asyncio.open_connection(*self._listening.sockets[0].getsockname())
        self._writers.append(writer)
        return reader, writer

    async def __aexit__(self, *_exc):
        for writer in self._writers:
            writer.close()
        self._listening.close()
        await self._server.shutdown(1.0)


async def ask(reader, writer):
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return await reader.readuntil(b"hello")


async def is_cut(reader):
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def test_a_connection_too_many_is_turned_away_and_the_others_are_served():
    async with Guarded(limit=1) as guarded:
        first = await guarded.connect()
        assert await ask(*first)
        reader, _ = await guarded.connect()
        assert await is_cut(reader)
        assert await ask(*first)


async def test_who_never_asks_is_cut_after_a_while():
    async with Guarded(limit=2) as guarded:
        reader, writer = await guarded.connect()
        now = asyncio.get_running_loop().time()
        guarded.door.sweep(now)
        assert await ask(reader, writer)
        guarded.door.sweep(now + FIRST_REQUEST_S + 1)
        assert await is_cut(reader)


async def test_who_asked_has_more_time():
    async with Guarded(limit=2) as guarded:
        reader, writer = await guarded.connect()
        assert await ask(reader, writer)
        now = asyncio.get_running_loop().time()
        (handler,) = guarded.door.alive
        guarded.door.heard(handler)
        guarded.door.sweep(now + FIRST_REQUEST_S + 1)
        assert await ask(reader, writer)
        guarded.door.sweep(now + REQUEST_S + 1)
        assert await is_cut(reader)


async def test_sweeping_begins_and_stops():
    async with Guarded(limit=2) as guarded:
        guarded.door.open()
        guarded.door.close()
        guarded.door.close()
