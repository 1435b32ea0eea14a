import socket

import pytest

from userspace_proxy.kernel.ip_options import (
    IP_TTL,
    IPV6_UNICAST_HOPS,
    set_freebind,
    set_hop_limit,
    set_ip_option,
)

ABSENT = {socket.AF_INET: "198.51.100.7", socket.AF_INET6: "2001:db8::7"}


@pytest.fixture(params=ABSENT, ids=["IPv4", "IPv6"])
def sock(request):
    with socket.socket(request.param) as sock:
        yield sock


def test_a_socket_may_have_an_address_that_this_node_lacks(sock):
    address = ABSENT[sock.family], 0
    with pytest.raises(OSError, match="assign"):
        sock.bind(address)
    set_freebind(sock)
    sock.bind(address)
    assert sock.getsockname()[0] == address[0]


def test_the_option_of_the_family_is_set(sock):
    option = (
        (socket.IPPROTO_IPV6, IPV6_UNICAST_HOPS)
        if sock.family == socket.AF_INET6
        else (socket.IPPROTO_IP, IP_TTL)
    )
    set_hop_limit(sock, 7)
    assert sock.getsockopt(*option) == 7
    set_ip_option(sock, IP_TTL, IPV6_UNICAST_HOPS, 9)
    assert sock.getsockopt(*option) == 9
