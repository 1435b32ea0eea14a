import socket

import pytest

from userspace_proxy.errors import ListenError
from userspace_proxy.status.listening import address_of, open_socket

FLAG = "--healthz-bind-address"


async def open_here(bind):
    return await open_socket(bind, what="health checks", flag=FLAG)


@pytest.mark.parametrize("bind", ["0.0.0.0", "::"])
async def test_a_wildcard_address_listens_on_both_families(bind):
    with await open_here((bind, 0)) as sock:
        port = address_of(sock)[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=1).close()


async def test_a_host_name_in_a_listen_address_is_resolved():
    with await open_here(("localhost", 0)) as sock:
        assert address_of(sock)[0] in {"127.0.0.1", "::1"}


async def test_an_already_listening_socket_is_returned_as_non_blocking():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert await open_here(sock) is sock
        assert not sock.getblocking()


async def test_a_port_in_use_is_an_error_with_a_remedy():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            await open_here(("127.0.0.1", port))
    assert str(caught.value) == (
        f"cannot serve health checks on 127.0.0.1:{port}: Address already in use (stop the "
        f"program that listens there, perhaps kube-proxy, or choose another address with "
        "--healthz-bind-address)"
    )


@pytest.mark.parametrize(
    ("host", "words"),
    [
        pytest.param("192.0.2.1", "Cannot assign requested address", id="of-another-node"),
        pytest.param("no such host", "give an address", id="unresolvable"),
    ],
)
async def test_an_unresolvable_or_missing_listen_address_is_an_error(host, words):
    with pytest.raises(ListenError, match="cannot serve health checks on") as caught:
        await open_here((host, 0))
    assert words in str(caught.value)
    assert FLAG in caught.value.hint
