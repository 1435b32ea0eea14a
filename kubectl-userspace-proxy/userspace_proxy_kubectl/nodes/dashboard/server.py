"""Runs the dashboard's HTTP server, on the loopback of the user's machine.

    / /nodes /nodes/… /services/… /incidents /incidents/… /connections /map /static/…
    /stream before each of these but /static/…: the page's changes, as server-sent events

Rule 1: as for a proxy's page, no request changes anything (GET and HEAD), only requests to a
loopback name are answered, and requests waiting for the same page share it.
Rule 2: pages are rendered in a thread, one page of a kind at a time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from aiohttp import web

from userspace_proxy import status
from userspace_proxy.errors import ListenError, shortage_hint
from userspace_proxy.facts.units import capitalised
from userspace_proxy.loops import close_server
from userspace_proxy.status.connections import MAX_CONNECTIONS, ConnectionLimit, LimitedServer
from userspace_proxy.status.markup import Parts
from userspace_proxy.status.middleware import Middleware, make_runner, serve_static
from userspace_proxy.status.sampling import PERIOD_S
from userspace_proxy.status.selection import Selection
from userspace_proxy.status.single_flight import SingleFlight
from userspace_proxy.status.stream import OpenStreams, Sent

from ..subset import missing_reason
from .client_calls import AllCalls
from .entry import HOST, Entry
from .live import Live
from .look import ClusterLook
from .map_page import render_map
from .markup import page_of
from .pages import (
    render_calls,
    render_incident,
    render_incidents,
    render_missing,
    render_node,
    render_nodes,
    render_overview,
)
from .service_page import render_service

USUAL_PORT = 10299
"""The first port that is tried."""

# Use no name on macOS: browsers resolve names in ``localhost`` themselves, except Safari, which
# asks the system.
_IS_NAMED = sys.platform != "darwin"

Page: TypeAlias = tuple[Parts, int]
"""The parts of a page, and the HTTP status of the answer."""
_Names: TypeAlias = Mapping[str, str]
"""The names in the path of a page's URL."""
_Maker: TypeAlias = Callable[[Live, Selection, _Names], Awaitable[Page]]
# The prefix that turns the URL of a page into the URL of its stream.
_STREAM = "/stream"


class Addresses(NamedTuple):
    """The URLs that open the dashboard."""

    printed: str
    """The URL for the user, which works as long as the server runs."""
    once: str
    """The URL for the browser that this program opens; it works once."""


class Dashboard:
    """Serves the pages about all nodes of one cluster.

    Args:
        live: The contents of the pages.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pages: dict[str, SingleFlight[Page]] = {}
        """Pages that are being rendered, by kind: a page that asks nodes delays only pages of its
        own kind."""
        self._streams = OpenStreams()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def serve(self, port: int = 0, path: str = "/") -> Addresses:
        """Start listening on loopback.

        Args:
            port: 0 for the default port, or for any free port if the default port isn't available.
            path: The page to which the returned URLs point.

        Raises:
            ListenError: The port isn't available.
        """
        sock = _open_socket(*((port,) if port else (USUAL_PORT, 0)))
        entry = Entry(sock.getsockname()[1], is_named=_IS_NAMED)
        middleware = Middleware(loopback_only=True, one_request=False, own_host=entry.host)
        self._runner = make_runner(middleware, self._routes())
        self._runner.app.middlewares.append(entry.admit)
        self._runner.app.on_response_prepare.append(_add_headers)
        await self._runner.setup()
        assert self._runner.server is not None
        limited = LimitedServer(self._runner.server, ConnectionLimit(MAX_CONNECTIONS))
        self._server = await asyncio.get_running_loop().create_server(limited, sock=sock)
        path = quote(path, safe="/%")
        return Addresses(entry.printed(path), entry.once(path))

    async def close(self) -> None:
        """Close the port and all connections; idempotent."""
        self._streams.close()
        server, self._server = self._server, None
        if server is not None:
            await close_server(server)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _routes(self) -> list[web.RouteDef]:
        pages: dict[str, _Maker] = {
            "/": _plain(render_overview),
            "/nodes": _plain(render_nodes),
            "/nodes/{node}": _node,
            "/services/{namespace}/{name}": _service,
            "/incidents": _plain(render_incidents),
            "/incidents/{id}": _incident,
            "/connections": _with_calls(render_calls),
            "/map": _with_calls(render_map),
        }
        routes = [web.get(path, partial(self._page, make)) for path, make in pages.items()]
        routes += [
            web.get(f"{_STREAM}{path}", partial(self._stream, make), allow_head=False)
            for path, make in pages.items()
        ]
        return [*routes, serve_static(__package__ or "", status.__name__)]

    async def _page(self, make: _Maker, request: web.Request) -> web.Response:
        asked = Selection.parse(request.query, request.rel_url.raw_path)
        parts, code = await self._made(make, request, asked)
        body = await asyncio.to_thread(page_of, parts, asked)
        return web.Response(status=code, body=body, content_type="text/html", charset="utf-8")

    async def _stream(self, make: _Maker, request: web.Request) -> web.StreamResponse:
        """Send the changes of a page, until the client disconnects."""
        path = request.rel_url.raw_path.removeprefix(_STREAM)
        asked, sent = Selection.parse(request.query, path), Sent()

        async def events() -> AsyncIterator[bytes]:
            while True:
                parts, _ = await self._made(make, request, asked)
                yield await asyncio.to_thread(sent.message, parts)
                await asyncio.sleep(PERIOD_S)  # noqa: TID251 - the period

        return await self._streams.send_events(request, events())

    async def _made(self, make: _Maker, request: web.Request, asked: Selection) -> Page:
        kind = asked.path.split("/")[1]
        pages = self._pages.setdefault(kind, SingleFlight())
        names = dict(request.match_info)
        return await pages.get(asked, partial(make, self._live, asked, names))


def _plain(render: Callable[[ClusterLook, Selection], Parts]) -> _Maker:
    """Return the renderer of a page that needs only the latest answers."""

    async def make(live: Live, asked: Selection, _: _Names) -> Page:
        return await asyncio.to_thread(render, await live.look(), asked), 200

    return make


def _with_calls(render: Callable[[ClusterLook, AllCalls, Selection], Parts]) -> _Maker:
    """Return the renderer of a page that also needs the clients' calls."""

    async def make(live: Live, asked: Selection, _: _Names) -> Page:
        look, calls = await live.look(), await live.calls()
        return await asyncio.to_thread(render, look, calls, asked), 200

    return make


async def _node(live: Live, asked: Selection, names: _Names) -> Page:
    look, node = await live.look(), names["node"]
    parts = await asyncio.to_thread(render_node, look, asked, node)
    return _or_missing(parts, look, asked, f"There is no node {node}")


async def _service(live: Live, asked: Selection, names: _Names) -> Page:
    service = "{namespace}/{name}".format_map(names)
    look, calls = await asyncio.gather(live.look_at(service), live.calls(service))
    parts = await asyncio.to_thread(render_service, look, calls, asked, service)
    why = await asyncio.to_thread(missing_reason, look.all_nodes, service)
    words = capitalised(why or f"No node has a Service {service}")
    return _or_missing(parts, look, asked, words)


async def _incident(live: Live, asked: Selection, names: _Names) -> Page:
    look = await live.look()
    parts = await asyncio.to_thread(render_incident, look, asked, names["id"])
    return _or_missing(parts, look, asked, "This is over: no Service has this cause any more")


def _or_missing(parts: Parts | None, look: ClusterLook, asked: Selection, words: str) -> Page:
    return (parts, 200) if parts is not None else (render_missing(look, asked, words), 404)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    # A page on another port of this machine is same-site, so without this header it could keep a
    # handle of the window.
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"


def _open_socket(port: int, *others: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port), backlog=MAX_CONNECTIONS)
    except OSError as exc:
        if others and exc.errno in (errno.EADDRINUSE, errno.EACCES):
            return _open_socket(*others)
        raise ListenError(
            f"cannot serve the dashboard on {HOST}:{port}: {os.strerror(exc.errno or 0)}",
            hint=shortage_hint(exc.errno)
            or "choose another port with --port, or none for any free one",
        ) from exc
