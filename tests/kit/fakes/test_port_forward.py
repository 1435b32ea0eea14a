"""The port-forwards of the fake API server: the frames that a client receives."""

import struct
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import WSMsgType

from tests.tcp_servers import serving
from tests.unit.dataplane.waiting import until
from userspace_proxy_testing.fakes.api_server import FakeApiServer

PATH = "/api/v1/namespaces/default/pods/web-1/portforward"
EIGHTY = struct.pack("<H", 80)


@pytest.fixture
async def session(api):
    async with aiohttp.ClientSession(api.url) as session:
        yield session


def connect(session, **more):
    query = {"ports": "80"}
    return session.ws_connect(PATH, params=query, protocols=["v4.channel.k8s.io"], **more)


async def test_the_port_header_precedes_the_pong(api, session):
    async def serve(_reader, writer):
        writer.write(b"hello")

    async with serving(serve) as address:
        api.pods.run("web-1", {80: address})
        api.pods.hold()
        async with connect(session, autoping=False) as socket:
            assert socket.protocol == "v4.channel.k8s.io"
            assert await socket.receive_bytes() == b"\x00" + EIGHTY
            assert await socket.receive_bytes() == b"\x01" + EIGHTY
            await socket.send_bytes(b"\x00")
            await socket.ping()
            await api.until(lambda api: api.pods.dialled)
            assert api.pods.open == 0
            api.pods.release()
            got = {(await socket.receive()).type for _ in range(2)}
            assert got == {WSMsgType.PONG, WSMsgType.BINARY}
            assert (await socket.receive()).type is WSMsgType.CLOSE
    assert api.pods.dialled == ["default/web-1:80"]


async def test_a_stream_that_the_pod_has_closed_is_open_until_the_client_closes_it(api, session):
    async def serve(_reader, writer):
        writer.write(b"hello")

    async with serving(serve) as address:
        api.pods.run("web-1", {80: address})
        async with connect(session, autoclose=False) as socket:
            messages = [await socket.receive() for _ in range(4)]
            assert [messages[2].data, messages[3].type] == [b"\x00hello", WSMsgType.CLOSE]
            # The server answers pings in the middle of the stream.
            await socket.ping()
            async with session.get("/version"):
                assert api.pods.open == 1
        await until(lambda: api.pods.open == 0)


async def test_a_client_disconnecting_during_a_response_is_not_an_error(api, session, caplog):
    async def serve(_reader, writer):
        with suppress(ConnectionError):
            while True:
                writer.write(b"hello" * 10_000)
                await writer.drain()

    async with serving(serve) as address:
        api.pods.run("web-1", {80: address})
        socket = await connect(session)
        await until(lambda: api.pods.passed_bytes["default/web-1"] > 100_000)
        # The connection closes without a WebSocket close frame.
        socket._response.close()
        await until(lambda: api.pods.open == 0)
    await api.stop()
    assert not caplog.records


async def test_a_forward_to_a_port_without_a_listener_ends_with_an_error(api, session):
    api.pods.run("web-1", {})
    async with connect(session) as socket:
        messages = [await socket.receive() for _ in range(4)]
    assert b"connection refused" in messages[2].data
    assert messages[2].data[:1] == b"\x01"
    assert messages[3].type is WSMsgType.CLOSE


@pytest.mark.parametrize(
    ("pods", "query", "code"),
    [
        pytest.param((), {"ports": "80"}, 404, id="no-pod"),
        pytest.param(("web-1",), {}, 400, id="no-port"),
        pytest.param(("web-1",), {"ports": "80"}, 400, id="no-upgrade"),
    ],
)
async def test_invalid_port_forward_requests_are_rejected(api, session, pods, query, code):
    for name in pods:
        api.pods.run(name, {})
    async with session.get(PATH, params=query) as response:
        assert response.status == code
        assert (await response.json())["code"] == code


def test_killing_an_unknown_pod_is_a_key_error():
    with pytest.raises(KeyError):
        FakeApiServer().pods.kill("web-1")
