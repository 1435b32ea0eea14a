"""Datagrams with faults."""

import asyncio
import contextlib
import socket

import pytest

from userspace_proxy.faults.datagrams import FaultDatagrams
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.toxics import UDP_TYPES, read_toxic

from .rig import PATIENCE_S


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


class Client(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.received.put_nowait(data)


@contextlib.asynccontextmanager
async def faulty(*toxics):
    """Yield a function that sends datagrams and returns the replies to as many as are given."""
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    faults = FaultDatagrams(SocketAddress(*server.get_extra_info("sockname")), seed=1)
    faults.set_toxics(
        [
            read_toxic(given.pop("type_"), given, stream=stream, types=UDP_TYPES)
            for stream, given in toxics
        ]
    )
    transport, client = await loop.create_datagram_endpoint(Client, remote_addr=faults.address)

    async def send(*datagrams, replies):
        for datagram in datagrams:
            transport.sendto(datagram)
        async with asyncio.timeout(PATIENCE_S):
            return [await client.received.get() for _ in range(replies)]

    try:
        yield send
    finally:
        transport.close()
        server.close()
        faults.close()
        faults.close()


async def test_without_toxics_datagrams_and_replies_are_passed_on():
    async with faulty() as send:
        assert await send(b"1", b"2", replies=2) == [b"1", b"2"]


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
async def test_all_are_lost(stream):
    async with faulty((stream, {"type_": "loss", "percent": 100})) as send:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await send(b"1", replies=1)


async def test_some_are_lost_and_always_the_same():
    async with faulty(("upstream", {"type_": "loss", "percent": 50})) as send:
        first = await send(*[b"%d" % n for n in range(40)], replies=10)
    async with faulty(("upstream", {"type_": "loss", "percent": 50})) as send:
        assert await send(*[b"%d" % n for n in range(40)], replies=10) == first
    assert first != [b"%d" % n for n in range(10)]


async def test_one_arrives_behind_the_next():
    async with faulty(("upstream", {"type_": "reorder", "percent": 100})) as send:
        assert await send(b"1", b"2", b"3", b"4", replies=4) == [b"2", b"1", b"4", b"3"]


async def test_latency_delays_each():
    async with faulty(("downstream", {"type_": "latency", "latency": 60})) as send:
        began = asyncio.get_running_loop().time()
        assert await send(b"1", b"2", replies=2) == [b"1", b"2"]
        assert asyncio.get_running_loop().time() - began >= 0.06


async def test_an_endpoint_that_refuses_ends_nothing():
    with socket.socket(type=socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        dead = SocketAddress(*gone.getsockname())
    faults = FaultDatagrams(dead)
    transport, client = await asyncio.get_running_loop().create_datagram_endpoint(
        Client, remote_addr=faults.address
    )
    for _ in range(3):
        transport.sendto(b"x")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await client.received.get()
    assert client.received.empty()
    transport.close()
    faults.close()
