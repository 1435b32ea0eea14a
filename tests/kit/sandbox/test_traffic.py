import argparse
import asyncio
import contextlib
import socket

import pytest

from tests.tcp_servers import serving
from userspace_proxy_testing.sandbox.traffic import Target, request, request_all, target


@pytest.fixture
def dead_port():
    """A port on which the kernel refuses TCP and UDP clients."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        # A connected UDP socket refuses other clients.
        udp.bind(tcp.getsockname())
        udp.connect(("127.0.0.1", 9))
        yield tcp.getsockname()[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("http://10.96.0.10/=12", Target("http", "10.96.0.10", 80, 12.0), id="http"),
        ("http://10.96.0.10:8080/=0.5", Target("http", "10.96.0.10", 8080, 0.5)),
        pytest.param("udp://10.96.0.53:53=4", Target("udp", "10.96.0.53", 53, 4.0), id="udp"),
    ],
)
def test_a_target_is_parsed_as_a_url_and_a_rate(text, expected):
    assert target(text) == expected


@pytest.mark.parametrize(
    "text",
    ["http://10.96.0.10/", "https://a/=1", "http://a/=0", "http://a/=x", "http://a:b/=1", "=1"],
)
def test_an_invalid_target_is_rejected(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not http://HOST"):
        target(text)


def test_the_request_rate_oscillates_around_its_average():
    to = Target("http", "10.96.0.10", 80, 10.0)
    rates = [1 / to.pause_s(float(second), phase=1.0) for second in range(60)]
    assert sum(rates) / 60 == pytest.approx(10.0)
    assert (min(rates), max(rates)) == (pytest.approx(4.0, abs=0.1), pytest.approx(16.0, abs=0.1))


def counting(answered):
    """Serve HTTP in an ``async with`` block, and count the requests."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        answered.release()

    return serving(answer)


class Echo(asyncio.DatagramProtocol):
    """Returns datagrams, and counts them."""

    def __init__(self, answered):
        self.answered = answered

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)
        self.answered.release()


@contextlib.asynccontextmanager
async def requesting(*targets):
    task = asyncio.create_task(request_all(targets))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_targets_are_requested_repeatedly():
    web, dns = asyncio.Semaphore(0), asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Echo(dns), local_addr=("127.0.0.1", 0)
    )
    async with counting(web) as address:
        to_web = Target("http", *address, 200.0)
        to_dns = Target("udp", *transport.get_extra_info("sockname"), 200.0)
        async with asyncio.timeout(60), requesting(to_web, to_dns):
            for _ in range(3):
                await web.acquire()
                await dns.acquire()
    transport.close()


@pytest.mark.parametrize("protocol", ["http", "udp"])
async def test_a_refused_request_is_not_an_error(protocol, dead_port):
    async with asyncio.timeout(60):
        assert await request(Target(protocol, "127.0.0.1", dead_port, 1.0)) is None


async def test_a_failing_target_does_not_stop_other_targets(dead_port):
    answered = asyncio.Semaphore(0)
    async with counting(answered) as address:
        dead = Target("http", "127.0.0.1", dead_port, 200.0)
        alive = Target("http", *address, 200.0)
        async with asyncio.timeout(60), requesting(dead, alive):
            for _ in range(3):
                await answered.acquire()
