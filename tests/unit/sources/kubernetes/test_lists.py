"""Reading lists as streams, from the fake and from misbehaving servers."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from tests.tcp_servers import serving
from userspace_proxy.model.wire import FieldError
from userspace_proxy.sources.kubernetes import lists as module
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.lists import BATCH_BYTES, read_page, read_whole
from userspace_proxy.sources.kubernetes.responses import Response, TransportError

from .objects import service

SERVICES = "/api/v1/services"
Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(send: Send, headers: str = "") -> AsyncIterator[ApiClient]:
    """Yield a client of a server whose responses ``send`` writes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}\r\n".encode())
        with suppress(ConnectionError):
            await send(writer)

    async with serving(answer) as address:
        client = ApiClient(Credentials(master=f"http://{address}"))
        await client.open()
        try:
            yield client
        finally:
            await client.close()


async def test_a_list_is_read_page_by_page(api, client):
    api.has_watch_cache = False
    for n in range(7):
        api.put(service(f"web-{n}"))
    items: list[bytes] = []
    query = {"limit": "3", "resourceVersion": "0"}
    assert await read_whole(client, SERVICES, query, items.extend) is None
    assert [json.loads(item)["metadata"]["name"] for item in items] == [
        f"web-{n}" for n in range(7)
    ]
    assert [line.partition("?")[2].partition("&")[0] for line in api.requests] == ["limit=3"] * 3
    assert ["resourceVersion" in line for line in api.requests] == [True, False, False]


async def test_an_error_response_to_a_list_request_is_returned(api, client):
    api.refuse("services", 403, message="no", times=2)
    for read in (read_page, read_whole):
        page = await read(client, SERVICES, {}, pytest.fail)
        assert isinstance(page, Response)
        assert page.code == 403


async def test_items_are_delivered_before_the_end_of_a_list_in_turns_of_the_event_loop():
    item = b'{"x":"' + b"y" * 10_000 + b'"}'
    taken: list[Sequence[bytes]] = []
    turns: list[float] = []
    are_taken = asyncio.Event()

    def take(items: Sequence[bytes]) -> None:
        taken.append(items)
        # The last item may not be complete yet.
        if sum(map(len, taken)) >= 99:
            are_taken.set()

    async def pause(seconds: float) -> None:
        turns.append(seconds)
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"items":[' + b",".join([item] * 100) + b",")
        await are_taken.wait()
        writer.write(item + b'],"metadata":{"resourceVersion":"7"}}')

    async with server(send) as client:
        page = await read_page(client, SERVICES, {}, take, pause=pause)
    assert not isinstance(page, Response)
    assert page.resource_version == "7"
    assert sum(map(len, taken)) == 101
    assert all(sum(map(len, items[:-1])) < BATCH_BYTES for items in taken)
    assert len(turns) >= len(taken)


async def test_an_endless_list_times_out():
    async def send(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.001)  # noqa: TID251 - drips

    async with server(send) as client:
        with pytest.raises(TransportError, match=r"a list isn't complete after 0\.1 s"):
            await read_whole(client, SERVICES, {}, pytest.fail, within_s=0.1)


async def test_a_stalled_list_times_out_early(monkeypatch):
    monkeypatch.setattr(module, "RESPONSE_S", 0.01)
    done = asyncio.Event()

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"items":[')
        await writer.drain()
        await done.wait()

    async with server(send) as client:
        with pytest.raises(TransportError, match=r"nothing more within 0\.01 s"):
            await read_page(client, SERVICES, {}, pytest.fail)
        # From Python 3.12 on, closing the server waits for its connections.
        done.set()


async def test_a_gzip_response_is_never_held_in_memory_completely():
    """A list with one value that is too large is rejected before it is decompressed."""
    body = gzip.compress(b'{"items":["' + b"x" * (64 << 20) + b'"]}')
    sizes = []

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(body)
        await writer.drain()

    async with server(send, "Content-Encoding: gzip\r\n") as client:
        async with client.stream(SERVICES, {}) as stream:
            while chunk := await stream.read(silence_s=10):
                sizes.append(len(chunk))
        with pytest.raises(FieldError, match="longer than"):
            await read_page(client, SERVICES, {}, pytest.fail)
        with pytest.raises(TransportError, match="larger than 16 MiB"):
            await client.get(SERVICES, {})
    assert sum(sizes) > 64 << 20
    assert max(sizes) <= 1 << 20
