"""The refuse port is kept from everybody, and answers nobody."""

import socket

import pytest

from userspace_proxy.agent.refuse import RefusePort
from userspace_proxy.errors import ListenError


@pytest.fixture
def refuse_port():
    port = RefusePort()
    yield port
    port.close()


def test_the_highest_free_port_is_reserved_and_nobody_else_can_have_it(refuse_port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        last = taken.getsockname()[1]
        number = refuse_port.open(last - 200, last)
    assert last - 200 <= number < last
    assert number == refuse_port.number
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", number)).close()


def test_who_dials_it_is_refused(refuse_port):
    number = refuse_port.open(29000, 29999)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number), timeout=5)


def test_a_range_without_a_free_port_is_an_error_with_the_way_out(refuse_port):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"{port}-{port} is in use .*--proxy-port-range"):
            refuse_port.open(port, port)
