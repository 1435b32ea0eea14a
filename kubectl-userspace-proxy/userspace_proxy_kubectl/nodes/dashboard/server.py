"""The dashboard's HTTP server, on loopback of its user's machine.

    / /nodes /nodes/… /services/… /incidents /incidents/… /connections /map /static/…

Rule 1: as for a proxy's page, no request changes anything (GET and HEAD), only requests to a
loopback name are answered, and requests that wait for the same page share it.
Rule 2: pages are rendered in a thread, one of a kind at a time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import resources
from typing import NamedTuple
from urllib.parse import quote

from aiohttp import web

from userspace_proxy import status
from userspace_proxy.errors import ListenError
from userspace_proxy.facts.units import capitalised
from userspace_proxy.loops import close_server
from userspace_proxy.status.connections import MAX_CONNECTIONS, ConnectionLimit, LimitedServer
from userspace_proxy.status.middleware import Middleware, make_runner
from userspace_proxy.status.single_flight import SingleFlight

from ..selected import why_missing
from .entry import HOST, Entry
from .live import Live
from .look import ClusterLook, PageRequest
from .map_page import render_map
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
"""The first that is tried."""

# Browsers find names in ``localhost`` by themselves, but for Safari, which asks the system.
_IS_NAMED = sys.platform != "darwin"
_OWN, _OF_PROXY = __package__ or "", status.__name__
_STATIC = {
    "dashboard.css": (_OWN, "text/css"),
    "dashboard.js": (_OWN, "text/javascript"),
    "style.css": (_OF_PROXY, "text/css"),
    "incident.css": (_OF_PROXY, "text/css"),
    "guide.css": (_OF_PROXY, "text/css"),
    "troubleshooting.html": (_OF_PROXY, "text/html"),
    "icon-ok.svg": (_OF_PROXY, "image/svg+xml"),
    "icon-attention.svg": (_OF_PROXY, "image/svg+xml"),
    "icon-trouble.svg": (_OF_PROXY, "image/svg+xml"),
}

Page = tuple[bytes, int]
"""A body in UTF-8, and its status."""


class Addresses(NamedTuple):
    """Where a browser begins."""

    printed: str
    """For its user, as long as the server runs."""
    once: str
    """For the browser that is started; works once."""


class Dashboard:
    """Shows all nodes of one cluster.

    Args:
        live: What it shows.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pages: dict[str, SingleFlight[Page]] = {}
        """By kind: a page that asks nodes holds up only its own kind."""
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def serve(self, port: int = 0, path: str = "/") -> Addresses:
        """Begin to listen on loopback.

        Args:
            port: 0: the usual one, or if that is taken any free one.
            path: The page that the addresses lead to.

        Raises:
            ListenError: The port isn't available.
        """
        sock = _open_socket(port)
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
        server, self._server = self._server, None
        if server is not None:
            await close_server(server)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", partial(self._plain, render_overview)),
            web.get("/nodes", partial(self._plain, render_nodes)),
            web.get("/nodes/{node}", self._node),
            web.get("/services/{namespace}/{name}", self._service),
            web.get("/incidents", partial(self._plain, render_incidents)),
            web.get("/incidents/{id}", self._incident),
            web.get("/connections", self._calls),
            web.get("/map", self._map),
            web.get("/static/{name}", self._static),
        ]

    async def _plain(
        self, render: Callable[[ClusterLook, PageRequest], bytes], request: web.Request
    ) -> web.Response:
        """Answer with a page that needs no more than the last answers."""

        async def make(asked: PageRequest) -> Page:
            look = await self._live.look()
            return await asyncio.to_thread(render, look, asked), 200

        return await self._page(request, make)

    async def _node(self, request: web.Request) -> web.Response:
        async def make(asked: PageRequest) -> Page:
            look, node = await self._live.look(), request.match_info["node"]
            body = await asyncio.to_thread(render_node, look, asked, node)
            return _or_missing(body, look, asked, f"There is no node {node}")

        return await self._page(request, make)

    async def _service(self, request: web.Request) -> web.Response:
        service = "{namespace}/{name}".format_map(request.match_info)

        async def make(asked: PageRequest) -> Page:
            look, calls = await asyncio.gather(
                self._live.look_at(service), self._live.calls(service)
            )
            body = await asyncio.to_thread(render_service, look, calls, asked, service)
            why = await asyncio.to_thread(why_missing, look.all_nodes, service)
            words = capitalised(why or f"No node has a Service {service}")
            return _or_missing(body, look, asked, words)

        return await self._page(request, make)

    async def _incident(self, request: web.Request) -> web.Response:
        async def make(asked: PageRequest) -> Page:
            look, id_ = await self._live.look(), request.match_info["id"]
            body = await asyncio.to_thread(render_incident, look, asked, id_)
            return _or_missing(
                body, look, asked, "This is over: no Service has this cause any more"
            )

        return await self._page(request, make)

    async def _calls(self, request: web.Request) -> web.Response:
        async def make(asked: PageRequest) -> Page:
            look, calls = await self._live.look(), await self._live.calls()
            return await asyncio.to_thread(render_calls, look, calls, asked), 200

        return await self._page(request, make)

    async def _map(self, request: web.Request) -> web.Response:
        async def make(asked: PageRequest) -> Page:
            look, calls = await self._live.look(), await self._live.calls()
            return await asyncio.to_thread(render_map, look, calls, asked), 200

        return await self._page(request, make)

    async def _page(
        self, request: web.Request, make: Callable[[PageRequest], Awaitable[Page]]
    ) -> web.Response:
        asked = PageRequest.read(request.rel_url.raw_path, request.query)
        kind = request.rel_url.path.split("/")[1]
        pages = self._pages.setdefault(kind, SingleFlight())
        body, code = await pages.get(asked, partial(make, asked))
        return web.Response(status=code, body=body, content_type="text/html", charset="utf-8")

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in _STATIC:
            raise web.HTTPNotFound
        package, kind = _STATIC[name]
        body = (resources.files(package) / "static" / name).read_bytes()
        return web.Response(body=body, content_type=kind, charset="utf-8")


def _or_missing(body: bytes | None, look: ClusterLook, asked: PageRequest, words: str) -> Page:
    return (body, 200) if body is not None else (render_missing(look, asked, words), 404)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    # A page on another port of this machine is of the same site, and could keep a window's handle.
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"


def _open_socket(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port or USUAL_PORT), backlog=MAX_CONNECTIONS)
    except OSError as exc:
        if not port and exc.errno in (errno.EADDRINUSE, errno.EACCES):
            return socket.create_server((HOST, 0), backlog=MAX_CONNECTIONS)
        why = exc.strerror or str(exc)
        raise ListenError(
            f"cannot serve the dashboard on {HOST}:{port or USUAL_PORT}: {why}",
            hint="choose another port with --port, or none for any free one",
        ) from exc
