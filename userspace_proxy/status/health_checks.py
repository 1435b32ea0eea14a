"""Serves health check node ports, by which load balancers find nodes that serve a Service.

    load balancer ──any path──▶ healthCheckNodePort ──▶ 200: send clients of this Service here
                                                        503: no endpoint, or changes apply too late

A Service of type LoadBalancer with ``externalTrafficPolicy: Local`` has such a port.

Rule 1: all ports share one HTTP application; the dialled port identifies the Service. The ports of
1,000 Services, with two sockets each, are opened in 0.1 s (measured).
Rule 2: a port that can't be opened is a problem of its Service only, and is retried.
Rule 3: the state of the Node object is ignored: a node that is being deleted may receive clients
while it has endpoints.

Source: kubernetes/kubernetes pkg/proxy/healthcheck/service_health.go of 1.36; KEP-3836.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiohttp import web

from ..clocks import Clocks
from ..kernel.interfaces import NO_IPV6
from ..log_fields import FieldLogger
from ..log_limit import SERVICE_LINES, LogLimit
from ..loops import accepted_have_protocols
from ..model import ServiceKey, SocketAddress
from ..plan import HealthCheck
from .accepting import Accepting, Reserve
from .connections import ConnectionLimit, LimitedServer
from .listening import listen
from .middleware import Middleware, make_runner

_log = FieldLogger("userspace_proxy.status")

_Problem = tuple[str, str]
"""The address or port on which a health check isn't served, and the cause."""
_WILDCARDS = ("0.0.0.0", "::")
_NO_ADDRESS = (
    "this node has no address that is selected for node ports (change --nodeport-addresses)"
)
# The maximum number of connections: a few load balancers probe a few hundred Services each, over
# short connections.
MAX_CONNECTIONS = 512
# The maximum number of connections per Service, so that a flood of connections to one Service
# leaves room for others. If floods of many Services reach the total, the Service with the most
# connections loses its oldest one.
MAX_CONNECTIONS_PER_PORT = 32


class HealthCheckPorts:
    """The health check node ports of one proxy.

    Args:
        is_healthy: Returns whether changes take effect in time; called once per request.
        who_holds: Returns the process that uses an address and port, for the problem's text; empty
            if unknown.
    """

    def __init__(
        self,
        is_healthy: Callable[[], bool],
        *,
        who_holds: Callable[[str, int], str] = lambda _ip, _port: "",
    ) -> None:
        self._is_healthy = is_healthy
        self._who_holds = who_holds
        self._checks: dict[int, HealthCheck] = {}
        """The health checks by port."""
        self._listeners: dict[SocketAddress, Accepting] = {}
        self._problems: dict[ServiceKey, _Problem] = {}
        self._holders: dict[SocketAddress, str] = {}
        """The processes that use the ports that couldn't be opened."""
        self._runner: web.AppRunner | None = None
        self._limit = ConnectionLimit(MAX_CONNECTIONS)
        self._limits: dict[int, ConnectionLimit] = {}
        """The limit of each port, shared by all addresses."""
        self._reserve = Reserve()
        self._log_limit = LogLimit(SERVICE_LINES)

    @property
    def problems(self) -> Mapping[ServiceKey, str]:
        """The reason, in one line, for each Service whose check isn't served on some address."""
        return {
            service: f"cannot serve the health check on {at}: {cause}"
            for service, (at, cause) in self._problems.items()
        }

    async def apply(
        self, checks: Iterable[HealthCheck], addresses: Sequence[str] | None = None
    ) -> None:
        """Serve exactly these health checks, and retry failed ones; one call at a time.

        A port that remains keeps its listener, even for another Service.

        Args:
            checks: The health checks; at most one per Service.
            addresses: The node's addresses to listen on; None for all.
        """
        self._checks, problems = self._assign(checks)
        ips = _WILDCARDS if addresses is None else tuple(addresses)
        wanted = {SocketAddress(ip, port) for port in self._checks for ip in ips}
        for at in self._listeners.keys() - wanted:
            self._listeners.pop(at).close()
        for port in self._limits.keys() - self._checks.keys():
            del self._limits[port]
        for at in self._holders.keys() - wanted:
            del self._holders[at]
        for port, check in self._checks.items():
            if not ips:
                problems[check.service] = f"port {port}", _NO_ADDRESS
            for ip in ips:
                at = SocketAddress(ip, port)
                if at not in self._listeners and (problem := await self._open(at)):
                    problems.setdefault(check.service, (str(at), problem))
        self._note(problems)

    async def close(self) -> None:
        """Close every port and connection; idempotent."""
        await self.apply(())
        runner, self._runner = self._runner, None
        if runner is not None:
            await accepted_have_protocols()
            await runner.cleanup()
        self._reserve.close()
        # aiohttp keeps the last thousand handlers (lru_cache in web_app), with everything that they
        # refer to, so drop the reference to the callback.
        self._is_healthy = bool

    def _assign(
        self, checks: Iterable[HealthCheck]
    ) -> tuple[dict[int, HealthCheck], dict[ServiceKey, _Problem]]:
        """Return the health check of each port, and the problems of the other Services."""
        assigned: dict[int, HealthCheck] = {}
        problems: dict[ServiceKey, _Problem] = {}

        def order(check: HealthCheck) -> tuple[bool, ServiceKey]:
            owner = self._checks.get(check.port)
            return owner is None or owner.service != check.service, check.service

        # A Service keeps its port. Only manifests can assign one port to two Services.
        for check in sorted(checks, key=order):
            owner = assigned.setdefault(check.port, check)
            if owner is not check:
                cause = f"the port is already used by {owner.service}"
                problems[check.service] = f"port {check.port}", cause
        return assigned, problems

    async def _open(self, at: SocketAddress) -> str:
        """Open a listener, except ``::`` on a node without IPv6; return the error; "" if none."""
        try:
            sock = listen(socket.AF_INET6 if ":" in at.ip else socket.AF_INET, at, is_v6_only=True)
        except OSError as exc:
            if at.ip == "::" and exc.errno in NO_IPV6:
                return ""
            cause = exc.strerror or str(exc)
            if exc.errno == errno.EADDRINUSE and (holder := await self._holder_of(at)):
                cause += f" by {holder}"
            return cause
        server = await self._make_server()
        limit = self._limits.setdefault(at.port, ConnectionLimit(MAX_CONNECTIONS_PER_PORT))
        limited = LimitedServer(server, limit, self._limit)
        self._listeners[at] = Accepting(limited, sock, self._reserve)
        return ""

    async def _holder_of(self, at: SocketAddress) -> str:
        # Cache the result: the search reads the descriptors of all processes, and the port is
        # retried every second.
        if at not in self._holders:
            self._holders[at] = await asyncio.to_thread(self._who_holds, *at)
        return self._holders[at]

    async def _make_server(self) -> web.Server:
        """Return the HTTP server of all ports, created when the first Service needs it."""
        if self._runner is None:
            middleware = Middleware(loopback_only=False, one_request=True)
            self._runner = make_runner(middleware, [web.route("*", "/{path:.*}", self._answer)])
            await self._runner.setup()
        assert self._runner.server is not None
        return self._runner.server

    async def _answer(self, request: web.Request) -> web.Response:
        address = request.get_extra_info("sockname")
        check = self._checks.get(address[1]) if address else None
        if check is None:
            # The Service was removed while the connection waited.
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

    def _note(self, problems: dict[ServiceKey, _Problem]) -> None:
        """Store the problems, and log new and resolved ones."""
        # Log one line per round: without free descriptors, all Services have the same problem.
        new = [service for service in problems if self._problems.get(service) != problems[service]]
        now = Clocks.monotonic()
        if new and self._log_limit.take(now):
            at, cause = problems[new[0]]
            extra = {"services": len(new), "service": str(new[0]), "address": at, "cause": cause}
            text = "%(service)s: cannot serve the health check on %(address)s: %(cause)s"
            _log.warning(text, extra=extra)
        served = {check.service for check in self._checks.values()} - problems.keys()
        solved = sorted(self._problems.keys() & served)
        if solved and self._log_limit.take(now):
            extra = {"service": str(solved[0]), "services": len(solved)}
            _log.info("%(service)s: health checks are served now", extra=extra)
        self._problems = dict(sorted(problems.items()))
