"""Tests of queries to real DNS servers on loopback."""

import asyncio
import socket
import struct

import pytest

from userspace_proxy.lookup.dns_client import ask_by_tcp, ask_by_udp, ask_for_addresses
from userspace_proxy.lookup.dns_wire import AddressAnswer, MalformedMessage, make_query
from userspace_proxy.model import SocketAddress

from .servers import serving

QUERY = make_query(4711, "db.example.com", "A")
WAIT_S = 60.0


def answer(*ips, is_truncated=False, number=4711):
    """Return a response with a record for each address."""
    flags = 0x8380 if is_truncated else 0x8180
    records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 30, 4) + socket.inet_aton(ip) for ip in ips]
    head = struct.pack(">HHHHHH", number, flags, 1, len(records), 0, 0)
    return head + QUERY.question + b"".join(records)


def answering(by_udp, by_tcp=None, **options):
    """Serve a fixed response for each protocol during a block; see ``serving``."""
    return serving(lambda _wire, *, is_udp: by_udp if is_udp else by_tcp, **options)


async def test_a_truncated_response_with_an_address_is_sufficient():
    async with answering(answer("203.0.113.1", is_truncated=True)) as address:
        found = await ask_for_addresses(address, QUERY, WAIT_S)
    assert found == AddressAnswer(0, ("203.0.113.1",), 30)


@pytest.mark.parametrize(
    "by_udp",
    [
        pytest.param(answer(is_truncated=True), id="without-a-record"),
        pytest.param(answer("203.0.113.1", is_truncated=True)[:-1], id="record-cut"),
    ],
)
async def test_a_truncated_response_without_a_complete_address_is_requested_again_over_tcp(by_udp):
    async with answering(by_udp, answer("203.0.113.2")) as address:
        found = await ask_for_addresses(address, QUERY, WAIT_S)
    assert found.addresses == ("203.0.113.2",)


async def test_an_oversized_response_is_an_error_with_both_sizes():
    async with answering(answer(is_truncated=True), answer() + bytes(9000)) as address:
        with pytest.raises(MalformedMessage, match=r"has 9,032 bytes, and 8,192 are read"):
            await ask_for_addresses(address, QUERY, WAIT_S)


async def test_a_tcp_response_with_another_id_is_rejected():
    async with answering(b"", answer(number=1)) as address:
        with pytest.raises(MalformedMessage, match="another question"):
            await ask_by_tcp(address, QUERY, WAIT_S)


@pytest.fixture
async def datagrams():
    """A server's socket, from which the test sends datagrams to the client."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


async def send_all(sock, *wires):
    loop = asyncio.get_running_loop()
    received, client = await loop.sock_recvfrom(sock, 600)
    assert received == QUERY.wire
    for wire in wires:
        sock.sendto(wire, client)


async def test_unrelated_datagrams_are_skipped(datagrams):
    sent = send_all(datagrams, b"x", answer(number=1), answer("203.0.113.1"))
    asked = ask_by_udp(SocketAddress(*datagrams.getsockname()), QUERY, WAIT_S)
    found, _ = await asyncio.gather(asked, sent)
    assert found == answer("203.0.113.1")


async def test_a_server_sending_only_unrelated_datagrams_is_an_error(datagrams):
    asked = ask_by_udp(SocketAddress(*datagrams.getsockname()), QUERY, WAIT_S)
    with pytest.raises(MalformedMessage, match="another question"):
        await asyncio.gather(asked, send_all(datagrams, *[b"x"] * 100))


async def test_an_unreachable_dns_server_is_an_error():
    with pytest.raises(OSError, match="refused"):
        await ask_by_udp(SocketAddress("127.0.0.1", 1), QUERY, WAIT_S)


async def test_a_dns_server_with_an_ipv6_address_can_be_queried():
    async with answering(answer(), ip="::1") as address:
        assert await ask_by_udp(address, QUERY, WAIT_S) == answer()
