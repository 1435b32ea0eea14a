import asyncio
import contextlib
import json
import threading

import aiohttp
import pytest

from tests.port_keys import port_key
from userspace_proxy.causes.say import say
from userspace_proxy.causes.services import is_headless
from userspace_proxy.facts.connection import (
    FILTERS_MAX,
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    port_fields,
    read_connection,
)
from userspace_proxy.facts.edges import Calls
from userspace_proxy.model import DataPath
from userspace_proxy.model.durations import parse_duration
from userspace_proxy.policy import PathDecision
from userspace_proxy.status.connection_streams import EDGES_SHOWN, ROWS_AT_ONCE, read_filter
from userspace_proxy.status.observing import Observing, Watcher
from userspace_proxy.status.server import StatusServer
from userspace_proxy.status.stream import MAX_STREAMS

from ..dataplane.waiting import until
from ..refusals import why
from .views import NOW, make_ignored, make_port, make_view

WAIT_S = 20.0
PATH = "/api/v1/connections"
HEADLESS = make_ignored("shop/db", "", is_headless())
VIEW = make_view(make_port("web"), make_port("cart"), ignored=[HEADLESS])
AT = {"client": "10.0.0.7:1", "endpoint": "10.0.0.3:80", "cause": "complete"}
WEB, CART = (
    ConnectionFacts(**port_fields(port_key(f"shop/{name}:http")), **AT) for name in ("web", "cart")
)


class Served:
    """A running status server and a client session."""

    def __init__(self, session, url, observing):
        self.session = session
        self.url = url
        self.observing = observing

    def get(self, query="", **headers):
        return self.session.get(f"{self.url}{PATH}{query}", headers=headers)

    async def watched(self, response):
        """Wait until the stream observes connections."""
        async with asyncio.timeout(WAIT_S):
            assert await response.content.readline()
        await until(self.observing.filters)

    @staticmethod
    async def line(response):
        """Return the next line that isn't empty."""
        async with asyncio.timeout(WAIT_S):
            while not (line := (await response.content.readline()).strip()):
                pass
        return line


@contextlib.asynccontextmanager
async def serving(view=VIEW, detail="service"):
    observing = Observing(lambda: NOW)
    server = StatusServer(lambda: view, detail, clock=lambda: NOW, observing=observing)
    try:
        host, port = await server.serve_admin(("127.0.0.1", 0))
        async with aiohttp.ClientSession() as session:
            yield Served(session, f"http://{host}:{port}", observing)
    finally:
        await server.close()


@pytest.mark.parametrize("service", ["shop/web", "shop/web:http", "shop/web:80"])
async def test_a_connection_stream_sends_a_line_for_each_matching_connection(service):
    async with serving() as served, served.get(f"?watch&service={service}") as response:
        assert response.content_type == "application/x-ndjson"
        await served.watched(response)
        served.observing.deliver([CART, WEB])
        assert read_connection(await served.line(response)) == WEB


async def test_empty_lines_are_sent_periodically_while_there_are_no_connections():
    async with serving() as served, served.get("?watch") as response:
        async with asyncio.timeout(WAIT_S):
            assert [await response.content.readline() for _ in range(2)] == [b"\n", b"\n"]


async def test_a_connection_stream_starts_with_the_unobservable_service_ports():
    view = make_view(make_port("web", path=PathDecision(DataPath.KERNEL)))
    async with serving(view) as served, served.get("?watch") as response:
        one = read_connection(await served.line(response))
        assert (one.event, one.service) == (ConnectionEvent.UNSEEN, "shop/web:http")


async def test_the_pages_event_stream_contains_rows_and_the_client_table():
    async with serving() as served:
        served.observing.add_calls(
            [Calls(port_key("shop/web:http"), f"10.0.0.{n}", 1) for n in range(30)], 0
        )
        async with served.get("?watch", Accept="text/event-stream") as response:
            assert response.content_type == "text/event-stream"
            assert (await served.line(response)).startswith(b"retry: ")
            first = json.loads((await served.line(response)).removeprefix(b"data: "))
            assert (first["rows"], len(first["edges"])) == ([], EDGES_SHOWN + 1)
            served.observing.deliver([CART] * 3 + [WEB] * ROWS_AT_ONCE)
            event = json.loads((await served.line(response)).removeprefix(b"data: "))
            *rows, note = event["rows"]
            assert (len(rows), rows[0]["level"]) == (ROWS_AT_ONCE, "ok")
            assert rows[0]["cells"][1:3] == ["10.0.0.7:1", "shop/web:http"]
            assert (note["level"], note["cells"][4][:22]) == ("", "3 connections left out")


async def test_the_client_table_is_returned_without_the_watch_parameter():
    async with serving() as served:
        served.observing.add_calls([Calls(port_key("shop/web:http"), "10.0.0.7", 3)], 2)
        async with served.get() as response:
            answer = await response.json()
        assert answer["others"] == 2
        assert answer["edges"] == [
            {
                "client": "10.0.0.7",
                "client_pod": "",
                "service": "shop/web:http",
                "namespace": "shop",
                "name": "web",
                "port": "http",
                "connections": 3,
                "failed": 0,
                "last_at": NOW,
            }
        ]
        async with served.get("?service=shop/cart") as response:
            assert (await response.json())["edges"] == []


async def test_observation_stops_when_the_last_connection_stream_ends():
    async with serving() as served:
        async with served.get("?watch") as response:
            await served.watched(response)
        await until(lambda: not served.observing.filters())


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("?service=shop/wbe", 404, "there is no Service shop/wbe (did you mean shop/web?)"),
        ("?watch&service=shop/web:x", 404, "shop/web has no port x; it has 80 (http)"),
        (
            "?watch&service=shops",
            404,
            "there is no namespace shops with a Service (did you mean shop?)",
        ),
        ("?watch&service=shop/db", 404, f"shop/db is not served: {say(is_headless())}"),
        ("?watch&from=10.0.0", 400, "'10.0.0' is not an IP address"),
        ("?watch&slow=1", 400, f"slow: {why(parse_duration, '1')}"),
    ],
)
async def test_an_invalid_filter_is_rejected_with_the_reason(query, status, text):
    async with serving() as served, served.get(query) as response:
        assert response.status == status
        assert text in await response.text()


@pytest.mark.parametrize("query", ["?service=a/b", "?watch&service=a/b"])
async def test_service_names_are_looked_up_outside_the_event_loop(query, monkeypatch):
    threads = []
    monkeypatch.setattr(
        "userspace_proxy.status.connection_streams.say_missing",
        lambda _view, service: threads.append(threading.current_thread()) or service,
    )
    async with serving() as served, served.get(query) as response:
        assert response.status == 404
    assert len(threads) == 1
    assert threading.current_thread() not in threads


async def test_the_number_of_streams_is_limited():
    async with serving() as served, contextlib.AsyncExitStack() as others:
        for _ in range(MAX_STREAMS):
            response = await others.enter_async_context(served.get("?watch"))
            await response.content.readline()
        async with served.get("?watch") as response:
            assert response.status == 503
        assert len(served.observing.filters()) == 1


async def test_too_many_filters_are_reported_in_one_line_with_limit_and_remedy():
    async with serving() as served:
        with contextlib.ExitStack() as others:
            for n in range(FILTERS_MAX):
                watcher = Watcher(ConnectionFilter(client=f"10.0.0.{n}"))
                others.enter_context(served.observing.watch(watcher))
            async with served.get("?watch") as response:
                assert response.status == 503
                assert await response.text() == (
                    "64 different filters are watched already, which is the limit (end one of "
                    "them, or use the filter of another watcher)\n"
                )
            async with served.get("?watch&from=10.0.0.1") as response:
                assert response.status == 200
        async with served.get("?watch") as response:
            assert response.status == 200


async def test_a_cross_site_request_cannot_open_a_connection_stream():
    site = {"Sec-Fetch-Site": "cross-site"}
    async with serving() as served, served.get("?watch", **site) as response:
        assert response.status == 403


async def test_metrics_include_clients_only_at_endpoint_detail():
    for detail, has_clients in (("service", False), ("endpoint", True)):
        async with serving(detail=detail) as served:
            async with served.session.get(f"{served.url}/metrics") as response:
                text = await response.text()
            assert ("userspace_proxy_client_connections_total{" in text) is has_clients


def test_a_connection_filter_is_parsed_from_the_query():
    wanted = read_filter({"service": "shop", "from": "10.0.0.7", "slow": "1.5s", "failed": "yes"})
    assert (wanted.service, wanted.client, wanted.slow_s) == ("shop", "10.0.0.7", 1.5)
    assert (wanted.failed, wanted.saved) == (True, False)
