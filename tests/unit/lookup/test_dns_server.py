"""Tests of a DNS server on a loopback port, over UDP and TCP."""

import asyncio
import contextlib
import socket
import struct

import pytest

from userspace_proxy.errors import ListenError
from userspace_proxy.lookup.dns_server import (
    _CONNECTIONS_MAX,
    ELSEWHERE_MAX,
    DnsServer,
    LastAnswer,
    check_address,
)
from userspace_proxy.model import SocketAddress

from ..kept import kept_by
from ..port_numbers import own_name
from .servers import serving

ANY = SocketAddress("127.0.0.1", 0)


def echo(data, *, is_udp):
    """Return the data and the protocol; delay ``later``, and reject ``refuse``."""
    answer = data + (b" udp" if is_udp else b" tcp") if data else None

    async def later():
        return answer

    if data.startswith(b"refuse"):
        return LastAnswer(b"no")
    return later if data == b"later" else answer


@pytest.fixture
async def address():
    async with serving(echo) as address:
        yield address


async def ask_udp(address, data):
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(tuple(address))
        await loop.sock_sendall(client, data)
        async with asyncio.timeout(60):
            return await loop.sock_recv(client, 512)


async def ask_tcp(reader, writer, data):
    writer.write(struct.pack(">H", len(data)) + data)
    async with asyncio.timeout(60):
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        return await reader.readexactly(length)


async def test_udp_queries_are_answered(address):
    assert await ask_udp(address, b"one") == b"one udp"


async def test_a_deferred_response_is_sent_once_it_is_complete(address):
    assert await ask_udp(address, b"later") == b"later udp"
    reader, writer = await asyncio.open_connection(*address)
    assert await ask_tcp(reader, writer, b"later") == b"later tcp"
    writer.close()


async def test_queries_waiting_for_an_upstream_server_do_not_delay_other_queries():
    asked, free = [], asyncio.Event()

    async def silent():
        asked.append(1)
        await free.wait()

    def respond(data, *, is_udp):
        return silent if data == b"elsewhere" else data

    async with serving(respond) as address:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            # Send batches of queries, because a socket's buffer holds a few hundred datagrams.
            for _ in range(3 * ELSEWHERE_MAX // 64):
                for _ in range(64):
                    client.sendto(b"elsewhere", tuple(address))
                assert await ask_udp(address, b"here") == b"here"
    assert len(asked) == ELSEWHERE_MAX


async def test_an_answered_forwarded_query_frees_its_slot(address):
    for _ in range(ELSEWHERE_MAX + 1):
        assert await ask_udp(address, b"later") == b"later udp"


async def test_a_connection_sending_unanswerable_bytes_is_closed(address):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"\0\0")
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()


async def test_a_connection_closed_without_a_response_leaves_no_state():
    server = DnsServer(lambda _data, *, is_udp: None)
    before = kept_by(server)
    reader, writer = await asyncio.open_connection(*await server.open(ANY))
    writer.write(b"\0\3one")
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
    await server.close()
    assert kept_by(server) == before


async def test_a_rejected_message_closes_the_connection_without_reading_more():
    seen = []

    def respond(data, *, is_udp):
        seen.append(data)
        return LastAnswer(b"no")

    server = DnsServer(respond)
    reader, writer = await asyncio.open_connection(*await server.open(ANY))
    # "PO" is a length of 20,559, and a browser controls the bytes after it.
    writer.write(b"POST / HTTP/1.1\r\n".ljust(2 + 0x504F) + b"\0\3one")
    async with asyncio.timeout(60):
        assert await reader.readexactly(4) == b"\0\2no"
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    assert [len(data) for data in seen] == [12]
    writer.close()
    await server.close()


async def test_a_rejected_datagram_is_answered_with_an_error(address):
    assert await ask_udp(address, b"refuse") == b"no"


@pytest.fixture
async def connect():
    """Yield a function that connects from a client address to the server."""
    opened = []

    async def connect(address, client="127.0.0.1"):
        opened.append(await asyncio.open_connection(*address, local_addr=(client, 0)))
        return opened[-1]

    yield connect
    for _, writer in opened:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def is_open(connection):
    """Return True if the server answers on a connection, False if it was closed."""
    try:
        return await ask_tcp(*connection, b"one") == b"one tcp"
    except (EOFError, ConnectionError):
        return False


async def test_at_the_limit_a_client_loses_its_own_longest_idle_connection(address, connect):
    opened = [await connect(address) for _ in range(_CONNECTIONS_MAX)]
    assert [await is_open(one) for one in [*opened, opened[0]]] == [True] * (_CONNECTIONS_MAX + 1)
    assert await is_open(await connect(address))
    assert [await is_open(one) for one in opened[:3]] == [True, False, True]


async def test_at_the_limit_a_connection_awaiting_its_response_stays_open(connect):
    asked, found = asyncio.Event(), asyncio.Event()

    async def forward():
        asked.set()
        await found.wait()
        return b"found"

    async with serving(
        lambda data, *, is_udp: forward if data == b"far" else b"one tcp"
    ) as address:
        opened = [await connect(address) for _ in range(_CONNECTIONS_MAX)]
        assert all([await is_open(one) for one in opened])
        asking = asyncio.ensure_future(ask_tcp(*opened[0], b"far"))
        await asked.wait()
        assert await is_open(await connect(address))
        found.set()
        assert await asking == b"found"
        assert not await is_open(opened[1])


async def test_a_client_holding_all_connections_does_not_block_other_clients(address, connect):
    opened = [await connect(address) for _ in range(_CONNECTIONS_MAX)]
    assert all([await is_open(one) for one in opened])
    others = [await connect(address, "127.0.0.2") for _ in range(3)]
    assert all([await is_open(one) for one in others])
    assert [await is_open(one) for one in opened[:4]] == [False, False, False, True]


async def test_a_new_client_is_served_at_the_connection_limit(address, connect):
    opened = [await connect(address, f"127.0.1.{i}") for i in range(1, _CONNECTIONS_MAX + 1)]
    assert all([await is_open(one) for one in opened])
    opened.append(await connect(address, "127.0.2.1"))
    assert await is_open(opened[-1])
    assert [await is_open(one) for one in opened[:3]] == [False, True, True]


async def test_one_tcp_response_is_built_per_turn_of_the_event_loop(connect):
    turn, turns = 0, []

    def respond(data, *, is_udp):
        turns.append(turn)
        return data

    # Runs once per iteration of the event loop.
    def count_turns():
        nonlocal turn
        turn += 1
        if len(turns) < 40:
            asyncio.get_running_loop().call_soon(count_turns)

    server = DnsServer(respond)
    address = await server.open(SocketAddress("127.0.0.1", 0))
    count_turns()
    connections = [await connect(address) for _ in range(4)]
    for _, writer in connections:
        writer.write(b"\0\1x" * 10)
    for reader, _ in connections:
        async with asyncio.timeout(60):
            assert await reader.readexactly(30) == b"\0\1x" * 10
    assert len(turns) == len(set(turns)) == 40
    await server.close()


async def test_a_half_closed_client_gets_the_complete_response(connect):
    server = DnsServer(lambda _data, *, is_udp: bytes(65535))
    address = await server.open(SocketAddress("127.0.0.1", 0))
    reader, writer = await connect(address)
    writer.write(b"\0\1x" * 50)
    writer.write_eof()
    async with asyncio.timeout(60):
        assert len(await reader.read(-1)) == 50 * 65537
    writer.close()
    await server.close()


async def test_a_datagram_without_a_response_does_not_affect_the_next_datagram(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"", tuple(address))
    assert await ask_udp(address, b"next") == b"next udp"


async def test_closing_the_server_closes_open_connections():
    server = DnsServer(echo)
    address = await server.open(SocketAddress("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection(*address)
    assert await ask_tcp(reader, writer, b"one") == b"one tcp"
    await server.close()
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
    await server.close()


async def test_an_address_in_use_is_an_error_with_a_remedy(address):
    with pytest.raises(ListenError) as caught:
        await DnsServer(echo).open(address)
    assert str(caught.value) == (
        f"cannot serve DNS on {address}: Address already in use by {own_name()} "
        "(choose another address with --dns-bind-address)"
    )


async def test_a_program_on_the_same_port_of_another_address_is_not_named():
    with socket.socket() as taken, socket.socket() as other:
        # The first socket holds the address, but isn't named, because it doesn't listen.
        taken.bind(("127.0.0.3", 0))
        address = SocketAddress(*taken.getsockname())
        other.bind(("127.0.0.4", address.port))
        other.listen()
        with pytest.raises(ListenError, match=r"Address already in use \(choose"):
            await DnsServer(echo).open(address)
        taken.listen()
        with pytest.raises(ListenError, match=r"Address already in use by .*pid"):
            await DnsServer(echo).open(address)


async def test_an_address_in_use_given_by_host_name_is_an_error_without_its_holder(address):
    with pytest.raises(ListenError, match=r"Address already in use \(choose"):
        await DnsServer(echo).open(SocketAddress("localhost", address.port))


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_check_address_reports_an_address_that_cannot_be_opened(kind):
    check_address(SocketAddress("127.0.0.1", 0), may_be_in_use=False)
    with socket.socket(socket.AF_INET, kind) as used:
        used.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            used.listen()
        address = SocketAddress(*used.getsockname())
        check_address(address, may_be_in_use=True)
        with pytest.raises(ListenError, match=r"Address already in use by .*pid"):
            check_address(address, may_be_in_use=False)
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:53: Cannot assign requested address"):
        check_address(SocketAddress("192.0.2.1", 53), may_be_in_use=True)


async def test_connections_closed_at_the_limit_are_not_logged(address, connect):
    # Since Python 3.12, asyncio itself doesn't log such connections.
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
    opened = [await connect(address) for _ in range(_CONNECTIONS_MAX)]
    assert await is_open(await connect(address))
    assert not await is_open(opened[0])
    assert reported == []
