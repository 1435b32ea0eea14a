"""Tests of streams to pods through a fake API server."""

from __future__ import annotations

import asyncio
import errno
from contextlib import asynccontextmanager, suppress

import pytest

from tests.tcp_servers import serving
from userspace_proxy.kernel.socket_options import reset
from userspace_proxy.sources.kubernetes import client as client_module
from userspace_proxy_kubectl.port_forward import (
    ForwardTarget,
    PortForwardError,
    open_stream,
)

WEB = ForwardTarget("default", "web-1", 80)


@asynccontextmanager
async def pod(api, handle, name="web-1"):
    """Run a pod with a function that serves port 80."""

    async def serve(reader, writer):
        with suppress(ConnectionError):
            await handle(reader, writer)
            await reader.read()

    async with serving(serve) as address:
        api.pods.run(name, {80: address})
        yield


async def silent(_reader, _writer):
    """Keep the stream open without sending anything."""


async def problem_of(client, to=WEB):
    with pytest.raises(PortForwardError) as caught:
        await open_stream(client, to)
    return caught.value


async def read_all(stream):
    parts = []
    while part := await stream.receive():
        parts.append(part)
    return b"".join(parts)


async def test_two_mebibytes_arrive_in_order(api, client):
    sent = bytes(range(256)) * 8192

    async def echo(reader, writer):
        writer.write(await reader.readexactly(len(sent)))
        writer.close()

    async with pod(api, echo):
        stream = await open_stream(client, WEB)
        for start in range(0, len(sent), 50000):
            await stream.send(sent[start : start + 50000])
        assert await read_all(stream) == sent
        await stream.close()


async def test_an_oversized_message_closes_the_stream(api, client, monkeypatch):
    monkeypatch.setattr(client_module, "RESPONSE_BYTES_MAX", 1000)

    async def answer(_reader, writer):
        writer.write(bytes(5000))
        await writer.drain()

    async with pod(api, answer):
        with pytest.raises(PortForwardError, match="it broke off"):
            await open_stream(client, WEB)


async def test_bytes_that_the_pod_sends_first_are_received(api, client):
    async def greet(_reader, writer):
        writer.write(b"220 ready")
        await writer.drain()

    async with pod(api, greet):
        stream = await open_stream(client, WEB)
        assert await stream.receive() == b"220 ready"
        await stream.close()


async def test_a_stream_opens_only_after_the_pod_has_responded(api, client):
    async with pod(api, silent):
        api.pods.hold()
        opening = asyncio.ensure_future(open_stream(client, WEB))
        await api.until(lambda a: a.pods.dialled)
        stream = asyncio.ensure_future(asyncio.wait_for(asyncio.shield(opening), 0.05))
        with pytest.raises(TimeoutError):
            await stream
        api.pods.release()
        await (await opening).close()


@pytest.mark.parametrize("reports_late", [False, True], ids=["containerd", "CRI-O"])
async def test_a_port_without_a_listener_is_refused(api, client, reports_late):
    api.pods.reports_late = reports_late
    api.pods.run("web-1", {})
    problem = await problem_of(client)
    assert problem.number == errno.ECONNREFUSED
    assert "pod default/web-1, port 80: " in str(problem)
    assert "connection refused" in str(problem)


async def test_a_vanished_pod_is_unreachable(api, client):
    problem = await problem_of(client)
    assert problem.number == errno.EHOSTUNREACH
    assert str(problem) == 'pod default/web-1, port 80: pods "web-1" not found'


async def test_a_denied_port_forward_names_the_missing_permission(api, client):
    api.refuse("portforward", 403, message='pods "web-1" is forbidden', times=2)
    problem = await problem_of(client)
    assert problem.number == errno.EACCES
    assert str(problem) == (
        'pod default/web-1, port 80: pods "web-1" is forbidden '
        "(allow this user to get and create pods/portforward in namespace default)"
    )


async def test_a_changing_error_response_is_reported_by_its_status(api, client):
    api.refuse("portforward", 502)
    assert str(await problem_of(client)) == "pod default/web-1, port 80: HTTP status 502"


async def test_an_unreachable_api_server_is_reported(api, client):
    await api.stop()
    problem = await problem_of(client)
    assert problem.number == errno.EHOSTUNREACH
    assert str(problem) == f"cannot reach the API server at {api.url}: Connection refused"


@pytest.mark.parametrize(
    ("to", "path"),
    [
        pytest.param(
            ForwardTarget("../services?limit=1#", "web-1", 80),
            "..%2Fservices%3Flimit%3D1%23/pods/web-1",
            id="namespace",
        ),
        pytest.param(
            ForwardTarget("default", "../../../services?limit=1#", 80),
            "default/pods/..%2F..%2F..%2Fservices%3Flimit%3D1%23",
            id="pod",
        ),
    ],
)
async def test_a_namespace_or_pod_name_cannot_change_the_request_path(api, client, to, path):
    problem = await problem_of(client, to)
    assert str(problem) == f'{to}: pods "{to.pod}" not found'
    # The first request opens a WebSocket, and the second reads the error without a WebSocket.
    assert api.requests == [f"GET /api/v1/namespaces/{path}/portforward?ports=80"] * 2


async def test_a_pod_name_with_dot_segments_is_not_sent(api, client):
    problem = await problem_of(client, WEB._replace(pod=".."))
    assert "pods/../portforward' is not the path of an object, nothing was sent" in str(problem)
    assert api.requests == []


async def test_a_connection_reset_by_the_pod_is_an_error_and_not_an_eof(api, client):
    async def reset_it(reader, writer):
        await reader.readexactly(1)
        reset(writer)

    async with pod(api, reset_it):
        stream = await open_stream(client, WEB)
        await stream.send(b"hello, this is not read")
        with pytest.raises(PortForwardError):
            await read_all(stream)
        await stream.close()


async def test_a_broken_stream_is_an_error_and_not_an_eof(api, client):
    async with pod(api, silent):
        stream = await open_stream(client, WEB)
        api.pods.break_streams()
        with pytest.raises(PortForwardError, match="it broke off"):
            await read_all(stream)
        with pytest.raises(PortForwardError, match="it broke off"):
            await stream.send(b"too late")
        await stream.close()


async def test_closing_a_stream_closes_the_pods_connection(api, client):
    ended = asyncio.Event()

    async def wait_for_end(reader, _writer):
        assert await reader.read() == b""
        ended.set()

    async with pod(api, wait_for_end):
        stream = await open_stream(client, WEB)
        await stream.close()
        await stream.close()
        await asyncio.wait_for(ended.wait(), 60)
