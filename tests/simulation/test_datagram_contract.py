"""Behaviour of datagram sockets that the data plane relies on, for both kernels."""

from __future__ import annotations

import _socket
import errno
import select
from typing import Any

import pytest

from userspace_proxy.kernel.socket_options import (
    ANCILLARY_BYTES,
    Destinations,
    hops_left,
    keep_icmp_errors,
    packets_lost,
    take_icmp_errors,
)

from .systems import System
from .test_kernel_contract import error_of, pending

IN, OUT, ERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR


@pytest.fixture(
    autouse=True, params=[_socket.AF_INET, _socket.AF_INET6], ids=["of-ipv4", "of-ipv6"]
)
def family(system: System, request: pytest.FixtureRequest) -> None:
    """Run the test with sockets of each family."""
    system.family = request.param


def connected(system: System, address: Any) -> Any:
    sock = system.socket(_socket.SOCK_DGRAM)
    assert sock.connect_ex(address) == 0
    return sock


def receive(sock: Any) -> Any:
    """Return the result of recvmsg_into, with the payload instead of its length."""
    buffer = memoryview(bytearray(1000))
    count, ancillary, _, source = sock.recvmsg_into([buffer], ANCILLARY_BYTES)
    return bytes(buffer[:count]), ancillary, source


def test_a_datagram_arrives_with_its_source_and_hop_limit(system: System) -> None:
    server, address = system.receiver()
    client = connected(system, address)
    assert client.send(b"abc") == 3
    system.until(lambda: system.events_of(server) & IN)
    payload, ancillary, source = receive(server)
    assert (payload, source) == (b"abc", client.getsockname())
    assert hops_left(ancillary[-1]) == 64
    assert error_of(receive, server) == errno.EAGAIN


def test_a_reply_reaches_the_connected_socket(system: System) -> None:
    server, address = system.receiver()
    client = connected(system, address)
    client.send(b"question")
    system.until(lambda: system.events_of(server) & IN)
    server.sendto(b"answer", receive(server)[2])
    system.until(lambda: system.events_of(client) & IN)
    buffer = bytearray(100)
    assert client.recv_into(buffer) == len(b"answer")


def test_a_reply_is_sent_from_the_address_the_datagram_was_sent_to(system: System) -> None:
    server, address = system.receiver(is_wildcard=True)
    client = connected(system, address)
    client.send(b"question")
    system.until(lambda: system.events_of(server) & IN)
    _, ancillary, source = receive(server)
    assert hops_left(ancillary[-1]) == 64
    server.sendmsg([b"answer"], Destinations().of(ancillary).reply, 0, source)
    system.until(lambda: system.events_of(client) & IN)
    assert client.recv_into(bytearray(100)) == len(b"answer")


def test_a_refusal_is_reported_once_by_the_next_call(system: System) -> None:
    client = connected(system, system.refusing_address())
    client.send(b"abc")
    system.until(lambda: system.events_of(client) & ERR)
    assert system.events_of(client) == OUT | ERR
    assert error_of(client.send, b"def") == errno.ECONNREFUSED
    assert pending(client) == 0


def test_a_read_reports_a_refusal(system: System) -> None:
    client = connected(system, system.refusing_address())
    client.send(b"abc")
    system.until(lambda: system.events_of(client) & ERR)
    assert error_of(client.recv_into, bytearray(9)) == errno.ECONNREFUSED
    assert error_of(client.recv_into, bytearray(9)) == errno.EAGAIN


def test_a_full_receive_queue_drops_and_counts_datagrams(system: System) -> None:
    server, address = system.receiver()
    client = connected(system, address)
    before = packets_lost(server)
    for _ in range(400):
        client.send(bytes(200))
    system.settle()
    received = 0
    while not error_of(receive, server):
        received += 1
    assert 0 < received < 400
    assert packets_lost(server) - before == 400 - received


def test_with_recverr_an_error_is_queued_until_read(system: System) -> None:
    client = connected(system, system.refusing_address())
    keep_icmp_errors(client)
    client.send(b"abc")
    system.until(lambda: system.events_of(client) & ERR)
    assert error_of(client.recv_into, bytearray(9)) == errno.ECONNREFUSED
    assert system.events_of(client) == OUT | ERR, "the call emptied the error queue"
    assert take_icmp_errors(client) == errno.ECONNREFUSED
    assert (take_icmp_errors(client), pending(client)) == (None, 0)
    assert system.events_of(client) == OUT


def test_an_error_read_from_the_queue_is_not_reported_by_later_calls(system: System) -> None:
    client = connected(system, system.refusing_address())
    keep_icmp_errors(client)
    client.send(b"abc")
    system.until(lambda: system.events_of(client) & ERR)
    assert take_icmp_errors(client) == errno.ECONNREFUSED
    assert error_of(client.recv_into, bytearray(9)) == errno.EAGAIN
