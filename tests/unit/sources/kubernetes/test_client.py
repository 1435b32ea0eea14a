"""Requests to the fake API server, and to servers with TLS or behind a proxy."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.tcp_servers import serving
from tests.unit.dataplane.waiting import turns
from tests.unit.port_numbers import free_port
from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes import client as module
from userspace_proxy.sources.kubernetes.client import (
    LINE_BYTES_MAX,
    WATCHES_ANEW_S,
    ApiClient,
    LineSplitter,
    LineTooLong,
)
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.responses import TransportError

from .certificates import API_TEST, API_TEST_KEY, ENCRYPTED_KEY, FIRST, SECOND
from .objects import service

SERVICES = "/api/v1/services"
WATCH = {"watch": "1", "resourceVersion": "1000"}


def kubeconfig(folder: Path, cluster: dict[str, object], user: dict[str, object]) -> str:
    path = folder / "kubeconfig"
    path.write_text(
        f"current-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n"
        f"clusters: [{{name: a, cluster: {json.dumps(cluster)}}}]\n"
        f"users: [{{name: a, user: {json.dumps(user)}}}]\n"
    )
    return str(path)


@asynccontextmanager
async def answering(
    tls: ssl.SSLContext | None = None,
    heads: list[str] | None = None,
    code_of: Callable[[str], str] = lambda _: "200 OK",
) -> AsyncIterator[tuple[int, list[str]]]:
    """Answer each connection with an empty object; yield the port and the request lines.

    Args:
        tls: The server's TLS context; None for plain HTTP.
        heads: Receives the requests without their bodies.
        code_of: Returns the status for a request.
    """
    lines: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines.append(request.partition("\r\n")[0])
        if heads is not None:
            heads.append(request)
        status = f"HTTP/1.1 {code_of(request)}\r\n".encode()
        writer.write(status + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")

    async with serving(handle, ssl=tls) as address:
        yield address.port, lines


async def test_a_response_is_read_completely(api, client):
    api.put(service())
    answer = await client.get(SERVICES, {"limit": "1"})
    assert answer.code == 200
    assert json.loads(answer.body)["items"][0]["metadata"]["name"] == "web"
    assert api.requests == ["GET /api/v1/services?limit=1"]


async def test_an_error_response_contains_the_servers_retry_delay(api, client):
    api.refuse("services", 429, retry_after_s=7)
    answer = await client.get(SERVICES, {})
    assert (answer.code, answer.retry_after_s) == (429, 7)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("7", 7.0),
        ("9" * 400, math.inf),
        ("-7", 0.0),
        ("7.5", 0.0),
        ("1e9", 0.0),
        ("\u0667", 0.0),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 0.0),
    ],
)
def test_a_retry_delay_is_parsed_as_whole_seconds(text, seconds):
    assert module._seconds(text) == seconds


async def test_a_stream_returns_received_bytes_and_ends_with_an_empty_chunk(api, client):
    async with client.stream(SERVICES, WATCH) as stream:
        assert stream.code == 200
        await api.until(lambda a: a.watch_count("services") == 1)
        api.send("services", b"one\n")
        assert await stream.read(silence_s=30) == b"one\n"
        api.end_watches()
        assert await stream.read(silence_s=30) == b""


async def test_an_error_status_of_a_stream_is_returned_as_a_response(api, client):
    api.refuse("services", 403, message="forbidden")
    async with client.stream(SERVICES, WATCH) as stream:
        assert stream.code == 403
        assert b"forbidden" in (await stream.rest()).body


async def test_a_silent_stream_raises_a_timeout_instead_of_a_transport_error(api, client):
    async with client.stream(SERVICES, WATCH) as stream:
        with pytest.raises(TimeoutError):
            await stream.read(silence_s=0.01)


async def test_a_watch_stream_uses_tcp_keepalive(client):
    async with client.stream(SERVICES, WATCH) as stream:
        peer = stream._response.connection.transport.get_extra_info("socket")
        options = [peer.getsockopt(level, option) for level, option, _ in module._KEEPALIVE]
    assert options == [1, 30, 10, 3]


async def test_a_broken_stream_is_a_transport_error(api, client):
    async with client.stream(SERVICES, WATCH) as stream:
        await api.until(lambda a: a.watch_count("services") == 1)
        api.break_watches()
        with pytest.raises(TransportError):
            await stream.read(silence_s=30)


async def test_an_abandoned_stream_is_closed(api, client):
    async with client.stream(SERVICES, WATCH):
        await api.until(lambda a: a.watch_count("services") == 1)
    await api.until(lambda a: a.watch_count("services") == 0)


async def test_doubt_watches_closes_watches_and_idle_connections_at_a_limited_rate():
    connections: list[asyncio.StreamWriter] = []
    now_s = 0.0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = 3 if b"unfinished" in head else 2
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{{}}".encode())

    async with serving(handle) as address:
        client = ApiClient(
            Credentials(master=f"http://127.0.0.1:{address.port}"), clock=lambda: now_s
        )
        await client.open()
        for at_s, is_heard in ((0.0, True), (WATCHES_ANEW_S - 1, False), (WATCHES_ANEW_S, True)):
            now_s = at_s
            async with (
                client.stream("/unfinished", {}) as other,
                client.stream("/unfinished", WATCH) as watch,
            ):
                assert await watch.read(silence_s=30) == await other.read(silence_s=30) == b"{}"
                await client.get("/version", {})
                before = len(connections)
                client.doubt_watches()
                with pytest.raises(TransportError if is_heard else TimeoutError):
                    await watch.read(silence_s=0.05)
                with pytest.raises(TimeoutError):
                    await other.read(silence_s=0.05)
                await client.get("/version", {})
                assert len(connections) - before == is_heard
        await client.close()


async def test_a_refused_connection_is_a_transport_error(api, client):
    await api.stop()
    with pytest.raises(TransportError, match="Connection refused"):
        await client.get(SERVICES, {})
    with pytest.raises(TransportError, match="Connection refused"):
        async with client.stream(SERVICES, WATCH):
            pass


class Endless:
    """A response twice as large as the limit, which counts the bytes that are read."""

    def __init__(self):
        self.status, self.headers, self.content = 200, {}, self
        self.read = 0

    async def iter_any(self):
        part = bytes(1 << 20)
        while self.read < 2 * module.RESPONSE_BYTES_MAX:
            self.read += len(part)
            yield part


async def test_an_endless_response_is_an_error_at_its_limit():
    endless = Endless()
    with pytest.raises(TransportError, match="a response is larger than 16 MiB"):
        await module._read(endless)
    assert endless.read == module.RESPONSE_BYTES_MAX + (1 << 20)


async def test_a_response_timeout_is_a_transport_error(monkeypatch):
    monkeypatch.setattr(module, "RESPONSE_S", 0.01)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = ApiClient(Credentials(master=url))
        await client.open()
        with pytest.raises(TransportError, match="no response in time"):
            await client.get(SERVICES, {})
        with pytest.raises(TransportError, match="no response in time"):
            async with client.stream(SERVICES, WATCH):
                pass
        await client.close()


@asynccontextmanager
async def client_of(
    folder: Path, cluster: dict[str, object], user: dict[str, object], **options: Any
) -> AsyncIterator[ApiClient]:
    client = ApiClient(Credentials(kubeconfig=kubeconfig(folder, cluster, user)), **options)
    await client.open()
    try:
        yield client
    finally:
        await client.close()


async def test_within_a_minute_the_token_is_reread_only_after_a_401(plain_tls, tmp_path):
    token = tmp_path / "token"
    token.write_text("first")

    def code_of(request: str) -> str:
        return "200 OK" if "Bearer second" in request else "401 Unauthorized"

    async with answering(plain_tls, code_of=code_of) as (port, _):
        cluster = {"server": f"https://127.0.0.1:{port}", **TRUSTED}
        user: dict[str, object] = {"tokenFile": str(token)}
        async with client_of(tmp_path, cluster, user, clock=lambda: 0.0) as client:
            token.write_text("second")
            assert (await client.get(SERVICES, {})).code == 401
            assert (await client.get(SERVICES, {})).code == 200
            token.write_text("third")
            assert (await client.get(SERVICES, {})).code == 200


async def test_impersonation_is_sent_with_requests_and_websockets(plain_tls, tmp_path):
    user: dict[str, object] = {
        "token": "t",
        "as": "jane",
        "as-uid": "5",
        "as-groups": ["a", "b"],
        "as-user-extra": {"x/y": ["ü", "z"]},
    }
    heads: list[str] = []
    async with answering(plain_tls, heads) as (port, _):
        cluster = {"server": f"https://127.0.0.1:{port}", **TRUSTED}
        async with client_of(tmp_path, cluster, user) as client:
            await client.get(SERVICES, {})
            await client.send("PUT", SERVICES, {}, content_type="application/json")
            async with client.stream(SERVICES, WATCH):
                pass
            await client.websocket(SERVICES, {}, "a")
    assert len(heads) == 5
    for head in heads:
        sent = [line for line in head.split("\r\n") if line.startswith(("Imp", "Auth"))]
        assert sent == [
            "Authorization: Bearer t",
            "Impersonate-User: jane",
            "Impersonate-Uid: 5",
            "Impersonate-Group: a",
            "Impersonate-Group: b",
            "Impersonate-Extra-x%2Fy: ü",
            "Impersonate-Extra-x%2Fy: z",
        ]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_to_another_server(tmp_path, code):
    async with answering() as (other, lines):
        target = f"http://localhost:{other}"

        def redirect(_: str) -> str:
            return f"{code} Elsewhere\r\nLocation: {target}/login?state=secret"

        async with answering(code_of=redirect) as (port, _):
            cluster: dict[str, object] = {"server": f"http://127.0.0.1:{port}"}
            async with client_of(tmp_path, cluster, {"as": "jane"}) as client:
                for request in (
                    client.get("/version", {}),
                    client.send("POST", SERVICES, {}, content_type="application/json"),
                    client.stream(SERVICES, WATCH).__aenter__(),
                    client.websocket("/version", {}, "a"),
                ):
                    with pytest.raises(TransportError) as caught:
                        await request
                    assert str(caught.value) == f"it redirects to {target}, which is not followed"
    assert lines == []


async def test_cookies_are_not_sent_back_to_the_server(tmp_path):
    heads: list[str] = []
    code = "200 OK\r\nSet-Cookie: session=of-the-user-before"
    async with (
        answering(heads=heads, code_of=lambda _: code) as (port, _),
        client_of(tmp_path, {"server": f"http://localhost:{port}"}, {}) as client,
    ):
        await client.get("/version", {})
        await client.get("/version", {})
    assert len(heads) == 2
    assert "cookie" not in heads[1].lower()


@pytest.mark.parametrize(("wants", "sent"), [(False, "gzip, deflate"), (True, "identity")])
async def test_compressed_responses_are_requested_unless_the_kubeconfig_disables_compression(
    tmp_path, wants, sent
):
    heads: list[str] = []
    async with answering(heads=heads) as (port, _):
        cluster = {"server": f"http://127.0.0.1:{port}", "disable-compression": wants}
        async with client_of(tmp_path, cluster, {}) as client:
            await client.get(SERVICES, {})
    assert f"Accept-Encoding: {sent}" in heads[0]


async def test_netrc_passwords_are_not_sent(tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    heads: list[str] = []
    async with answering(heads=heads) as (port, _):
        client = ApiClient(Credentials(master=f"http://127.0.0.1:{port}"))
        await client.open()
        await client.get(SERVICES, {})
        await client.close()
    assert "Authorization" not in heads[0]


async def test_an_invalid_ca_certificate_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(SourceError, match=r"cannot use the token in .*/token.*: TLS failed"):
        await ApiClient(Credentials(service_account=tmp_path)).open()


async def test_a_changed_ca_file_is_loaded_at_the_next_request(api, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text(FIRST)
    client = ApiClient(Credentials(service_account=tmp_path))
    await client.open()
    client.credentials.configuration.host = api.url
    before = client._tls
    assert (await client.get(SERVICES, {})).code == 200
    assert client._tls is before
    (tmp_path / "ca.crt").write_text(SECOND)
    assert (await client.get(SERVICES, {})).code == 200
    assert client._tls is not before
    await client.close()


API_TEST_DATA = base64.b64encode(API_TEST.encode()).decode()
TRUSTED = {"certificate-authority-data": API_TEST_DATA, "tls-server-name": "api.test"}
CLIENT = {
    "client-certificate-data": API_TEST_DATA,
    "client-key-data": base64.b64encode(API_TEST_KEY.encode()).decode(),
}
WITHOUT_NAME = {"certificate-authority-data": API_TEST_DATA}


@pytest.fixture
def server_tls(tmp_path):
    """A TLS context that requires a client certificate."""
    (tmp_path / "server.crt").write_text(API_TEST)
    (tmp_path / "server.key").write_text(API_TEST_KEY)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=API_TEST)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def plain_tls(server_tls):
    """A TLS context that requires no client certificate."""
    server_tls.verify_mode = ssl.CERT_NONE
    return server_tls


@pytest.mark.parametrize(
    ("cluster", "user", "outcome"),
    [
        pytest.param(TRUSTED, CLIENT, "{}$", id="both-trust-each-other"),
        pytest.param({"insecure-skip-tls-verify": True}, CLIENT, "{}$", id="server-not-verified"),
        pytest.param(WITHOUT_NAME, CLIENT, "its certificate is not trusted: ", id="other-name"),
        pytest.param({}, CLIENT, "its certificate is not trusted: ", id="other-authority"),
        pytest.param(TRUSTED, {}, "it closed the|Connection reset", id="no-client-certificate"),
    ],
)
async def test_server_and_client_certificates_are_verified(
    server_tls, tmp_path, cluster, user, outcome
):
    async with answering(server_tls) as (port, _):
        path = kubeconfig(tmp_path, {"server": f"https://127.0.0.1:{port}", **cluster}, user)
        client = ApiClient(Credentials(kubeconfig=path))
        await client.open()
        try:
            got = (await client.get("/version", {})).body.decode()
        except TransportError as exc:
            got = str(exc)
        await client.close()
    assert re.match(outcome, got)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("is_watch", [False, True], ids=["get", "watch"])
def test_a_request_cancelled_at_any_point_leaks_no_socket(plain_tls, tmp_path, make_loop, is_watch):
    async def ask(client: ApiClient) -> None:
        if not is_watch:
            await client.get("/version", {})
            return
        async with client.stream(SERVICES, WATCH) as stream:
            await stream.read(silence_s=60)

    async def cancel_after(count: int) -> tuple[int, bool]:
        async with answering(plain_tls) as (port, _):
            cluster = {"server": f"https://127.0.0.1:{port}", **TRUSTED}
            async with client_of(tmp_path, cluster, {}) as client:
                request = asyncio.ensure_future(ask(client))
                await turns(count)
                was_done = request.done()
                request.cancel()
                await asyncio.wait([request])
                made = list(client._sockets)
            assert [each for each in made if each.fileno() >= 0] == [], count
        return len(made), was_done

    made = count = 0
    was_done = False
    with asyncio.Runner(loop_factory=make_loop) as runner:
        while not was_done:
            more, was_done = runner.run(cancel_after(count))
            made, count = made + more, count + 1
    assert 1 < made < count


async def test_an_encrypted_key_is_rejected_without_a_passphrase_prompt(tmp_path):
    encrypted = base64.b64encode(ENCRYPTED_KEY.encode()).decode()
    user: dict[str, object] = {**CLIENT, "client-key-data": encrypted}
    with pytest.raises(SourceError, match="the client's key is encrypted"):
        async with client_of(tmp_path, {"server": "https://127.0.0.1:1"}, user):
            pass


def test_a_tls_stream_is_closed_without_waiting_for_the_server(server_tls, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as server:
        is_left = threading.Event()

        def serve() -> None:
            peer, _ = listener.accept()
            peer.settimeout(60)
            with peer, server_tls.wrap_socket(peer, server_side=True) as tls:
                tls.recv(4096)
                tls.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                is_left.wait()

        async def leave() -> Any:
            address = f"https://127.0.0.1:{listener.getsockname()[1]}"
            path = kubeconfig(tmp_path, {"server": address, **TRUSTED}, CLIENT)
            client = ApiClient(Credentials(kubeconfig=path))
            await client.open()
            async with client.stream(SERVICES, WATCH) as stream:
                used = stream._response.connection.transport.get_extra_info("socket")
            await client.close()
            assert not Path(client.credentials.configuration.key_file).exists()
            return used

        served = server.submit(serve)
        try:
            assert asyncio.run(leave()).fileno() == -1
        finally:
            is_left.set()
            # Stop the server if it is still waiting for a client.
            listener.shutdown(socket.SHUT_RDWR)
        served.result()


async def test_an_http_proxy_error_is_reported_without_the_password(tmp_path):
    heads: list[str] = []
    async with answering(heads=heads, code_of=lambda _: "407 Password Required") as (port, _):
        cluster: dict[str, object] = {
            "server": "https://api.test:6443",
            "proxy-url": f"http://me:s%40cret@127.0.0.1:{port}",
        }
        async with client_of(tmp_path, cluster, {"token": "t"}) as client:
            with pytest.raises(TransportError) as caught:
                await client.get("/version", {})
    assert str(caught.value) == (
        "CONNECT was answered with 407 Password Required "
        f"(through the proxy http://127.0.0.1:{port} of {tmp_path}/kubeconfig:3: "
        "clusters[0].cluster.proxy-url)"
    )
    (head,) = heads
    assert head.startswith("CONNECT api.test:6443 HTTP/1.1\r\n")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:s@cret').decode()}" in head
    assert "Bearer" not in head


async def test_the_environments_proxy_is_used_and_reported_with_its_variable(tmp_path, monkeypatch):
    gone = free_port()
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{gone}")
    monkeypatch.setenv("NO_PROXY", "example.internal")
    async with client_of(tmp_path, {"server": "https://api.test:6443"}, {}) as client:
        for request in (client.get("/version", {}), client.websocket("/version", {}, "a")):
            with pytest.raises(TransportError) as caught:
                await request
            assert str(caught.value) == (
                f"Connection refused (through the proxy http://127.0.0.1:{gone} of https_proxy)"
            )


async def test_a_proxy_url_changed_in_the_kubeconfig_is_used_after_a_minute(tmp_path):
    now = 0.0
    async with answering() as (first, before), answering() as (second, after):
        cluster: dict[str, object] = {
            "server": "http://10.0.0.1:8080",
            "proxy-url": f"http://127.0.0.1:{first}",
        }
        async with client_of(tmp_path, cluster, {}, clock=lambda: now) as client:
            await client.get("/version", {})
            kubeconfig(tmp_path, {**cluster, "proxy-url": f"http://127.0.0.1:{second}/"}, {})
            now = 60.0
            await client.get("/version", {})
    assert len(before) == len(after) == 1


@pytest.mark.parametrize("start", ["", "/k8s/clusters/c%2Fa", "/k8s/ä/"])
async def test_the_path_of_a_request_is_sent_unchanged(start):
    async with answering() as (port, lines):
        client = ApiClient(Credentials(master=f"http://127.0.0.1:{port}{start}"))
        await client.open()
        await client.get("/api/..%2Fv1/a%3Fb", {"a": "b/../c"})
        await client.close()
    sent = {"": "", "/k8s/ä/": "/k8s/%C3%A4"}.get(start, start)
    assert lines == [f"GET {sent}/api/..%2Fv1/a%3Fb?a=b/../c HTTP/1.1"]


@pytest.mark.parametrize("path", ["/api/../v1", "/api/v1?a=b", "/api/v1#a"])
async def test_a_request_with_an_ambiguous_path_is_not_sent(api, client, path):
    opening = (client.get(path, {}), client.websocket(path, {}, "a"))
    for request in (*opening, client.send("PUT", path, {}, content_type="application/json")):
        with pytest.raises(TransportError, match="nothing was sent"):
            await request
    assert api.requests == []


async def test_a_request_to_an_invalid_server_url_is_a_transport_error():
    client = ApiClient(Credentials(master="http://[::1"))
    with pytest.raises(TransportError, match="is not a URL"):
        client._url_of("/version")


def test_a_line_split_across_chunks_is_returned_as_one_line():
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntwo\r\n\nth") == [b"one", b"two"]
    assert splitter.feed(b"re") == []
    assert splitter.feed(b"e\n") == [b"three"]


def test_an_overlong_line_is_rejected_before_it_is_complete():
    splitter, other = LineSplitter(), LineSplitter()
    half = bytes(LINE_BYTES_MAX // 2)
    assert splitter.feed(half + b"\n") == [half]
    assert splitter.feed(half) + splitter.feed(half) == []
    with pytest.raises(LineTooLong, match="longer than 16777216 bytes"):
        splitter.feed(half)
    assert other.feed(b"one\n") == [b"one"]


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\r" not in b)), st.randoms())
def test_lines_do_not_depend_on_how_the_bytes_are_split(chunks, rng):
    whole = b"".join(chunks)
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    assert lines == [line for line in whole.split(b"\n")[:-1] if line]
