"""Limits on connections, tested with real clients."""

import asyncio

import pytest
from aiohttp import web

from userspace_proxy.status.connections import (
    CHUNK_BYTES,
    FIRST_REQUEST_S,
    MAX_CONNECTIONS,
    REQUEST_S,
    UNREAD_BYTES,
    ConnectionLimit,
    LimitedServer,
    note_request,
    send,
)

from ..kept import kept_by

WAIT_S = 10.0
# This size exceeds the buffers of both sockets.
LARGE = 12 * 1024 * 1024


class Limited:
    """A server with limits, which answers a request for ``/held`` once ``release`` is set.

    All requests for one path below ``/large/`` share a response body.
    """

    def __init__(self, *limits, **deadlines):
        self._server = web.Server(self._answer)
        self._limits = limits
        self._deadlines = deadlines
        self._writers = []
        self._listening = []
        self.release = asyncio.Event()
        self.asked = asyncio.Event()
        self.transports = []
        self._large = {}

    async def _answer(self, request):
        note_request(request)
        self.asked.set()
        self.transports.append(request.transport)
        if request.path.startswith("/large"):
            body = self._large.setdefault(request.path, bytes(LARGE))
            return await send(request, web.Response(body=body))
        if request.path == "/stream":
            return await self._stream(request)
        if request.path == "/held":
            await self.release.wait()
        return web.Response(text="hello")

    async def _stream(self, request):
        """Write a line each time ``release`` is set."""
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"hello\n")
            note_request(request)
            await self.release.wait()
            self.release.clear()

    async def __aenter__(self):
        await self.listen(*self._limits)
        return self

    async def listen(self, *limits):
        limited = LimitedServer(self._server, *limits, **self._deadlines)
        loop = asyncio.get_running_loop()
        self._listening.append(await loop.create_server(limited, "127.0.0.1", 0))

    async def connect(self, *, port=0):
        address = self._listening[port].sockets[0].getsockname()
        streams = await asyncio.open_connection(*address)
        self._writers.append(streams[1])
        return streams

    async def __aexit__(self, *_exc):
        for writer in self._writers:
            writer.close()
        for listening in self._listening:
            listening.close()
        await self._server.shutdown(1.0)


class Clock:
    """A clock that a test advances, and which calls the timers that expire."""

    def __init__(self):
        self.now = 1000.0
        self._timers = []

    def __call__(self):
        return self.now

    def call_later(self, seconds, callback):
        timer = Timer(self.now + seconds, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds):
        self.now += seconds
        due = [timer for timer in self._timers if timer.when <= self.now]
        self._timers = [timer for timer in self._timers if timer not in due]
        for timer in due:
            timer.callback()


class Timer:
    def __init__(self, when, callback):
        self.when = when
        self.callback = callback

    def cancel(self):
        self.callback = bool


def send_request(writer, path="/", *, body_bytes=0):
    """Send the head of a request, but not its body."""
    length = f"Content-Length: {body_bytes}\r\n" if body_bytes else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode())


async def is_answered(reader):
    async with asyncio.timeout(WAIT_S):
        return (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")


async def ask(streams):
    send_request(streams[1])
    return await is_answered(streams[0])


async def is_reset(streams):
    async with asyncio.timeout(WAIT_S):
        try:
            return await streams[0].read() == b""
        except ConnectionError:
            return True


async def has(limit, count):
    """Wait until the limit counts this many connections; the server reacts late."""
    async with asyncio.timeout(WAIT_S):
        while len(limit) != count:
            turn = asyncio.Event()
            asyncio.get_running_loop().call_later(0.005, turn.set)
            await turn.wait()


async def test_at_the_limit_the_oldest_connection_is_closed_and_the_new_connection_is_served():
    async with Limited(ConnectionLimit(2)) as limited:
        oldest, other = await limited.connect(), await limited.connect()
        assert await ask(oldest)
        assert await ask(other)
        new = await limited.connect()
        assert await ask(new)
        assert await is_reset(oldest)
        assert await ask(other)


async def test_connections_with_unfinished_bodies_leave_room_for_probes():
    async with Limited(ConnectionLimit(4)) as limited:
        unfinished = [await limited.connect() for _ in range(4)]
        for streams in unfinished:
            send_request(streams[1], body_bytes=1000)
            assert await is_answered(streams[0])
        probes = [await limited.connect() for _ in range(3)]
        for streams in unfinished[:3]:
            assert await is_reset(streams)
        assert [await ask(streams) for streams in probes] == [True] * 3


async def test_a_port_at_its_limit_does_not_affect_another_port():
    shared = ConnectionLimit(3)
    async with Limited(ConnectionLimit(1), shared) as limited:
        await limited.listen(ConnectionLimit(1), shared)
        other = await limited.connect(port=1)
        flood = [await limited.connect() for _ in range(4)]
        for streams in flood[:3]:
            assert await is_reset(streams)
        assert await ask(other)
        assert await ask(flood[3])


async def test_all_ports_share_a_connection_limit():
    shared = ConnectionLimit(1)
    async with Limited(ConnectionLimit(5), shared) as limited:
        await limited.listen(ConnectionLimit(5), shared)
        oldest = await limited.connect()
        new = await limited.connect(port=1)
        assert await is_reset(oldest)
        assert await ask(new)


async def test_at_the_shared_limit_the_port_with_the_most_connections_loses_a_connection():
    shared = ConnectionLimit(4)
    async with Limited(ConnectionLimit(5), shared) as limited:
        await limited.listen(ConnectionLimit(5), shared)
        quiet = await limited.connect()
        flood = [await limited.connect(port=1) for _ in range(6)]
        for streams in flood[:3]:
            assert await is_reset(streams)
        assert await ask(quiet)
        assert await ask(flood[5])


@pytest.mark.parametrize(
    "sent",
    [pytest.param(b"", id="nothing"), pytest.param(b"GET / HTTP/1.1\r\nHo", id="half-a-head")],
)
async def test_a_client_sending_no_request_in_time_is_reset(sent):
    limit = ConnectionLimit(5)
    async with Limited(limit, first_request_s=0.02) as limited:
        streams = await limited.connect()
        streams[1].write(sent)
        assert await is_reset(streams)
        await has(limit, 0)


async def test_a_request_restarts_the_deadline_for_its_response():
    clock, limit = Clock(), ConnectionLimit(5)
    async with Limited(limit, call_later=clock.call_later) as limited:
        asked, silent = await limited.connect(), await limited.connect()
        send_request(asked[1], "/held")
        await limited.asked.wait()
        await has(limit, 2)
        clock.advance(FIRST_REQUEST_S)
        assert await is_reset(silent)
        limited.release.set()
        assert await is_answered(asked[0])


async def test_a_slow_response_is_aborted():
    limit = ConnectionLimit(5)
    async with Limited(limit, request_s=0.02) as limited:
        streams = await limited.connect()
        send_request(streams[1], "/held")
        assert await is_reset(streams)
        await has(limit, 0)


async def test_a_connection_closed_by_its_client_is_no_longer_counted():
    limit = ConnectionLimit(5)
    async with Limited(limit) as limited:
        _, writer = await limited.connect()
        await has(limit, 1)
        writer.close()
        await has(limit, 0)


async def test_each_message_of_a_stream_restarts_its_response_deadline():
    clock = Clock()
    async with Limited(ConnectionLimit(8), call_later=clock.call_later) as limited:
        streams = await limited.connect()
        send_request(streams[1], "/stream")
        assert await is_kept_open(streams)
        for _ in range(2):
            clock.advance(REQUEST_S - 1)
            limited.release.set()
            assert await is_kept_open(streams)
        clock.advance(REQUEST_S)
        assert await is_reset(streams)


async def is_kept_open(streams):
    async with asyncio.timeout(WAIT_S):
        return b"hello" in await streams[0].readuntil(b"hello\n\r\n")


async def ask_large(limited, name):
    """Request a large response, read only its head, and return the streams."""
    streams = await limited.connect()
    send_request(streams[1], f"/large/{name}")
    async with asyncio.timeout(WAIT_S):
        assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    return streams


async def is_complete(streams):
    async with asyncio.timeout(WAIT_S):
        return len(await streams[0].readexactly(LARGE)) == LARGE


async def test_only_a_few_chunks_of_an_unread_response_are_buffered_in_its_transport():
    async with Limited(ConnectionLimit(8)) as limited:
        unread = await ask_large(limited, "a")
        assert await ask(await limited.connect())
        assert limited.transports[0].get_write_buffer_size() <= 4 * CHUNK_BYTES
        assert await is_complete(unread)


async def test_at_the_limit_of_unread_bytes_only_the_oldest_reader_is_closed():
    async with Limited(ConnectionLimit(16, unread_bytes=3 * LARGE)) as limited:
        idle, held = await limited.connect(), await limited.connect()
        assert await ask(idle)
        send_request(held[1], "/held")
        unread = [await ask_large(limited, name) for name in "abcd"]
        assert await is_cut(unread[0])
        for streams in unread[1:]:
            assert await is_complete(streams)
        assert await ask(idle)
        limited.release.set()
        assert await is_answered(held[0])


async def test_above_the_limit_of_unread_bytes_only_the_oldest_responses_are_cut_off():
    async with Limited(ConnectionLimit(MAX_CONNECTIONS)) as limited:
        kept = UNREAD_BYTES // LARGE
        unread = [await ask_large(limited, str(number)) for number in range(2 * kept)]
        assert await ask(await limited.connect())
        cut = [await is_cut(streams) for streams in unread[: kept + 1]]
        assert cut == [True] * kept + [False]
        assert await is_complete(unread[-1])


async def is_cut(streams):
    async with asyncio.timeout(WAIT_S):
        try:
            await streams[0].readexactly(LARGE)
        except (ConnectionError, asyncio.IncompleteReadError):
            return True
        return False


async def test_unread_bytes_count_a_shared_response_once_and_exclude_a_response_that_was_read():
    async with Limited(ConnectionLimit(16, unread_bytes=2 * LARGE)) as limited:
        read = await ask_large(limited, "read")
        assert await is_complete(read)
        first = await ask_large(limited, "first")
        shared = [await ask_large(limited, "shared") for _ in range(4)]
        for streams in (first, *shared):
            assert await is_complete(streams)
        assert await ask(read)
        unread = [await ask_large(limited, name) for name in "abc"]
        assert await is_cut(unread[0])


async def test_fully_read_responses_do_not_count_towards_the_unread_limit():
    limit = ConnectionLimit(16, unread_bytes=2 * LARGE)
    before = kept_by(limit)
    async with Limited(limit) as limited:
        for _ in range(3):
            reading = [await ask_large(limited, name) for name in ("shared", "shared", "another")]
            for streams in reading:
                assert await is_complete(streams)
                streams[1].close()
        await has(limit, 0)
    assert kept_by(limit) == before


async def test_a_response_larger_than_the_unread_limit_is_still_sent():
    async with Limited(ConnectionLimit(16, unread_bytes=1)) as limited:
        assert await is_complete(await ask_large(limited, "a"))
