"""Serves toxiproxy's HTTP API to toxiproxy's clients (Go, Ruby, Node, Python, …).

Rule 1: requests that a web page can cause a browser to send are refused, because any page in a
browser on this machine can reach a loopback address.
Rule 2: changes are serialised, so no change sees another change half done.

Source: toxiproxy's README (HTTP API), and api.go for statuses and the form of errors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler

from userspace_proxy.errors import ListenError, UserspaceProxyError
from userspace_proxy.hosts import is_loopback_host
from userspace_proxy.loops import close_server

from .toxics import DOWNSTREAM, NamedToxic, read_toxic

VERSION = "2.9.0"
"""The version of toxiproxy with this API."""

_Handler = Callable[[web.Request], Awaitable[web.Response]]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    """A proxy in toxiproxy's terms: a listener and an upstream; here, a Service."""

    name: str
    listen: str
    upstream: str
    enabled: bool
    toxics: Sequence[NamedToxic]


class ToxiproxyServices(Protocol):
    """The Services behind the API, with toxiproxy's names."""

    def all(self) -> Sequence[ProxyInfo]:
        """Return all Services."""

    async def create(self, name: str, listen: str, upstream: str, *, enabled: bool) -> None:
        """Serve a Service with one endpoint at ``listen``; port 0 is any free port."""

    async def update(
        self, name: str, listen: str | None, upstream: str | None, enabled: bool | None
    ) -> None:
        """Change a Service; None leaves a property unchanged."""

    async def delete(self, name: str) -> None:
        """Stop serving a Service."""

    def is_at(self, name: str, listen: str, upstream: str) -> bool:
        """Return whether a Service already has these addresses."""

    def set_toxic(self, name: str, toxic: NamedToxic) -> None:
        """Add a toxic, or replace the toxic with the same name."""

    def remove_toxic(self, name: str, toxic: str) -> None:
        """Remove a toxic."""


class _ApiError(UserspaceProxyError):
    """An error that is sent to the client as a response with ``status``."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ToxiproxyApi:
    """An HTTP server for toxiproxy's API, which changes the given Services."""

    def __init__(self, services: ToxiproxyServices) -> None:
        self._services = services
        self._change = asyncio.Lock()
        self._loopback_only = False
        self._runner = web.AppRunner(self._application(), access_log=None)
        self._server: asyncio.Server | None = None

    async def serve(self, bind: tuple[str, int]) -> tuple[str, int]:
        """Serve the API until :meth:`close`, and return the address; port 0 is any free port.

        Raises:
            ListenError: The address isn't available.
        """
        await self._runner.setup()
        assert self._runner.server is not None
        host, port = bind
        self._loopback_only = is_loopback_host(f"[{host}]" if ":" in host else host)
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._runner.server, host, port)
        except OSError as exc:
            what = f"cannot serve toxiproxy's API on {host}:{port}: {exc.strerror}"
            raise ListenError(what, hint="choose another address, or port 0") from exc
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def close(self) -> None:
        """Stop serving the API. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            await close_server(server)
        await self._runner.cleanup()

    @web.middleware
    async def _refuse_browsers(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # In some browsers, scripts can set User-Agent, but no browser lets them set Host, so both
        # headers are checked.
        if request.headers.get("User-Agent", "").startswith("Mozilla/"):
            return web.Response(text="User agent not allowed\n", status=403)
        hosts = request.headers.getall("Host", [])
        if self._loopback_only and not all(map(is_loopback_host, hosts)):
            return web.Response(text="Host not allowed: use localhost or its address\n", status=403)
        return await handler(request)

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._refuse_browsers])
        one, toxic = "/proxies/{proxy}", "/proxies/{proxy}/toxics/{toxic}"
        routes: Sequence[tuple[str, str, _Handler]] = (
            ("GET", "/version", self._version),
            ("POST", "/reset", self._reset),
            ("GET", "/proxies", self._list),
            ("POST", "/proxies", self._create),
            ("POST", "/populate", self._populate),
            ("GET", one, self._show),
            ("POST", one, self._update),
            ("PATCH", one, self._update),
            ("DELETE", one, self._delete),
            ("GET", f"{one}/toxics", self._toxics),
            ("POST", f"{one}/toxics", self._add_toxic),
            ("GET", toxic, self._show_toxic),
            ("POST", toxic, self._change_toxic),
            ("PATCH", toxic, self._change_toxic),
            ("DELETE", toxic, self._remove_toxic),
        )
        for method, path, handler in routes:
            app.router.add_route(method, path, self._answering(handler))
        return app

    def _answering(self, handler: _Handler) -> _Handler:
        """Return a handler that turns errors into toxiproxy's responses."""

        async def answer(request: web.Request) -> web.Response:
            # Read the body first, so that a client that sends it slowly doesn't block changes.
            await request.read()
            try:
                if request.method == "GET":
                    return await handler(request)
                async with self._change:
                    return await handler(request)
            except _ApiError as exc:
                return _json({"error": str(exc), "status": exc.status}, status=exc.status)
            except ListenError as exc:
                return _json({"error": str(exc), "status": 500}, status=500)
            except (UserspaceProxyError, ValueError, TypeError) as exc:
                return _json({"error": str(exc), "status": 400}, status=400)

        return answer

    async def _version(self, _request: web.Request) -> web.Response:
        return _json({"version": VERSION})

    async def _reset(self, _request: web.Request) -> web.Response:
        for proxy in self._services.all():
            for toxic in proxy.toxics:
                self._services.remove_toxic(proxy.name, toxic.name)
            await self._services.update(proxy.name, None, None, enabled=True)
        return web.Response(status=204)

    async def _list(self, _request: web.Request) -> web.Response:
        return _json({proxy.name: _proxy(proxy) for proxy in self._services.all()})

    async def _create(self, request: web.Request) -> web.Response:
        wanted = _read_proxy(await _body(request))
        if self._has(wanted.name):
            raise _ApiError(409, "proxy already exists")
        return _json(_proxy(await self._made(wanted)), status=201)

    async def _populate(self, request: web.Request) -> web.Response:
        """Create proxies; an existing proxy is replaced if its addresses differ, otherwise kept."""
        bodies = enumerate(await _body(request, list), 1)
        made = []
        for wanted in [_read_proxy(body, f" at proxy {number}") for number, body in bodies]:
            if self._has(wanted.name):
                if self._services.is_at(wanted.name, wanted.listen, wanted.upstream):
                    made.append(_proxy(self._found(wanted.name)))
                    continue
                await self._services.delete(wanted.name)
            made.append(_proxy(await self._made(wanted)))
        return _json({"proxies": made}, status=201)

    async def _made(self, wanted: ProxyInfo) -> ProxyInfo:
        name, listen, upstream = wanted.name, wanted.listen, wanted.upstream
        await self._services.create(name, listen, upstream, enabled=wanted.enabled)
        return self._found(name)

    def _has(self, name: str) -> bool:
        return any(proxy.name == name for proxy in self._services.all())

    async def _show(self, request: web.Request) -> web.Response:
        return _json(_proxy(self._of(request)))

    async def _update(self, request: web.Request) -> web.Response:
        name, wanted = self._of(request).name, await _body(request)
        await self._services.update(
            name,
            _field(wanted, "listen", str),
            _field(wanted, "upstream", str),
            _field(wanted, "enabled", bool),
        )
        return _json(_proxy(self._found(name)))

    async def _delete(self, request: web.Request) -> web.Response:
        await self._services.delete(self._of(request).name)
        return web.Response(status=204)

    async def _toxics(self, request: web.Request) -> web.Response:
        return _json([_toxic(toxic) for toxic in self._of(request).toxics])

    async def _add_toxic(self, request: web.Request) -> web.Response:
        proxy, wanted = self._of(request), await _body(request)
        toxic = read_toxic(
            _field(wanted, "type", str) or "",
            _attributes(wanted),
            name=_field(wanted, "name", str) or "",
            stream=(_field(wanted, "stream", str) or DOWNSTREAM).lower(),
            toxicity=wanted.get("toxicity", 1.0),
        )
        if any(have.name == toxic.name for have in proxy.toxics):
            raise _ApiError(409, "toxic already exists")
        self._services.set_toxic(proxy.name, toxic)
        return _json(_toxic(toxic))

    async def _show_toxic(self, request: web.Request) -> web.Response:
        return _json(_toxic(self._toxic_of(request)))

    async def _change_toxic(self, request: web.Request) -> web.Response:
        old, wanted = self._toxic_of(request), await _body(request)
        toxic = read_toxic(
            old.toxic.TYPE,
            {**old.toxic.attributes(), **_attributes(wanted)},
            name=old.name,
            stream=old.stream,
            toxicity=wanted.get("toxicity", old.toxicity),
        )
        self._services.set_toxic(self._of(request).name, toxic)
        return _json(_toxic(toxic))

    async def _remove_toxic(self, request: web.Request) -> web.Response:
        toxic = self._toxic_of(request)
        self._services.remove_toxic(self._of(request).name, toxic.name)
        return web.Response(status=204)

    def _of(self, request: web.Request) -> ProxyInfo:
        return self._found(request.match_info["proxy"])

    def _found(self, name: str) -> ProxyInfo:
        for proxy in self._services.all():
            if proxy.name == name:
                return proxy
        raise _ApiError(404, "proxy not found")

    def _toxic_of(self, request: web.Request) -> NamedToxic:
        for toxic in self._of(request).toxics:
            if toxic.name == request.match_info["toxic"]:
                return toxic
        raise _ApiError(404, "toxic not found")


async def _body(request: web.Request, type_: type = dict) -> Any:
    try:
        body = json.loads(await request.text())
    except (ValueError, LookupError, RecursionError) as exc:
        # The body isn't JSON, has an unknown charset, or is nested too deeply.
        raise _ApiError(400, f"bad request body: {exc}") from exc
    if not isinstance(body, type_):
        raise _ApiError(400, f"bad request body: expected {type_.__name__}")
    return body


def _read_proxy(wanted: Any, place: str = "") -> ProxyInfo:
    if not isinstance(wanted, dict):
        raise _ApiError(400, f"bad request body: expected dict{place}")
    for field in ("name", "upstream"):
        if not isinstance(wanted.get(field), str) or not wanted[field]:
            raise _ApiError(400, f"missing required field: {field}{place}")
    return ProxyInfo(
        wanted["name"],
        _field(wanted, "listen", str, place) or "127.0.0.1:0",
        wanted["upstream"],
        enabled=_field(wanted, "enabled", bool, place) is not False,
        toxics=(),
    )


def _attributes(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    return _field(wanted, "attributes", dict) or {}


def _field(wanted: Mapping[str, Any], name: str, type_: type[_T], place: str = "") -> _T | None:
    """Return a field, or None if it is missing or null; raise _ApiError for another type."""
    value = wanted.get(name)
    if value is not None and not isinstance(value, type_):
        raise _ApiError(400, f"bad request body: {name}: expected {type_.__name__}{place}")
    return value


def _proxy(proxy: ProxyInfo) -> dict[str, object]:
    return {
        "name": proxy.name,
        "listen": proxy.listen,
        "upstream": proxy.upstream,
        "enabled": proxy.enabled,
        "toxics": [_toxic(toxic) for toxic in proxy.toxics],
    }


def _toxic(named: NamedToxic) -> dict[str, object]:
    return {
        "name": named.name,
        "type": named.toxic.TYPE,
        "stream": named.stream,
        "toxicity": named.toxicity,
        "attributes": named.toxic.attributes(),
    }


def _json(value: object, *, status: int = 200) -> web.Response:
    return web.json_response(value, status=status)
