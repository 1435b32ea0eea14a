import asyncio
import socket

import pytest

from tests.tcp_servers import serving
from userspace_proxy.kernel.stream_reset import reset, reset_no_more, reset_on_close


def test_the_other_side_sees_a_reset_even_the_second_time(run):
    async def main():
        async def accepted(_reader, writer):
            reset(writer)
            reset(writer)

        async with serving(accepted) as address:
            reader, writer = await asyncio.open_connection(*address)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(main())


@pytest.mark.parametrize("is_undone", [False, True])
def test_a_close_sends_a_reset_unless_that_is_undone(is_undone):
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with client:
        reset_on_close(accepted)
        if is_undone:
            reset_no_more(accepted)
        accepted.close()
        if is_undone:
            assert client.recv(1) == b""
        else:
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_closed_socket_is_reset_without_an_error():
    sock = socket.socket()
    sock.close()
    reset_on_close(sock)
