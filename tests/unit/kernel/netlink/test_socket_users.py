import contextlib
import os
import socket

import pytest

from tests.users import OTHER_UID, as_another_user
from userspace_proxy.kernel.netlink import socket_users
from userspace_proxy.kernel.netlink.socket_users import user_of, user_of_listener
from userspace_proxy.model import SocketAddress


@contextlib.contextmanager
def connected(listen, dial):
    """Yield the addresses of a connection's client and server, as the server sees them."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with (
        socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::") as server,
        socket.create_connection((dial, server.getsockname()[1])),
        server.accept()[0] as accepted,
    ):
        yield SocketAddress(*accepted.getpeername()[:2]), SocketAddress(*accepted.getsockname()[:2])


@pytest.mark.parametrize(
    ("listen", "dial"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")]
)
def test_the_user_of_a_local_client_is_found(listen, dial):
    with connected(listen, dial) as (client, server):
        assert user_of(client, server) == os.geteuid()


def test_a_remote_client_has_no_user_even_if_a_listener_has_its_port():
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        server = SocketAddress("127.0.0.1", 10249)
        assert user_of(SocketAddress("127.0.0.1", port), server) is None
        assert user_of(SocketAddress("127.0.0.9", 1), server) is None


def test_an_invalid_address_has_no_user():
    assert user_of(SocketAddress("", 0), SocketAddress("127.0.0.1", 10249)) is None


NAME = b"\0userspace-proxy-users"


@pytest.fixture
def unix_socket():
    """Yield a function that opens and binds a Unix socket of a type."""
    with contextlib.ExitStack() as stack:

        def opened(kind, *, listens=True):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            sock.bind(NAME)
            if listens:
                sock.listen()
            return sock

        yield opened


def test_the_user_of_a_unix_listener_is_its_creator(unix_socket):
    with unix_socket(socket.SOCK_STREAM):
        assert user_of_listener(NAME) == os.geteuid()
    assert user_of_listener(NAME) is None


@as_another_user
def test_the_user_of_another_users_listener_is_found(unix_socket):
    os.seteuid(OTHER_UID)
    try:
        unix_socket(socket.SOCK_STREAM)
    finally:
        os.seteuid(0)
    assert user_of_listener(NAME) == OTHER_UID


def test_a_unix_socket_of_another_type_or_not_listening_is_skipped(unix_socket):
    unix_socket(socket.SOCK_SEQPACKET)
    unix_socket(socket.SOCK_STREAM, listens=False)
    assert user_of_listener(NAME) is None


def test_a_kernel_that_does_not_show_users_is_an_error(unix_socket, monkeypatch):
    unix_socket(socket.SOCK_STREAM)
    # Linux before 5.3 doesn't show the user.
    monkeypatch.setattr(socket_users, "_SHOW_USER", 0)
    with pytest.raises(OSError, match="doesn't show users"):
        user_of_listener(NAME)
