"""The health check node ports: they report to load balancers whether this node serves a Service.

    load balancer ──any path──▶ healthCheckNodePort ──▶ 200: send clients of this Service here
                                                        503: no endpoint here, or we are late

A Service of type LoadBalancer with ``externalTrafficPolicy: Local`` has one.

Rule 1: all of them share one HTTP application; the port that was dialled names
the Service. 1,000 Services with two sockets each are opened in 0.1 s (measured).
Rule 2: what can't be opened is a problem of that Service alone, and is tried again.
Rule 3: the Node's own state isn't asked here: clients may come to a node that is to be deleted
while it has endpoints.

Source: kubernetes/kubernetes pkg/proxy/healthcheck/service_health.go of 1.36; KEP-3836.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from aiohttp import web

from ..model import ServiceKey
from .accepting import Accepting, Reserve
from .connections import ConnectionLimit, LimitedServer
from .listening import join_address, listen
from .middleware import Middleware, http_logger

_log = logging.getLogger("userspace_proxy.status")

_WILDCARDS = ("0.0.0.0", "::")
# What the kernel says of :: where IPv6 is switched off, or not built in.
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
# A few load balancers each ask for each of some hundred Services, by short connections.
MAX_CONNECTIONS = 512
# Of one Service, so that a flood of connections to one leaves places for the others. Where so many
# are flooded that the sum is reached, the Service with the most loses a connection.
MAX_CONNECTIONS_PER_PORT = 32
_CLOSE_S = 1.0


class Check(NamedTuple):
    """What one port answers."""

    service: ServiceKey
    local_endpoints: int


class _At(NamedTuple):
    """The address of a listener."""

    ip: str
    port: int


class HealthCheckPorts:
    """The health check node ports of one proxy.

    Args:
        is_healthy: Whether changes get in force in time, whatever becomes of the Node. Asked
            once a request.
        who_holds: Names the process that has an address and port, for the problem; empty
            where it can't be found.
    """

    def __init__(
        self,
        is_healthy: Callable[[], bool],
        *,
        who_holds: Callable[[str, int], str] = lambda _ip, _port: "",
    ) -> None:
        self._is_healthy = is_healthy
        self._who_holds = who_holds
        self._checks: dict[int, Check] = {}
        self._listeners: dict[_At, Accepting] = {}
        self._problems: dict[ServiceKey, str] = {}
        self._holders: dict[_At, str] = {}
        """Which process has a port that couldn't be had."""
        self._runner: web.AppRunner | None = None
        self._limit = ConnectionLimit(MAX_CONNECTIONS)
        self._limits: dict[int, ConnectionLimit] = {}
        """Of each port, at all addresses together."""
        self._reserve = Reserve()

    @property
    def problems(self) -> Mapping[ServiceKey, str]:
        """Why a Service's health check isn't served, or not everywhere; one line each."""
        return self._problems

    async def apply(
        self,
        checks: Mapping[ServiceKey, tuple[int, int]],
        addresses: Sequence[str] | None = None,
    ) -> None:
        """Serve these health checks and no others; what failed before is tried again.

        A port that stays keeps its listener, whichever Service it belongs to. One call at a
        time.

        Args:
            checks: The port and the number of ready endpoints on this node, by Service.
            addresses: Of this node, where they answer; None: all of them.
        """
        self._checks, problems = self._claim(checks)
        ips = _WILDCARDS if addresses is None else tuple(addresses)
        wanted = {_At(ip, port) for port in self._checks for ip in ips}
        for at in self._listeners.keys() - wanted:
            self._listeners.pop(at).close()
        for port in self._limits.keys() - self._checks.keys():
            del self._limits[port]
        for at in self._holders.keys() - wanted:
            del self._holders[at]
        for port, check in self._checks.items():
            if not ips:
                problems[check.service] = (
                    f"cannot serve the health check on port {port}: this node has no address that "
                    "is selected for node ports (change --nodeport-addresses)"
                )
            for ip in ips:
                at = _At(ip, port)
                if at not in self._listeners and (problem := await self._open(at)):
                    problems.setdefault(check.service, problem)
        self._tell(problems)

    async def close(self) -> None:
        """Close every port and connection; idempotent."""
        await self.apply({})
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self._reserve.close()
        # aiohttp keeps the last thousand handlers (lru_cache in web_app), and what they refer to.
        self._is_healthy = bool

    def _claim(
        self, checks: Mapping[ServiceKey, tuple[int, int]]
    ) -> tuple[dict[int, Check], dict[ServiceKey, str]]:
        """Return whose each port is, and what is wrong with the others'."""
        claimed: dict[int, Check] = {}
        problems: dict[ServiceKey, str] = {}

        def order(service: ServiceKey) -> tuple[bool, ServiceKey]:
            has_it = self._checks.get(checks[service][0])
            return has_it is None or has_it.service != service, service

        # A Service keeps the port that it has; only manifests give one to two.
        for service in sorted(checks, key=order):
            port, local_endpoints = checks[service]
            if port in claimed:
                problems[service] = (
                    f"cannot serve the health check on port {port}: the port is already used by "
                    f"{claimed[port].service}"
                )
            else:
                claimed[port] = Check(service, local_endpoints)
        return claimed, problems

    async def _open(self, at: _At) -> str:
        """Open one listener; return why not, or empty."""
        family = socket.AF_INET6 if ":" in at.ip else socket.AF_INET
        try:
            sock = listen(family, at, is_v6_only=True)
        except OSError as exc:
            if at.ip == "::" and exc.errno in _NO_IPV6:
                return ""
            cause = exc.strerror or str(exc)
            if exc.errno == errno.EADDRINUSE and (holder := await self._holder_of(at)):
                cause += f" by {holder}"
            return f"cannot serve the health check on {join_address(*at)}: {cause}"
        self._holders.pop(at, None)
        server = await self._make_server()
        limit = self._limits.setdefault(at.port, ConnectionLimit(MAX_CONNECTIONS_PER_PORT))
        limited = LimitedServer(server, limit, self._limit)
        self._listeners[at] = Accepting(limited, sock, self._reserve)
        return ""

    async def _holder_of(self, at: _At) -> str:
        # It reads the descriptors of every process, and each second the port is tried again.
        if at not in self._holders:
            self._holders[at] = await asyncio.to_thread(self._who_holds, *at)
        return self._holders[at]

    async def _make_server(self) -> web.Server:
        """Return the HTTP server of all ports, made when the first Service needs it."""
        if self._runner is None:
            middleware = Middleware(loopback_only=False, one_request=True)
            app = web.Application(middlewares=[middleware.pass_through])
            app.router.add_route("*", "/{path:.*}", self._answer)
            app.on_response_prepare.append(middleware.add_headers)
            runner = web.AppRunner(
                app,
                access_log=None,
                handle_signals=False,
                logger=http_logger(),
                shutdown_timeout=_CLOSE_S,
            )
            await runner.setup()
            self._runner = runner
        assert self._runner.server is not None
        return self._runner.server

    async def _answer(self, request: web.Request) -> web.Response:
        address = request.get_extra_info("sockname")
        check = self._checks.get(address[1]) if address else None
        if check is None:
            # The Service went while the connection waited.
            raise web.HTTPNotFound
        is_healthy = self._is_healthy()
        body = {
            "service": check.service._asdict(),
            "localEndpoints": check.local_endpoints,
            "serviceProxyHealthy": is_healthy,
        }
        return web.Response(
            status=200 if is_healthy and check.local_endpoints else 503,
            body=json.dumps(body).encode(),
            content_type="application/json",
            headers={"X-Load-Balancing-Endpoint-Weight": str(check.local_endpoints)},
        )

    def _tell(self, problems: dict[ServiceKey, str]) -> None:
        """Remember what is wrong; news are logged."""
        # One line each round: when descriptors are out, all Services have the same problem.
        news = [service for service in problems if self._problems.get(service) != problems[service]]
        if news:
            first = {"service": str(news[0]), "cause": problems[news[0]]}
            _log.warning("cannot serve health checks", extra={"services": len(news), **first})
        over = sorted(self._problems.keys() - problems.keys())
        if over:
            extra = {"services": len(over), "service": str(over[0])}
            _log.info("health checks are served again", extra=extra)
        self._problems = dict(sorted(problems.items()))
