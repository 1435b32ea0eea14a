"""The effect of toxics on the bytes of a connection."""

import asyncio
import contextlib

import pytest

from tests.unit.dataplane.waiting import until
from userspace_proxy_testing.faults import detour_stream

from .rig import PATIENCE_S, ask, connect, echo, faulty, toxic


def clock():
    return asyncio.get_running_loop().time()


async def test_bytes_and_eof_are_forwarded_without_toxics():
    async with faulty() as faults:
        reader, writer = await connect(faults)
        sent = bytes(range(256)) * 4096
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read(-1) == sent
        writer.close()


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
async def test_latency_in_either_direction_delays_the_response(stream):
    given = {"type_": "latency", "latency": 80, "stream": stream}
    async with faulty(echo, given) as faults:
        began = clock()
        assert await ask(faults) == b"hello"
        assert clock() - began >= 0.08


async def test_latencies_add_up_and_do_not_lower_the_rate():
    given = [{"type_": "latency", "latency": 40}, {"type_": "latency", "latency": 40, "jitter": 5}]
    async with faulty(echo, *given) as faults:
        began = clock()
        sent = b"x" * 8_000_000
        assert await ask(faults, sent) == sent
        # The answer would take 20 s if each read waited for the delay of the previous read.
        assert 0.07 <= clock() - began < 15


async def test_bandwidth_limits_the_rate():
    async with faulty(echo, {"type_": "bandwidth", "rate": 500}) as faults:
        began = clock()
        sent = b"x" * 100_000
        assert await ask(faults, sent) == sent
        assert clock() - began >= 0.15


async def test_at_a_low_rate_bytes_arrive_in_parts_instead_of_all_at_once():
    async with faulty(echo, {"type_": "bandwidth", "rate": 100}) as faults:
        reader, writer = await connect(faults)
        writer.write(b"x" * 30_000)
        async with asyncio.timeout(PATIENCE_S):
            assert len(await reader.read(30_000)) <= 20_000
        writer.close()


async def test_bytes_wait_at_rate_0_until_the_toxic_is_removed():
    async with faulty(echo, {"type_": "bandwidth"}) as faults:
        reader, writer = await connect(faults)
        writer.write(b"kept")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read(100)
        faults.set_toxics([])
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read(100) == b"kept"
        writer.close()


async def test_a_timeout_drops_bytes_and_closes():
    async with faulty(echo, {"type_": "timeout", "timeout": 50}) as faults:
        began = clock()
        with pytest.raises(asyncio.IncompleteReadError):
            await ask(faults)
        assert clock() - began >= 0.05


async def test_a_timeout_of_0_drops_bytes_until_the_toxic_is_removed():
    async with faulty(echo, {"type_": "timeout", "stream": "upstream"}) as faults:
        reader, writer = await connect(faults)
        writer.write(b"lost")
        await until(
            lambda: any(stream._client.has_begun for stream in faults._streams), "the bytes"
        )
        faults.set_toxics([])
        writer.write(b"kept")
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read(100) == b"kept"
        writer.close()


async def test_a_timeout_of_0_drops_any_number_of_bytes_and_detects_eof(monkeypatch):
    monkeypatch.setattr(detour_stream, "_CHUNKS", 4)
    async with faulty(echo, {"type_": "timeout", "stream": "upstream"}) as faults:
        reader, writer = await connect(faults)
        # This is more than the kernel and the queue can hold.
        for _ in range(16):
            writer.write(bytes(1 << 20))
            async with asyncio.timeout(PATIENCE_S):
                await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read(1) == b""
        writer.close()


async def test_a_dropped_eof_is_forwarded_once_the_toxic_is_removed():
    given = {"type_": "reset_peer", "timeout": 60_000, "stream": "upstream"}
    async with faulty(echo, given) as faults:
        reader, writer = await connect(faults)
        writer.write_eof()
        await until(lambda: any(stream._is_over for stream in faults._streams), "the end")
        faults.set_toxics([])
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read(1) == b""
        writer.close()


@pytest.mark.parametrize("first", ["timeout", "reset_peer"])
async def test_the_earliest_of_several_closing_toxics_takes_effect(first):
    given = {"timeout": {"type_": "timeout"}, "reset_peer": {"type_": "reset_peer", "timeout": 30}}
    toxics = [given[first], *(toxic for type_, toxic in given.items() if type_ != first)]
    async with faulty(echo, *toxics) as faults:
        with pytest.raises(ConnectionResetError):
            await ask(faults)


async def test_reset_peer_resets_after_its_timeout():
    async with faulty(echo, {"type_": "reset_peer", "timeout": 30}) as faults:
        began = clock()
        with pytest.raises(ConnectionResetError):
            await ask(faults)
        assert clock() - began >= 0.03


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
async def test_a_reset_waits_for_the_clients_first_byte_and_forwards_a_greeting(stream):
    heard = asyncio.get_running_loop().create_future()

    async def greet(reader, writer):
        writer.write(b"hello")
        with contextlib.suppress(ConnectionError):
            heard.set_result(await reader.read())
        if not heard.done():
            heard.set_result(b"")
        writer.close()

    async with faulty(greet, {"type_": "reset_peer", "stream": stream}) as faults:
        reader, writer = await connect(faults)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.readexactly(5) == b"hello"
            writer.write(b"a")
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            assert await heard == b""
        writer.close()


async def test_a_reset_toxic_resets_a_client_that_closes_without_sending():
    async with faulty(echo, {"type_": "reset_peer"}) as faults:
        reader, writer = await connect(faults)
        writer.write_eof()
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                await reader.read(1)
        writer.close()


async def test_a_reset_at_connect_does_not_wait_for_data():
    async with faulty(echo, {"type_": "reset_peer", "at_connect": True}) as faults:
        reader, writer = await connect(faults)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                await reader.read(1)
        writer.close()


async def test_an_added_toxic_affects_an_open_connection_without_traffic():
    async with faulty() as faults:
        reader, writer = await connect(faults)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        faults.set_toxics([toxic("reset_peer")])
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                await reader.read(1)
        writer.close()


async def test_slicer_splits_data_into_chunks():
    sizes = []

    async def count(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                sizes.append(len(data))
            writer.write(b"done")
        writer.close()

    given = {"type_": "slicer", "average_size": 100, "size_variation": 20, "delay": 2000}
    async with faulty(count, {**given, "stream": "upstream"}, seed=7) as faults:
        reader, writer = await connect(faults)
        writer.write(b"x" * 1000)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read(100) == b"done"
        writer.close()
    assert sum(sizes) == 1000
    assert len(sizes) > 4


async def test_limit_data_closes_after_the_given_number_of_bytes():
    async with faulty(echo, {"type_": "limit_data", "bytes": 3}) as faults:
        reader, writer = await connect(faults)
        writer.write(b"hello")
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read(-1) == b"hel"
        writer.close()


async def test_slow_close_delays_the_close():
    async def close(_reader, writer):
        writer.close()

    async with faulty(close, {"type_": "slow_close", "delay": 60}) as faults:
        began = clock()
        reader, writer = await connect(faults)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read(-1) == b""
        assert clock() - began >= 0.06
        writer.close()


async def test_random_faults_of_a_connection_do_not_depend_on_other_connections():
    given = {"type_": "limit_data", "bytes": 0, "toxicity": 0.5}
    jitter = {"type_": "latency", "latency": 1, "jitter": 1}

    async def outcomes(count):
        async with faulty(echo, jitter, given, seed=3) as faults:
            seen = []
            for _ in range(12):
                reader, writer = await connect(faults)
                async with asyncio.timeout(PATIENCE_S):
                    with contextlib.suppress(asyncio.IncompleteReadError):
                        for _ in range(count):
                            writer.write(b"x")
                            await reader.readexactly(1)
                seen.append(not reader.at_eof())
                writer.close()
            return seen

    first = await outcomes(1)
    assert 0 < sum(first) < 12
    assert await outcomes(3) == first


async def test_a_reset_by_the_endpoint_resets_the_client():
    async def abort(_reader, writer):
        import socket
        import struct

        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with faulty(abort) as faults:
        with pytest.raises(ConnectionResetError):
            await ask(faults)
