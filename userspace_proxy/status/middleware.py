"""Middleware for every request and response of the status servers.

request ──▶ time to answer ──▶ Host allowed? ──▶ handler ──▶ headers ──▶ answer
"""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from .connections import answering
from .hosts import is_loopback_host

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # aiohttp would send its version, and Python's.
    "Server": "userspace-proxy",
    "X-Content-Type-Options": "nosniff",
}


class Middleware:
    """The way into one server.

    Args:
        loopback_only: Answer only requests whose ``Host`` is a name of loopback.
        one_request: Close every connection after its first answer.
    """

    def __init__(self, *, loopback_only: bool, one_request: bool) -> None:
        self._loopback_only = loopback_only
        self._one_request = one_request

    @web.middleware
    async def pass_through(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request in, or answer it here; the application's only middleware."""
        with answering(request):
            return await self._answer(request, handler)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        # No Host at all is HTTP/1.0, which no browser speaks.
        if self._loopback_only and not all(map(is_loopback_host, hosts)):
            return web.Response(
                status=403,
                text="This address answers only to localhost, 127.0.0.1 and [::1] as Host, "
                "so that no web site can read it through a browser (DNS rebinding).\n",
            )
        try:
            response = await handler(request)
        except web.HTTPException as exc:
            # No such path, or a method other than GET and HEAD: keep what aiohttp says.
            response = web.Response(status=exc.status, text=f"{exc.reason}\n")
            if "Allow" in exc.headers:
                response.headers["Allow"] = exc.headers["Allow"]
        if self._one_request:
            response.force_close()
        return response

    async def add_headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Put the security headers on every answer."""
        response.headers.update(HEADERS)


def http_logger() -> logging.Logger:
    """Return aiohttp's logger without what strangers can fill it with.

    It logs a traceback for every request that is no HTTP, and the health port is open
    to every scanner of the network.
    """
    logger = logging.getLogger("userspace_proxy.status.http")
    if _is_ours not in logger.filters:
        logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
