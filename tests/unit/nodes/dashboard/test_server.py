import asyncio
import re
import socket

import pytest
from aiohttp import ClientPayloadError

from tests.descriptors import descriptors_left
from userspace_proxy.errors import ListenError
from userspace_proxy_kubectl.nodes.dashboard.look import incident_link, node_link, service_link
from userspace_proxy_kubectl.nodes.dashboard.server import USUAL_PORT, Dashboard

from .clusters import HOSTILE, hostile_cluster, live_of, look_at, sick_cluster
from .test_entry import opened

INCIDENT = look_at(sick_cluster()).merged.incidents[0].incident.id
PAGES = (
    "/",
    "/nodes",
    "/nodes/node-3",
    "/nodes/node-4",
    "/services/shop/web",
    "/incidents",
    f"/incidents/{INCIDENT}",
    "/connections",
    "/map",
)


@pytest.mark.parametrize("path", PAGES)
async def test_each_page_is_served_with_the_security_headers(path):
    async with opened() as window:
        await window.ask(window.printed)
        response, text = await window.ask(f"{path}?q=")
        assert (response.status, response.content_type) == (200, "text/html")
        assert "prod" in text
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "path", ["/nodes/node-9", "/services/shop/none", "/incidents/0123456789ab", "/nodes/%3Cb%3E"]
)
async def test_a_nonexistent_page_returns_404_with_a_link_to_the_overview(path):
    async with opened() as window:
        await window.ask(window.printed)
        response, text = await window.ask(path)
        assert (response.status, '<a href="/">All nodes</a>' in text) == (404, True)
        assert "<b>" not in text


async def test_text_from_an_agent_is_escaped_on_every_page():
    look = look_at(hostile_cluster())
    paths = [*PAGES, node_link(HOSTILE), service_link(f"{HOSTILE}/{HOSTILE}"), "/?q=%3Cb%3E"]
    paths += [incident_link(one.incident.id) for one in look.merged.incidents]
    async with opened(hostile_cluster()) as window:
        await window.ask(window.printed)
        for path in paths:
            response, text = await window.ask(path)
            assert response.status in (200, 404), path
            assert not re.search("<b>|\u202e|\x1b", text), path
        _, text = await window.ask(node_link(HOSTILE))
        assert "&lt;b&gt;\\u202e\\u001b[31m" in text


@pytest.mark.parametrize("path", ["/api/v1/status", "/static/none.js", "/static/..%2fserver.py"])
async def test_an_unknown_path_of_the_dashboard_returns_404(path):
    async with opened() as window:
        await window.ask(window.printed)
        assert (await window.ask(path))[0].status == 404


@pytest.mark.parametrize("path", [*PAGES, "/services/shop/none"])
async def test_pages_have_an_event_stream_of_changes(path):
    async with opened() as window:
        await window.ask(window.printed)
        _, page = await window.ask(path)
        (stream,) = re.findall(r'type="text/event-stream" href="([^"]+)"', page)
        async with window.streaming(stream) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            first, second = [await window.event(response) for _ in range(2)]
        assert {*first["html"]} == {"state", "main", "age"}
        # Page and message differ only in ages, which are numbers.
        assert re.sub(r"\d", "", first["html"]["state"]) in re.sub(r"\d", "", page)
        # The second message contains only changed times.
        assert {*second} <= {"at", "html"}
        assert {*second.get("html", {})} <= {"age", "main"}


async def test_a_stream_ends_when_the_command_ends():
    async with opened() as window:
        await window.ask(window.printed)
        async with window.streaming("/stream/") as response:
            await window.event(response)
            await window.close()
            with pytest.raises(ClientPayloadError):
                await response.read()


async def test_requests_other_than_get_are_rejected():
    async with opened() as window:
        await window.ask(window.printed)
        for method in ("POST", "PUT", "DELETE"):
            async with window._session.request(method, f"{window.base}/nodes") as response:
                assert response.status == 405


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("style.css", "text/css"),
        ("dashboard.css", "text/css"),
        ("page.js", "text/javascript"),
        ("icon-trouble.svg", "image/svg+xml"),
        ("troubleshooting.html", "text/html"),
    ],
)
async def test_static_files_are_served(name, kind):
    async with opened() as window:
        await window.ask(window.printed)
        response, text = await window.ask(f"/static/{name}")
        assert (response.status, response.content_type) == (200, kind)
        assert text


async def test_the_default_port_is_used_if_free_and_failures_to_listen_are_reported():
    first, second = Dashboard(live_of(sick_cluster())), Dashboard(live_of(sick_cluster()))
    try:
        usual, other = await first.serve(), await second.serve()
        assert usual.once.startswith(f"http://127.0.0.1:{USUAL_PORT}/?secret=")
        assert f":{USUAL_PORT}/" not in other.printed
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
            third = Dashboard(live_of(sick_cluster()))
            with pytest.raises(ListenError, match=f"1:{port}: Address already in use .choose"):
                await third.serve(port)
        with descriptors_left(0), pytest.raises(ListenError, match="out of descriptors"):
            await third.serve()
    finally:
        await first.close()
        await second.close()


@pytest.mark.parametrize("is_named", [True, False])
async def test_the_url_has_a_localhost_name_only_where_such_names_resolve(is_named, monkeypatch):
    monkeypatch.setattr("userspace_proxy_kubectl.nodes.dashboard.server._IS_NAMED", is_named)
    async with opened() as window:
        assert (".localhost:" in window.printed) is is_named
        response, _ = await window.ask(window.once)
        assert ("Set-Cookie" in response.headers) is not is_named


async def test_a_closed_dashboard_refuses_connections():
    dashboard = Dashboard(live_of(sick_cluster()))
    addresses = await dashboard.serve()
    port = int(addresses.printed.split("/")[2].partition(":")[2])
    await dashboard.close()
    await dashboard.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
