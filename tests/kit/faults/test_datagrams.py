"""Faults of datagrams."""

import asyncio
import contextlib

import pytest

from tests.descriptors import descriptors_left
from tests.unit.dataplane.waiting import until
from tests.unit.port_numbers import free_port
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy_testing.faults import datagrams
from userspace_proxy_testing.faults.datagrams import FaultDatagrams
from userspace_proxy_testing.faults.toxics import UDP_TYPES, read_toxic

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
async def faulty(*toxics, host="127.0.0.1"):
    """Yield a function that sends datagrams and returns the given number of replies."""
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=(host, 0))
    faults = FaultDatagrams(SocketAddress(*server.get_extra_info("sockname")[:2]), seed=1)
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


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_and_replies_are_forwarded_without_toxics(host):
    async with faulty(host=host) as send:
        assert await send(b"1", b"2", replies=2) == [b"1", b"2"]


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
async def test_a_loss_of_100_percent_drops_all_datagrams(stream):
    async with faulty((stream, {"type_": "loss", "percent": 100})) as send:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await send(b"1", replies=1)


async def test_a_partial_loss_drops_the_same_datagrams_in_each_run():
    async with faulty(("upstream", {"type_": "loss", "percent": 50})) as send:
        first = await send(*[b"%d" % n for n in range(40)], replies=10)
    async with faulty(("upstream", {"type_": "loss", "percent": 50})) as send:
        assert await send(*[b"%d" % n for n in range(40)], replies=10) == first
    assert first != [b"%d" % n for n in range(10)]


async def test_losses_in_one_direction_do_not_depend_on_toxics_in_the_other():
    loss = {"type_": "loss", "percent": 50}

    async def lost(*toxics):
        async with faulty(*toxics) as send:
            return await send(*[b"%d" % n for n in range(40)], replies=5)

    both = await lost(("downstream", {**loss}), ("upstream", {"type_": "latency"}))
    assert await lost(("downstream", {**loss})) == both


async def test_a_reordered_datagram_arrives_after_the_next_datagram():
    async with faulty(("upstream", {"type_": "reorder", "percent": 100})) as send:
        assert await send(b"1", b"2", b"3", b"4", replies=4) == [b"2", b"1", b"4", b"3"]


async def test_latency_delays_each_datagram():
    async with faulty(("downstream", {"type_": "latency", "latency": 60})) as send:
        began = asyncio.get_running_loop().time()
        assert await send(b"1", b"2", replies=2) == [b"1", b"2"]
        assert asyncio.get_running_loop().time() - began >= 0.06


@contextlib.asynccontextmanager
async def echoing(**settings):
    """Yield a fault server for an echo server, and a function that exchanges a datagram."""
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        faults = FaultDatagrams(SocketAddress(*server.get_extra_info("sockname")), **settings)
        stack.callback(faults.close)

        async def exchange(transport=None):
            transport, client = transport or await loop.create_datagram_endpoint(
                Client, remote_addr=faults.address
            )
            stack.callback(transport.close)
            transport.sendto(b"1")
            async with asyncio.timeout(PATIENCE_S):
                assert await client.received.get() == b"1"
            return transport, client

        yield faults, exchange


async def test_an_idle_flow_is_closed_and_its_client_starts_a_new_flow():
    async with echoing(idle_s=0.05) as (faults, exchange):
        client = await exchange()
        flows = []
        for _ in range(2):
            flows += faults._flows.values()
            await until(lambda: not faults._flows, "the end of the flow")
            assert [flow._socket.fileno() for flow in flows] == [-1] * len(flows)
            await exchange(client)


async def test_closing_cancels_the_expiry_of_idle_flows():
    async with echoing() as (faults, exchange):
        await exchange()
        faults.close()
        assert faults._expiry.cancelled()


async def test_a_flow_in_use_is_not_closed():
    async with echoing() as (faults, exchange):
        client = await exchange()
        (flow,) = faults._flows.values()
        flow.used -= 1000.0
        faults._use(client[0].get_extra_info("sockname"))
        faults._expire()
        assert [*faults._flows.values()] == [flow]


async def test_at_the_limit_the_longest_idle_flow_is_closed(monkeypatch):
    monkeypatch.setattr(datagrams, "_FLOWS_MAX", 2)
    async with echoing() as (faults, exchange):
        first, second = await exchange(), await exchange()
        await exchange(first)
        third = await exchange()
        assert list(faults._flows) == [
            client.get_extra_info("sockname") for client, _ in (first, third)
        ]
        await exchange(second)


async def test_a_datagram_is_lost_when_descriptors_are_exhausted():
    async with echoing() as (faults, exchange):
        client = await exchange()
        faults._end_first()
        with descriptors_left(0):
            client[0].sendto(b"lost")
            faults._receive()
        assert not faults._flows
        await exchange(client)


async def test_a_client_of_a_refusing_endpoint_receives_nothing():
    faults = FaultDatagrams(SocketAddress("127.0.0.1", free_port(Protocol.UDP)))
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
