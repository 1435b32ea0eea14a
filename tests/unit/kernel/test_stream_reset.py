import asyncio

import pytest

from userspace_proxy.kernel.stream_reset import reset


def test_the_other_side_sees_a_reset_even_the_second_time(run):
    async def main():
        def accepted(_reader, writer):
            reset(writer)
            reset(writer)

        async with await asyncio.start_server(accepted, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(main())
