import contextlib
import os
import socket

import pytest

from userspace_proxy.kernel.netlink.socket_users import Address, user_of


@contextlib.contextmanager
def connected(listen, dial):
    """Yield both ends of a connection, as its server sees them."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with (
        socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::") as server,
        socket.create_connection((dial, server.getsockname()[1])),
        server.accept()[0] as accepted,
    ):
        yield Address(*accepted.getpeername()[:2]), Address(*accepted.getsockname()[:2])


@pytest.mark.parametrize(
    ("listen", "dial"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")]
)
def test_the_user_of_a_client_on_this_node_is_found(listen, dial):
    with connected(listen, dial) as (client, server):
        assert user_of(client, server) == os.geteuid()


def test_a_client_elsewhere_has_no_user_even_if_a_listener_has_its_port():
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        server = Address("127.0.0.1", 10249)
        assert user_of(Address("127.0.0.1", port), server) is None
        assert user_of(Address("127.0.0.9", 1), server) is None


def test_an_address_that_cannot_be_read_has_no_user():
    assert user_of(Address("", 0), Address("127.0.0.1", 10249)) is None
