import asyncio
import contextlib
import json
import os
import socket
import zlib

import aiohttp
import pytest

from tests.users import OTHER_UID, as_another_user
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.status.answers import make_answer
from userspace_proxy.status.page import Parts
from userspace_proxy.status.selection import Selection
from userspace_proxy.status.server import StatusServer
from userspace_proxy.status.stream import MAX_STREAMS, Changes, Sent, pause_after

from .recorded import changed
from .views import NOW, make_port, make_troubled_view, make_view, replace

WAIT_S = 20.0


AT = "14:02:11"


def message(sent, **changes):
    parts = {"title": "OK", "level": "ok", "html": {"a": "1", "b": "2"}, "rows": ("a",)}
    message = json.loads(sent.message(Parts(**parts | changes, at=AT)).removeprefix(b"data: "))
    assert message.pop("at") == AT
    return message


def test_the_first_message_of_a_page_stream_contains_all_parts_and_rows():
    assert message(Sent()) == (
        {"title": "OK", "level": "ok", "html": {"a": "1", "b": "2"}, "rows": ["a"]}
    )
    assert message(Sent(), rows=())["rows"] == []


def test_later_messages_of_a_page_stream_contain_only_changes():
    sent = Sent()
    message(sent)
    assert message(sent) == {}
    assert message(sent, html={"a": "1", "b": "3"}) == {"html": {"b": "3"}}
    assert message(sent, html={"a": "1", "b": "3"}, rows=("b", "a")) == {"rows": ["b", "a"]}


def test_a_row_that_returns_to_the_page_is_resent():
    sent = Sent()
    message(sent)
    message(sent, html={"b": "2"}, rows=())
    assert message(sent) == {"html": {"a": "1"}, "rows": ["a"]}


class Watcher:
    """Reads streams of a status server, whose view the test can replace."""

    def __init__(self, session, url, shown):
        self._session = session
        self.url = url
        self._shown = shown

    def show(self, view):
        self._shown[:] = [view]

    def open(self, query=""):
        return self._session.get(f"{self.url}/stream{query}")

    def get(self, path, method="GET", **options):
        return self._session.request(method, self.url + path, **options)

    async def ask(self, path, method="GET"):
        async with self._session.request(method, self.url + path) as response:
            return response

    @staticmethod
    async def next(response):
        """Return the next message that isn't a comment."""
        async with asyncio.timeout(WAIT_S):
            while True:
                line = await response.content.readuntil(b"\n\n")
                if line.startswith(b"data: "):
                    return json.loads(line.removeprefix(b"data: "))


@contextlib.asynccontextmanager
async def watching(view):
    shown = [view]
    server = StatusServer(lambda: shown[0], clock=lambda: NOW)
    try:
        host, port = await server.serve_admin(("127.0.0.1", 0))
        async with aiohttp.ClientSession(read_bufsize=2**24) as session:
            yield Watcher(session, f"http://{host}:{port}", shown)
    finally:
        await server.close()


async def test_a_page_stream_sends_only_the_changed_parts():
    async with watching(make_view(make_port("cart"), make_port("web"))) as watcher:
        async with watcher.open() as response:
            assert response.content_type == "text/event-stream"
            first = await watcher.next(response)
            # Rates are available from the second sample on.
            await watcher.next(response)
            watcher.show(make_view(make_port("cart"), make_port("web", active=3)))
            second = await watcher.next(response)
        row = first["rows"][1]
        assert ">3<" in second["html"][row]
        assert first["rows"][0] not in second["html"]
        assert "ignored" not in second["html"]


async def test_a_page_stream_contains_only_the_selected_rows():
    async with watching(make_troubled_view()) as watcher, watcher.open("?q=cart") as response:
        first = await watcher.next(response)
    assert len(first["rows"]) == 1
    assert "shop/</span>cart" in first["html"][first["rows"][0]]


async def test_unencodable_names_do_not_end_a_stream():
    view = make_view(make_port("\ud800"), node="\udfff")
    async with watching(view) as watcher, watcher.open() as response:
        first = await watcher.next(response)
    assert first["title"] == "OK: ?, userspace-proxy"


async def test_the_number_of_streams_is_limited_and_other_requests_are_served():
    async with watching(make_view(make_port())) as watcher, contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(watcher.open()) for _ in range(MAX_STREAMS)]
        await asyncio.gather(*(watcher.next(stream) for stream in streams))
        refused = await stack.enter_async_context(watcher.open())
        assert refused.status == 503
        assert (await watcher.ask("/healthz")).status == 200
        streams[0].close()
        async with asyncio.timeout(WAIT_S):
            while (await stack.enter_async_context(watcher.open())).status == 503:
                pass


def open_as_nobody(_address):
    os.seteuid(OTHER_UID)
    try:
        return socket.socket()
    finally:
        os.seteuid(0)


@as_another_user
async def test_at_the_limit_the_client_with_the_most_streams_loses_its_oldest_stream():
    connector = aiohttp.TCPConnector(socket_factory=open_as_nobody)
    async with (
        watching(make_view(make_port())) as watcher,
        aiohttp.ClientSession(connector=connector, read_bufsize=2**24) as session,
        contextlib.AsyncExitStack() as stack,
    ):
        greedy = [await stack.enter_async_context(watcher.open()) for _ in range(MAX_STREAMS)]
        url = f"{watcher.url}/stream"
        others = [await stack.enter_async_context(session.get(url)) for _ in range(MAX_STREAMS)]
        share = MAX_STREAMS // 2
        assert [other.status for other in others] == [200] * share + [503] * share
        for stream in greedy[:share]:
            async with asyncio.timeout(WAIT_S):
                assert await has_ended(stream)
        for stream in (*greedy[share:], *others[:share]):
            assert await watcher.next(stream)
        refused = await stack.enter_async_context(watcher.open())
        assert refused.status == 503


async def has_ended(response):
    """Read a stream to its end, which may be in the middle of a chunk."""
    try:
        await response.read()
    except aiohttp.ClientError:
        return True
    return True


@pytest.mark.parametrize("path", ["/stream", "/api/v1/status?watch"])
async def test_a_cross_site_request_cannot_open_a_stream(path):
    async with watching(make_view()) as watcher:
        async with watcher.get(path, headers={"Sec-Fetch-Site": "cross-site"}) as response:
            assert response.status == 403
        async with watcher.get(path, headers={"Sec-Fetch-Site": "same-origin"}) as response:
            assert response.status == 200


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_a_stream_can_be_opened_only_with_get(method):
    async with watching(make_view()) as watcher:
        assert (await watcher.ask("/stream", method)).status == 405


async def next_line(response):
    """Return the next line of JSON that isn't empty."""
    async with asyncio.timeout(WAIT_S):
        while True:
            if text := (await response.content.readline()).strip():
                return json.loads(text)


async def test_a_watch_sends_the_json_and_later_its_changes():
    async with (
        watching(make_view(make_port("web"), make_port("cart"))) as watcher,
        watcher.get("/api/v1/status?watch&service=shop/web") as response,
    ):
        assert response.content_type == "application/x-ndjson"
        first = await next_line(response)
        watcher.show(make_view(make_port("web", refused=7), make_port("cart")))
        later = await next_line(response)
    assert [port["service"] for port in first["ports"]] == ["web"]
    assert later == {"now": NOW, "ports": [{**first["ports"][0], "refused": 7}]}


async def test_an_http_1_0_client_can_watch_a_compressed_summary():
    view = make_view(make_port("web"), make_port("db", endpoints=()))
    view.ports = diagnose(view.ports, view.source, view.health_checks)
    async with watching(view) as watcher:
        address = watcher.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(*address)
        writer.write(
            b"GET /api/v1/status?view=summary&watch&every=1 HTTP/1.0\r\n"
            b"Accept-Encoding: gzip\r\n\r\n"
        )
        with contextlib.closing(writer):
            async with asyncio.timeout(WAIT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"Content-Encoding: gzip" in head
                assert b"chunked" not in head
                receive = zlib.decompressobj(31)
                first = await next_decompressed(reader, receive)
                view = replace(view, revision=4712)
                watcher.show(view)
                later = await next_decompressed(reader, receive)
    assert [port["service"] for port in first["ports"]] == ["db"]
    assert first["served"] == 1
    assert later == {"now": NOW, "revision": 4712}


async def next_decompressed(reader, receive):
    text = b""
    while not text.strip():
        text = receive.decompress(await reader.read(2**16))
    return json.loads(text)


async def test_a_recovered_service_port_is_removed_from_a_summary():
    refused = make_view(make_port("web"), make_port("db", endpoints=()))
    well = make_view(make_port("web"), make_port("db"))
    for view in (refused, well):
        view.ports = diagnose(view.ports, view.source, view.health_checks)
    async with (
        watching(refused) as watcher,
        watcher.get("/api/v1/status?watch&view=summary&every=1") as response,
    ):
        await next_line(response)
        watcher.show(well)
        later = await next_line(response)
    assert [gone["service"] for gone in later["gone"]] == ["db"]
    assert later["served"] == 2


@pytest.mark.parametrize(
    ("cpu_s", "waits_s"),
    [
        pytest.param(0.001, 5.0, id="cheap"),
        pytest.param(0.08, 8.0, id="a-hundredth-of-a-core"),
        pytest.param(9.0, 30.0, id="at-most-30-s"),
    ],
)
def test_the_interval_of_a_stream_grows_with_its_cpu_time_up_to_30_s(cpu_s, waits_s):
    assert pause_after(cpu_s, every_s=5.0) == waits_s


async def test_watching_a_nonexistent_service_returns_404():
    async with watching(make_view(make_port("web"))) as watcher:
        async with watcher.get("/api/v1/status?watch&service=shop/wbe") as response:
            assert response.status == 404
        async with watcher.get("/api/v1/status?watch", method="HEAD") as response:
            assert response.content_type == "application/json"


class Client:
    """Receives a line for each view."""

    def __init__(self):
        self._changes, self._now = Changes(), NOW

    def see(self, *ports, service="", **view):
        self._now += 1
        view = make_view(*ports, **view)
        part = view.only(service) if service else view
        answer = make_answer(part, now=self._now, selection=Selection())
        line = self._changes.line(answer)
        assert line.endswith(b"\n")
        return json.loads(line) if line.strip() else None


WEB, CART = make_port("web"), make_port("cart")


def test_a_line_of_a_json_watch_is_empty_if_only_the_time_has_changed():
    client = Client()
    client.see(WEB, CART)
    assert client.see(WEB, CART) is None
    assert client.see(replace(WEB), CART) is None


def test_later_lines_of_a_json_watch_contain_only_changes():
    client = Client()
    client.see(WEB, CART)
    line = client.see(replace(WEB, refused=3), CART, revision=4712)
    assert line.keys() == {"now", "revision", "ports"}
    assert [(port["service"], port["refused"]) for port in line["ports"]] == [("web", 3)]
    assert client.see(replace(WEB, refused=3), CART, revision=4712) is None


def test_a_removed_service_port_is_reported_once():
    client = Client()
    client.see(WEB, CART)
    line = client.see(CART, revision=4711)
    web = {"namespace": "shop", "service": "web", "port": "http", "family": "IPv4", "side": ""}
    assert line["gone"] == [web]
    assert client.see(CART) is None
    assert [port["service"] for port in client.see(WEB, CART)["ports"]] == ["web"]


def test_lines_of_a_watched_service_match_the_recorded_text(tmp_path):
    assert changed(tmp_path, "watch") == []
