"""Creates the HTTP application of a status server, with middleware for requests and responses.

request ──▶ restart deadline ──▶ Host allowed? ──▶ handler ──▶ headers ──▶ answer
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib import resources
from pathlib import PurePath

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from ..hosts import is_loopback_host
from .connections import note_request, send
from .http_answer import PROGRAM

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # Replaces aiohttp's default, which contains its version and Python's.
    "Server": PROGRAM,
    "X-Content-Type-Options": "nosniff",
}
_KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# How long an idle connection stays open. At the usual scrape interval, a new connection costs less
# than an open one.
_KEEPALIVE_S = 30.0
# How long pending requests may take once the proxy stops; clients retry probes and pages.
_CLOSE_S = 1.0


class Middleware:
    """The middleware of one server.

    Args:
        loopback_only: Answer only requests whose ``Host``, if any, is a loopback name.
        one_request: Close every connection after its first answer.
        own_host: Also answer requests to this ``Host``.
    """

    def __init__(self, *, loopback_only: bool, one_request: bool, own_host: str = "") -> None:
        self._loopback_only = loopback_only
        self._own_host = own_host
        self._one_request = one_request

    @web.middleware
    async def pass_through(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        note_request(request)
        return await send(request, await self._answer(request, handler))

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        # Allow a request without Host: it is HTTP/1.0, which browsers don't use.
        is_own = hosts == [self._own_host]
        if self._loopback_only and not is_own and not all(map(is_loopback_host, hosts)):
            return web.Response(
                status=403,
                text="This address answers only to localhost, 127.0.0.1 and [::1] as Host, "
                "so that no web site can read it through a browser (DNS rebinding).\n",
            )
        try:
            response = await handler(request)
        except web.HTTPException as exc:
            # The path or method doesn't exist, or the handler rejects the request.
            response = web.Response(status=exc.status, text=f"{exc.reason}\n")
            if "Allow" in exc.headers:
                response.headers["Allow"] = exc.headers["Allow"]
        if self._one_request:
            response.force_close()
        return response

    async def add_headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)


def make_runner(middleware: Middleware, routes: Iterable[web.AbstractRouteDef]) -> web.AppRunner:
    """Return the HTTP application of a server; the caller calls ``setup`` and ``cleanup``."""
    app = web.Application(middlewares=[middleware.pass_through])
    app.add_routes(routes)
    app.on_response_prepare.append(middleware.add_headers)
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=_KEEPALIVE_S,
        logger=http_logger(),
        shutdown_timeout=_CLOSE_S,
    )


def serve_static(*packages: str) -> web.RouteDef:
    """Return the route of the files in the ``static`` folders of these packages."""
    folders = [resources.files(package) / "static" for package in packages]
    files = {file.name: file for folder in folders for file in folder.iterdir()}

    async def answer(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in files:
            raise web.HTTPNotFound
        kind, body = _KINDS[PurePath(name).suffix], files[name].read_bytes()
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return web.get("/static/{name}", answer)


def http_logger() -> logging.Logger:
    """Return aiohttp's logger, with a filter that drops errors that any client can cause.

    Without it, every request that isn't HTTP would cause a traceback, and any scanner can reach the
    health port.
    """
    logger = logging.getLogger("userspace_proxy.status.http")
    if _is_internal not in logger.filters:
        logger.addFilter(_is_internal)
    return logger


def _is_internal(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    # A client may disconnect before "100 Continue", which aiohttp itself sends.
    return not isinstance(error, HttpProcessingError | ConnectionResetError)
