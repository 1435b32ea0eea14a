"""The two HTTP servers of a proxy: one for load balancers, one for people and scrapers.

    0.0.0.0:10256    /healthz /livez                      all that reach the node
    127.0.0.1:10249  / /metrics /configz /api/v1/status   all on the node

Rule 1: the view is asked for in the event loop, and rendered in a thread: ten thousand
Services take about a second, and connections are carried meanwhile.
Rule 2: nothing here changes anything: GET and HEAD, no form that acts, no cookie.
Rule 3: on loopback only requests to a loopback name are answered (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import TypeVar

from aiohttp import web

from .accepting import Accepting, Reserve
from .api import render_configz, render_status
from .connections import MAX_CONNECTIONS, ConnectionLimit, LimitedServer
from .health import HealthAnswer, answer_healthz, answer_livez
from .hosts import is_loopback_address
from .listening import ListenAt, address_of, open_socket
from .metrics import ProbeCounts, SyncMetrics, render_metrics
from .middleware import Middleware, http_logger
from .page import render_page
from .selection import Selection
from .view import StatusView

_T = TypeVar("_T")

# Between Prometheus' usual scrapes a connection is cheaper to make anew than to keep.
_KEEPALIVE_S = 30.0
# What is under way when the proxy ends gets this long: probes and pages are repeated.
_CLOSE_S = 1.0
_STATIC = {
    "style.css": "text/css",
    "focus.js": "text/javascript",
    "icon-ok.svg": "image/svg+xml",
    "icon-attention.svg": "image/svg+xml",
    "icon-trouble.svg": "image/svg+xml",
}


class StatusServer:
    """Shows the state of one proxy.

    Args:
        view: Returns the state at this moment; called in the event loop, once a request.
        health: As ``view``, but asked for probes, which come more often than people; it
            may leave the Service ports out. None: ``view``.
        refresh: Awaited before ``view``, where counters have to be asked for first.
        sync: How long the rounds took; the agent feeds the same object.
        clock: Returns the Unix time.
    """

    def __init__(
        self,
        view: Callable[[], StatusView],
        *,
        health: Callable[[], StatusView] | None = None,
        refresh: Callable[[], Awaitable[None]] | None = None,
        sync: SyncMetrics | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.sync = sync or SyncMetrics()
        self._view = view
        self._health = health or view
        self._refresh = refresh
        self._clock = clock
        self._probes = ProbeCounts()
        # One page is rendered at a time: each holds the interpreter for a part of a
        # second, and a flood of requests must not start a flood of threads.
        self._rendering = asyncio.Lock()
        self._open: list[tuple[Accepting, web.AppRunner]] = []
        self._reserve = Reserve()

    async def serve_health(self, bind: ListenAt) -> tuple[str, int]:
        """Open the port that load balancers and the kubelet probe.

        Args:
            bind: Where. A socket given here is ours to close.

        Returns:
            The address that is bound, with the port chosen if 0 was asked for.

        Raises:
            ListenError: The address can't be had; it names ``--healthz-bind-address``.
        """
        sock = await open_socket(bind, what="health checks", flag="--healthz-bind-address")
        middleware = Middleware(loopback_only=False, one_request=True)
        app = web.Application(middlewares=[middleware.pass_through])
        app.add_routes(self._probe_routes())
        return await self._serve(app, middleware, sock)

    async def serve_admin(self, bind: ListenAt) -> tuple[str, int]:
        """Open the port with the page, the metrics and the JSON answers.

        Args:
            bind: Where. A socket given here is ours to close.

        Returns:
            The address that is bound, with the port chosen if 0 was asked for.

        Raises:
            ListenError: The address can't be had; it names ``--metrics-bind-address``.
        """
        sock = await open_socket(bind, what="the status page", flag="--metrics-bind-address")
        loopback_only = is_loopback_address(address_of(sock)[0])
        middleware = Middleware(loopback_only=loopback_only, one_request=False)
        app = web.Application(middlewares=[middleware.pass_through])
        app.add_routes(self._probe_routes())
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/metrics", self._metrics),
                web.get("/proxyMode", self._proxy_mode),
                web.get("/configz", self._configz),
                web.get("/api/v1/status", self._status),
                web.get("/static/{name}", self._static),
            ]
        )
        return await self._serve(app, middleware, sock)

    async def close(self) -> None:
        """Close every port and connection; idempotent."""
        while self._open:
            server, runner = self._open.pop()
            server.close()
            await runner.cleanup()
        self._reserve.close()
        # aiohttp keeps the last thousand handlers (lru_cache in web_app), and what they refer to.
        self._view = self._health = _is_closed
        self._refresh = None

    async def _serve(
        self, app: web.Application, middleware: Middleware, sock: socket.socket
    ) -> tuple[str, int]:
        app.on_response_prepare.append(middleware.add_headers)
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=_KEEPALIVE_S,
            logger=http_logger(),
            shutdown_timeout=_CLOSE_S,
        )
        await runner.setup()
        assert runner.server is not None
        limited = LimitedServer(runner.server, ConnectionLimit(MAX_CONNECTIONS))
        self._open.append((Accepting(limited, sock, self._reserve), runner))
        return address_of(sock)

    def _probe_routes(self) -> list[web.RouteDef]:
        return [web.get("/healthz", self._healthz), web.get("/livez", self._livez)]

    async def _healthz(self, _request: web.Request) -> web.Response:
        return self._probe("healthz", answer_healthz(self._health(), self._clock()))

    async def _livez(self, _request: web.Request) -> web.Response:
        return self._probe("livez", answer_livez(self._health(), self._clock()))

    def _probe(self, name: str, answer: HealthAnswer) -> web.Response:
        self._probes.count(name, answer.status)
        return web.Response(status=answer.status, body=answer.body, content_type="application/json")

    async def _page(self, request: web.Request) -> web.Response:
        view, now, selection = await self._fresh(), self._clock(), Selection.parse(request.query)
        body = await self._render(lambda: render_page(view, now=now, selection=selection))
        return web.Response(body=body, content_type="text/html", charset="utf-8")

    async def _metrics(self, request: web.Request) -> web.Response:
        view, accept = await self._fresh(), request.headers.get("Accept", "")
        taken = [self.sync.family(), *self._probes.families()]
        page = await self._render(lambda: render_metrics(view, taken, accept=accept))
        return web.Response(body=page.body, headers={"Content-Type": page.content_type})

    async def _status(self, request: web.Request) -> web.Response:
        view, now, selection = await self._fresh(), self._clock(), Selection.parse(request.query)
        body = await self._render(lambda: render_status(view, now=now, selection=selection))
        return web.Response(body=body, content_type="application/json")

    async def _configz(self, _request: web.Request) -> web.Response:
        return web.Response(body=render_configz(self._view()), content_type="application/json")

    async def _proxy_mode(self, _request: web.Request) -> web.Response:
        # Kubernetes' e2e tests and some installers ask for this.
        return web.Response(text="userspace")

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in _STATIC:
            raise web.HTTPNotFound
        body = (resources.files(__package__) / "static" / name).read_bytes()
        return web.Response(body=body, content_type=_STATIC[name], charset="utf-8")

    async def _fresh(self) -> StatusView:
        if self._refresh is not None:
            await self._refresh()
        return self._view()

    async def _render(self, render: Callable[[], _T]) -> _T:
        async with self._rendering:
            return await asyncio.to_thread(render)


def _is_closed() -> StatusView:
    raise RuntimeError("this status server is closed")
