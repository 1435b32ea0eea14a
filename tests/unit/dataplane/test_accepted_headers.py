"""PROXY headers: read from trusted peers and sent to endpoints."""

import contextlib
import logging
import socket
import sys

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.accepted_headers import _MAX_KNOWN, HEADER_S
from userspace_proxy.dataplane.connection_log import LOGGER
from userspace_proxy.facts import ClientMistake
from userspace_proxy.model import Handling, ProxyProtocol

from .rig import connection_lines, out_of_watches
from .waiters import HOLD, count_waiting
from .waiting import turns, until

V1, V2 = ProxyProtocol
TRUSTED = Tuning(proxy_protocol_from=("127.0.0.2/32",), connection_log=1.0)
HEADER = b"PROXY TCP4 198.51.100.9 203.0.113.7 40000 80\r\n"
PEER = "127.0.0.2"
# The offset of tcpi_data_segs_in in struct tcp_info (linux/tcp.h).
_SEGMENTS = slice(152, 156)


@pytest.fixture
async def rig(build, timers):
    return build(TRUSTED, timers.clock, timers)


@pytest.fixture
def pod(rig):
    return rig.endpoint()


@pytest.mark.parametrize("pieces", [1, 2, len(HEADER)])
async def test_a_trusted_peers_proxy_header_names_the_client(rig, pod, timers, caplog, pieces):
    caplog.set_level(logging.INFO, LOGGER)
    peer = await rig.client(rig.service(pod.address), source=PEER)
    size = -(-len(HEADER) // pieces)
    for first in range(0, len(HEADER), size):
        await peer.send(HEADER[first : first + size])
        await until(lambda: len(rig.connections.open) == 1)
    await peer.send(b"question")
    server = await pod.accept()
    assert await server.read() == b"question"
    (connection,) = rig.connections.open
    assert connection.client_ip == "198.51.100.9"
    assert not connection.may_preserve, "replies to it needn't return through this node"
    timers.advance(HEADER_S)
    server.close()
    peer.close()
    await until(lambda: connection_lines(caplog))
    (line,) = connection_lines(caplog)
    assert (line.client, line.frontend) == ("198.51.100.9:40000", "203.0.113.7:80")
    assert line.via.startswith("127.0.0.2:")
    assert (line.received_bytes, line.source, line.cause) == (8, "node", "complete")


async def test_the_peer_is_the_client_if_its_proxy_header_has_no_address(rig, pod):
    peer = await rig.client(rig.service(pod.address), source=PEER)
    await peer.send(b"PROXY UNKNOWN\r\nquestion")
    assert await (await pod.accept()).read() == b"question"
    (connection,) = rig.connections.open
    assert (connection.client_ip, connection.announced) == (PEER, None)


async def test_a_proxy_header_from_an_untrusted_peer_is_forwarded_as_data(rig, pod):
    client, server = await rig.pair(rig.service(pod.address), pod)
    await client.send(HEADER)
    assert await server.read() == HEADER


async def test_affinity_uses_the_announced_client_address(rig, pod):
    other = rig.endpoint()
    web = rig.service(pod.address, other.address, affinity_timeout_s=60)
    for _ in range(3):
        peer = await rig.client(web, source=PEER)
        await peer.send(HEADER)
        await pod.accept()
    assert other.accept_now() is None


async def refused(rig, peer, web, caplog, cause, others=0):
    assert await peer.was_reset()
    assert web.group.counters.bad_headers == 1
    mistake = web.group.client_mistakes[ClientMistake.NO_PROXY_HEADER]
    assert (mistake.part.failures, mistake.part.client) == (1, PEER)
    assert len(rig.connections.headers.deadlines) == others
    (line,) = connection_lines(caplog)
    assert (line.cause, line.ended_by, line.endpoint) == ("no PROXY header", "proxy", "")
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.getMessage().startswith(
        f"shop/web:http: reset a connection from {PEER} without a valid PROXY header: {cause} ("
    )


async def test_a_connection_without_a_proxy_header_is_reset_and_counted(rig, pod, caplog):
    caplog.set_level(logging.INFO)
    web = rig.service(pod.address)
    peer = await rig.client(web, source=PEER)
    await peer.send(b"GET / HTTP/1.1\r\n\r\n")
    await refused(rig, peer, web, caplog, "it begins with other bytes")
    assert pod.accept_now() is None


async def test_a_peer_that_closes_within_its_proxy_header_is_reset(rig, pod, caplog):
    caplog.set_level(logging.INFO)
    web = rig.service(pod.address)
    peer = await rig.client(web, source=PEER)
    await peer.send(HEADER[:20])
    await until(lambda: len(rig.connections.headers.deadlines) == 1)
    peer.finish()
    await refused(rig, peer, web, caplog, "the connection ended before the header was complete")


async def test_a_port_check_that_sends_no_byte_is_not_reported(rig, pod, caplog):
    web = rig.service(pod.address)
    peer = await rig.client(web, source=PEER)
    peer.finish()
    assert await peer.was_reset()
    assert (web.group.counters.bad_headers, web.group.client_mistakes) == (0, {})
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_bytes_of_a_proxy_header_do_not_extend_its_deadline(rig, pod, timers, caplog):
    caplog.set_level(logging.INFO)
    web = rig.service(pod.address)
    peer = await rig.client(web, source=PEER)
    await until(lambda: len(rig.connections.headers.deadlines) == 1)
    for number in range(5):
        await peer.send(HEADER[number : number + 1])
        await turns(5)
        timers.advance(HEADER_S / 5 - 0.01)
    assert len(rig.connections.open) == 1
    timers.advance(0.1)
    await refused(rig, peer, web, caplog, "none within 5 s")


async def test_bytes_after_a_proxy_header_reach_the_endpoint_that_the_client_waited_for(rig, pod):
    web = rig.service(**HOLD)
    peer = await rig.client(web, source=PEER)
    await peer.send(HEADER + b"question")
    await until(lambda: count_waiting(web) == 1)
    rig.update(web, pod.address, **HOLD)
    assert await (await pod.accept()).read() == b"question"
    (connection,) = rig.connections.open
    assert connection.client_ip == "198.51.100.9"


async def test_a_reset_within_a_proxy_header_is_attributed_to_the_client(rig, pod, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    peer = await rig.client(rig.service(pod.address), source=PEER)
    await until(lambda: len(rig.connections.headers.deadlines) == 1)
    peer.reset()
    await until(lambda: connection_lines(caplog))
    assert [(line.cause, line.ended_by) for line in connection_lines(caplog)] == [
        ("reset", "client")
    ]
    assert len(rig.connections.headers.deadlines) == 0


@pytest.mark.pure
async def test_a_peer_that_epoll_rejects_is_refused_and_counted_as_a_shortage(
    rig, pod, monkeypatch
):
    web = rig.service(pod.address)

    monkeypatch.setattr(rig.engine.reactor, "watch", out_of_watches)
    counters = web.group.counters
    with contextlib.suppress(ConnectionResetError):
        await rig.client(web, source=PEER)
    await until(lambda: counters.shortages)
    assert (counters.refused, counters.shortages, counters.bad_headers) == (1, 1, 0)


async def test_the_cache_of_peers_is_bounded_and_a_trusted_peers_header_is_still_expected(rig, pod):
    headers = rig.connections.headers
    for number in range(2 * _MAX_KNOWN):
        assert not headers.expects_one_from(f"10.0.{number >> 8}.{number & 255}")
        assert len(headers._known) <= _MAX_KNOWN
    assert headers.expects_one_from(PEER)


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        pytest.param(
            b"PROXY TCP4 " + b"x" * 2 * 107, "no end of line within 107 bytes", id="version-1"
        ),
        pytest.param(
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + (8192 - 16).to_bytes(2) + bytes(8192 - 16),
            "it has 8192 bytes, more than 4096",
            id="version-2",
        ),
    ],
)
async def test_a_peer_with_an_oversized_proxy_header_is_reset_and_other_peers_are_served(
    rig, pod, caplog, header, cause
):
    caplog.set_level(logging.INFO)
    web = rig.service(pod.address)
    peer, other = await rig.client(web, source=PEER), await rig.client(web, source=PEER)
    await until(lambda: len(rig.connections.headers.deadlines) == 2)
    peer.send_some(header)
    await refused(rig, peer, web, caplog, cause, others=1)
    await other.send(HEADER + b"question")
    assert await (await pod.accept()).read() == b"question"


class TestSending:
    """Headers that are sent to endpoints."""

    @pytest.fixture
    async def rig(self, build):
        return build(TRUSTED)

    @pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
    async def test_an_endpoint_receives_the_proxy_header_before_the_clients_bytes(self, rig, ip):
        pod = rig.endpoint(ip)
        web = rig.service(pod.address, at=ip, handling=Handling(proxy_protocol=V1))
        client, server = await rig.pair(web, pod)
        own, at = client.address, web.address
        header = f"PROXY TCP{4 if ip == '127.0.0.1' else 6} {ip} {ip} {own.port} {at.port}\r\n"
        assert await server.read() == header.encode(), "a server may send first"
        await client.send(b"question")
        assert await server.read() == b"question"
        await server.send(b"answer")
        assert await client.read() == b"answer"

    async def test_a_proxy_header_is_sent_together_with_the_clients_bytes(self, rig):
        pod = rig.endpoint()
        handling = Handling(proxy_protocol=V2)
        web = rig.service(rig.silent(), pod.address, handling=handling)
        web.group.label = "shop/web:http (external)"
        client = await rig.client(web)
        await client.send(b"question")
        server = await pod.accept()
        data = await server.read()
        info = server.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
        assert int.from_bytes(info[_SEGMENTS], sys.byteorder) == 1
        assert data.endswith(b"\xe5\0\rshop/web:httpquestion")
        rig.settle()
        assert web.group.totals().received_bytes == 8

    async def test_the_announced_client_and_frontend_are_sent_to_the_endpoint(self, rig):
        pod = rig.endpoint()
        web = rig.service(pod.address, handling=Handling(proxy_protocol=V1))
        peer = await rig.client(web, source=PEER)
        await peer.send(HEADER + b"question")
        assert await (await pod.accept()).read() == HEADER + b"question"

    async def test_a_large_first_message_follows_the_proxy_header(self, rig):
        pod = rig.endpoint()
        web = rig.service(rig.silent(), pod.address, handling=Handling(proxy_protocol=V1))
        client = await rig.client(web)
        message = bytes(range(256)) * 1024
        sent = client.send_some(message)
        server = await pod.accept()
        header, _, rest = (await server.read_exactly(sent)).partition(b"\r\n")
        assert header.startswith(b"PROXY TCP4 127.0.0.1 ")
        assert message.startswith(rest)
