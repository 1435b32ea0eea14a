"""UDP ports that are reserved by a socket that receives nothing."""

import contextlib
import socket

import pytest

from userspace_proxy.dataplane.port_reservation import hold_port, share
from userspace_proxy.model import SocketAddress

WAIT_S = 10.0
ADDRESSES = ["127.0.0.1", "0.0.0.0", "::1", "::"]
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def new_socket(ip):
    return socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)


@pytest.fixture(params=ADDRESSES)
def held(request):
    """An address whose port only the reservation holds."""
    ip = request.param
    with new_socket(ip) as before:
        before.bind((ip, 0))
        at = SocketAddress(ip, before.getsockname()[1])
        hold = hold_port(at, [before])
    assert hold is not None
    with hold:
        yield at


def test_a_reserved_port_refuses_clients(held):
    at = (LOOPBACK.get(held.ip, held.ip), held.port)
    for _ in range(3):
        with new_socket(held.ip) as client:
            client.settimeout(WAIT_S)
            client.connect(at)
            client.send(b"hello")
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)


def test_another_program_cannot_bind_a_reserved_port(held):
    for ip in (held.ip, LOOPBACK.get(held.ip, held.ip)):
        with new_socket(ip) as thief, pytest.raises(OSError, match="in use"):
            thief.bind((ip, held.port))


def test_sockets_that_share_a_reserved_port_receive_all_datagrams(held):
    at = (LOOPBACK.get(held.ip, held.ip), held.port)
    with contextlib.ExitStack() as stack:
        serving = [stack.enter_context(new_socket(held.ip)) for _ in range(2)]
        for sock in serving:
            sock.settimeout(WAIT_S)
            share(sock, is_shared=True)
            sock.bind(tuple(held))
        clients = [stack.enter_context(new_socket(held.ip)) for _ in range(40)]
        for client in clients:
            client.sendto(b"hello", at)
        got = dict.fromkeys(serving, 0)
        for sock in serving:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while sock.recv(100):
                    got[sock] += 1
    assert sum(got.values()) == 40
    assert all(got.values()), "the kernel spreads clients over both"


def test_a_port_used_by_another_program_cannot_be_reserved():
    with new_socket("127.0.0.1") as other:
        other.bind(("127.0.0.1", 0))
        assert hold_port(SocketAddress(*other.getsockname()), []) is None
