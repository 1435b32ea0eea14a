"""The refuse port is reserved, and refuses every client."""

import socket

import pytest

from userspace_proxy.agent import refuse
from userspace_proxy.agent.refuse import RefusePort
from userspace_proxy.errors import ListenError


@pytest.fixture
def refuse_port():
    port = RefusePort()
    yield port
    port.close()


def test_the_highest_free_port_is_reserved_and_no_other_program_can_bind_it(refuse_port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        last = taken.getsockname()[1]
        number = refuse_port.open(last - 200, last)
    assert last - 200 <= number < last
    assert number == refuse_port.number
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", number)).close()


def test_a_client_that_dials_it_is_refused(refuse_port):
    number = refuse_port.open(29000, 29999)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number), timeout=60)


def test_if_other_programs_use_the_whole_range_a_port_elsewhere_is_reserved(refuse_port):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        number = refuse_port.open(port, port)
    assert number != port
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", number)).close()


def test_a_node_without_a_free_port_is_an_error_with_a_remedy(refuse_port, monkeypatch):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(refuse, "_ELSEWHERE", range(port, port + 1))
        with pytest.raises(ListenError, match=f"{port}-{port} and of {port}-{port} is in use"):
            refuse_port.open(port, port)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
@pytest.mark.parametrize(
    ("family", "ip"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")],
    ids=["ipv4", "ipv6"],
)
def test_it_is_reserved_for_both_protocols_and_families_until_it_is_closed(
    refuse_port, family, kind, ip
):
    number = refuse_port.open(29000, 29999)
    with socket.socket(family, kind) as sock:
        with pytest.raises(OSError, match="in use"):
            sock.bind((ip, number))
        refuse_port.close()
        sock.bind((ip, number))


def test_a_datagram_to_it_is_refused(refuse_port):
    number = refuse_port.open(29000, 29999)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.connect(("127.0.0.1", number))
        client.send(b"question")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
