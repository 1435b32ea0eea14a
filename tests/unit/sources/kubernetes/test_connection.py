"""Requests to the fake API server by the real transport."""

from __future__ import annotations

import json
import socket
from contextlib import closing

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes import connection as module
from userspace_proxy.sources.kubernetes.connection import Connection
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.responses import ConnectionTrouble

from .certificates import FIRST, SECOND
from .objects import service

SERVICES = "/api/v1/services"
WATCH = {"watch": "1", "resourceVersion": "1000"}


@pytest.fixture
async def connection(api):
    connection = Connection(Credentials(master=api.url))
    await connection.open()
    yield connection
    await connection.close()


async def test_an_answer_is_read_whole(api, connection):
    api.put(service())
    answer = await connection.get(SERVICES, {"limit": "1"})
    assert answer.code == 200
    assert json.loads(answer.body)["items"][0]["metadata"]["name"] == "web"
    assert api.requests == ["GET /api/v1/services?limit=1"]


async def test_a_refusal_is_an_answer_with_what_the_server_asks_for(api, connection):
    api.refuse("services", 429, retry_after_s=7)
    answer = await connection.get(SERVICES, {})
    assert (answer.code, answer.retry_after_s) == (429, 7)


async def test_a_stream_gives_what_has_come_and_ends_empty(api, connection):
    async with connection.stream(SERVICES, WATCH) as stream:
        assert stream.code == 200
        await api.until(lambda a: a.watch_count("services") == 1)
        api.send("services", b"one\n")
        assert await stream.read(silence_s=30) == b"one\n"
        api.end_watches()
        assert await stream.read(silence_s=30) == b""


async def test_a_stream_that_says_no_has_an_answer(api, connection):
    api.refuse("services", 403, message="forbidden")
    async with connection.stream(SERVICES, WATCH) as stream:
        assert stream.code == 403
        assert b"forbidden" in (await stream.answer()).body


async def test_silence_is_no_trouble_but_a_timeout(api, connection):
    async with connection.stream(SERVICES, WATCH) as stream:
        with pytest.raises(TimeoutError):
            await stream.read(silence_s=0.01)


async def test_the_kernel_probes_a_stream_that_is_silent(connection):
    async with connection.stream(SERVICES, WATCH) as stream:
        peer = stream._response.connection.transport.get_extra_info("socket")
        options = [peer.getsockopt(level, option) for level, option, _ in module._KEEPALIVE]
    assert options == [1, 30, 10, 3]


async def test_a_stream_that_breaks_off_is_trouble(api, connection):
    async with connection.stream(SERVICES, WATCH) as stream:
        await api.until(lambda a: a.watch_count("services") == 1)
        api.break_watches()
        with pytest.raises(ConnectionTrouble):
            await stream.read(silence_s=30)


async def test_a_stream_that_is_left_is_closed(api, connection):
    async with connection.stream(SERVICES, WATCH):
        await api.until(lambda a: a.watch_count("services") == 1)
    await api.until(lambda a: a.watch_count("services") == 0)


async def test_a_server_that_is_not_there_is_trouble(api, connection):
    await api.stop()
    with pytest.raises(ConnectionTrouble, match="Connection refused"):
        await connection.get(SERVICES, {})
    with pytest.raises(ConnectionTrouble, match="Connection refused"):
        async with connection.stream(SERVICES, WATCH):
            pass


async def test_an_answer_without_end_is_trouble(api, connection, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 10)
    with pytest.raises(ConnectionTrouble, match="an answer is larger than 0 MiB"):
        await connection.get(SERVICES, {})


async def test_no_answer_is_trouble(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.01)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        connection = Connection(Credentials(master=url))
        await connection.open()
        with pytest.raises(ConnectionTrouble, match="no response in time"):
            await connection.get(SERVICES, {})
        with pytest.raises(ConnectionTrouble, match="no response in time"):
            async with connection.stream(SERVICES, WATCH):
                pass
        await connection.close()


async def test_after_a_refusal_the_token_is_read_again(api, tmp_path):
    api.token = "second"
    token = tmp_path / "token"
    token.write_text("first")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        f"current-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n"
        f"clusters: [{{name: a, cluster: {{server: {api.url}}}}}]\n"
        f"users: [{{name: a, user: {{tokenFile: {token}}}}}]\n"
    )
    connection = Connection(Credentials(kubeconfig=str(kubeconfig)), clock=lambda: 0.0)
    await connection.open()
    token.write_text("second")
    assert (await connection.get(SERVICES, {})).code == 401
    assert (await connection.get(SERVICES, {})).code == 200
    await connection.close()


async def test_a_certificate_that_is_none_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(SourceError, match=r"cannot use the token in .*/token: TLS failed"):
        await Connection(Credentials(service_account=tmp_path)).open()


async def test_a_new_certificate_brings_a_new_transport(api, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text(FIRST)
    connection = Connection(Credentials(service_account=tmp_path))
    await connection.open()
    connection.credentials.configuration.host = api.url
    before = connection._rest
    assert (await connection.get(SERVICES, {})).code == 200
    assert connection._rest is before
    (tmp_path / "ca.crt").write_text(SECOND)
    assert (await connection.get(SERVICES, {})).code == 200
    assert connection._rest is not before
    await connection.close()
