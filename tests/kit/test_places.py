import errno
import socket

import pytest

from userspace_proxy.model import SocketAddress
from userspace_proxy_testing.places import BackendPlace, family_of

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
@pytest.mark.parametrize("type_", [TCP, UDP])
def test_its_sockets_have_its_address(host, type_):
    place = BackendPlace(host)
    with place.bind(type_, place.address) as bound:
        assert bound.getsockname()[0] == host
        assert bound.getsockname()[1] > 0
        assert (bound.family, bound.type) == (family_of(host), type_)


def test_a_tcp_port_can_be_bound_again_at_once():
    place = BackendPlace()
    with place.bind(TCP, place.address) as listener, place.open_socket(TCP) as client:
        listener.listen()
        address = SocketAddress(*listener.getsockname())
        client.connect(address)
        # The side that closes first has the port in TIME_WAIT.
        listener.accept()[0].close()
    place.bind(TCP, address).close()


def test_an_address_that_is_in_use_is_an_error():
    place = BackendPlace()
    with place.bind(UDP, place.address) as bound, pytest.raises(OSError, match="in use") as caught:
        place.bind(UDP, SocketAddress(*bound.getsockname()))
    assert caught.value.errno == errno.EADDRINUSE


def test_programs_run_where_this_process_is():
    assert BackendPlace().command(["redis-server"]) == ["redis-server"]
    BackendPlace().leave()
