"""Runs the two HTTP servers of a proxy: one for load balancers, one for operators and scrapers.

    0.0.0.0:10256    /healthz /livez                      for clients that reach the node
    127.0.0.1:10249  / /incidents/… /stream /metrics /configz /api/v1/…   for clients on the node

Rule 1: the view is built in the event loop, and rendered in a thread: for ten thousand Services,
rendering takes about a second, during which connections are served.
Rule 2: no request changes anything: there are no methods other than GET and HEAD, and no cookies.
Rule 3: requests waiting for the same view or answer share it, so a flood of requests doesn't
multiply the use of CPU and memory. One answer of each kind (page, text, JSON, metrics) is made at a
time, so a flood of searches delays only answers of its kind.
Rule 4: on loopback, only requests whose Host is a loopback name are answered (DNS rebinding).
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from aiohttp import web

from ..clocks import Clocks
from ..diagnosis.incidents import Incidents
from ..errors import SteeringError
from ..facts import Detail, StatusFacts
from ..facts.connection import ConnectionFilter
from ..facts.encoding import encode_answer
from ..hosts import is_loopback_address
from ..loops import accepted_have_protocols
from ..model.quoting import printable
from .accepting import Accepting, Reserve
from .answer_form import AnswerForm, accepts_gzip, compressed, headers_for
from .answers import make_answer, render_configz, render_digests
from .connection_streams import ConnectionStreams
from .connections import MAX_CONNECTIONS, ConnectionLimit, LimitedServer
from .families import edge_family, render_demand
from .health import HealthAnswer, answer_healthz, answer_livez
from .history import IDLE, Counted
from .http_answer import LEVEL_HEADER
from .kernel_path import render_tracked
from .listening import ListenAt, address_of, open_socket
from .metrics import HealthCheckCounts, MetricsForm, MetricsPage, SyncMetrics, render_metrics
from .middleware import Middleware, make_runner, serve_static
from .missing import say_missing
from .observing import Observing
from .page import render_incident, render_no_incident, render_page
from .sampling import FreshViews, Sample, Sampler, is_closed
from .search import Search
from .selection import Selection
from .single_flight import SingleFlight
from .stream import Streams
from .text import (
    StatusText,
    prefers_text,
    render_incident_text,
    render_text,
    render_top,
)
from .timeline import Event
from .wrapping import LEAST_COLUMNS


class StatusServer:
    """The servers that show the state of one proxy.

    Args:
        view: Returns the current state; called in the event loop, for requests and streams.
        metrics_detail: The detail of ``/metrics`` in addition to the node's sums.
        health: Like ``view``, but called for the more frequent probes; it may omit the Service
            ports. None to call ``view``.
        refresh: Awaited before ``view``, to fetch counters from workers.
        events: Returns the node's events, the newest first; called like ``view``.
        clock: Returns the Unix time.
        observing: The source of connections and clients; None for a source without any.
    """

    def __init__(
        self,
        view: Callable[[], StatusFacts],
        metrics_detail: Detail = "service",
        *,
        health: Callable[[], StatusFacts] | None = None,
        refresh: Callable[[], Awaitable[float | None]] | None = None,
        events: Callable[[], Sequence[Event]] = tuple,
        clock: Callable[[], float] = Clocks.time,
        observing: Observing | None = None,
    ) -> None:
        self.sync = SyncMetrics()
        """The durations of sync rounds, which the agent adds."""
        self._health = health or view
        self._views = FreshViews(view, refresh)
        self._metrics_detail = metrics_detail
        self._clock = clock
        self._probes = HealthCheckCounts()
        self._sampler = Sampler(self._views.take, events=events, unix=clock)
        self._streams = Streams(self._sampler)
        self._observing = observing or Observing()
        self._connections = ConnectionStreams(self._observing, self._views.take)
        # Waiting requests share an answer: 10,000 Services take a few seconds and up to 75 MiB.
        self._pages: SingleFlight[MetricsPage] = SingleFlight()
        self._answers: SingleFlight[bytes] = SingleFlight()
        self._parts: SingleFlight[StatusFacts] = SingleFlight()
        self._shown: SingleFlight[bytes] = SingleFlight()
        self._incidents: SingleFlight[tuple[bytes, int]] = SingleFlight()
        self._texts: SingleFlight[StatusText] = SingleFlight()
        self._tracked: SingleFlight[bytes] = SingleFlight()
        self._open: list[tuple[Accepting, web.AppRunner]] = []
        self._reserve = Reserve()

    async def record(self, counters: Callable[[], Awaitable[Counted | None]]) -> None:
        """Record the traffic of Service ports while no page is open, until cancelled."""
        await self._sampler.record(counters)

    async def serve_health(self, bind: ListenAt) -> tuple[str, int]:
        """Open the port that load balancers and the kubelet probe.

        Args:
            bind: The address. :meth:`close` also closes a socket that is given here.

        Returns:
            The bound address, with the chosen port if 0 was given.

        Raises:
            ListenError: The address isn't available; the text names ``--healthz-bind-address``.
        """
        sock = await open_socket(bind, what="health checks", flag="--healthz-bind-address")
        middleware = Middleware(loopback_only=False, one_request=True)
        return await self._serve(middleware, self._probe_routes(), sock)

    async def serve_admin(self, bind: ListenAt) -> tuple[str, int]:
        """Serve the status page, the metrics and the JSON API on a port, like :meth:`serve_health`.

        Raises:
            ListenError: The address isn't available; the text names ``--metrics-bind-address``.
        """
        sock = await open_socket(bind, what="the status page", flag="--metrics-bind-address")
        loopback_only = is_loopback_address(address_of(sock)[0])
        middleware = Middleware(loopback_only=loopback_only, one_request=False)
        routes = [
            *self._probe_routes(),
            web.get("/", self._page),
            web.get("/incidents/{id}", self._incident),
            web.get("/stream", self._streams.page, allow_head=False),
            web.get("/metrics", self._metrics),
            web.get("/proxyMode", self._proxy_mode),
            web.get("/configz", self._configz),
            web.get("/api/v1/status", self._status),
            web.get("/api/v1/plan", self._plan),
            web.get("/api/v1/demand", self._demand),
            web.get("/api/v1/connections", self._connections.answer),
            web.get("/api/v1/kernel-path", self._kernel_path),
            serve_static(__package__ or ""),
        ]
        return await self._serve(middleware, routes, sock)

    async def close(self) -> None:
        """Close every port and connection; idempotent."""
        self._streams.close()
        self._connections.close()
        for server, _ in self._open:
            server.close()
        await accepted_have_protocols()
        while self._open:
            await self._open.pop()[1].cleanup()
        self._reserve.close()
        # aiohttp keeps the last thousand handlers (lru_cache in web_app), with everything that they
        # refer to, so drop the references.
        self._sampler.close()
        self._views.close()
        self._health = is_closed

    async def _serve(
        self, middleware: Middleware, routes: Iterable[web.RouteDef], sock: socket.socket
    ) -> tuple[str, int]:
        runner = make_runner(middleware, routes)
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
        if prefers_text(request.headers.get("Accept", ""), request.headers.get("User-Agent", "")):
            return await self._text(request)
        selection = Selection.parse(request.query)
        if service := request.query.get("service", ""):
            # Redirect to the equivalent search, which the search field, links and streams use.
            qualifier = "service" if "/" in service else "ns"
            link = selection.link(q=f"{qualifier}:{service} {selection.q}".strip())
            return web.Response(status=302, headers={"Location": link})

        async def make() -> bytes:
            sample = await self._sampler.look()
            return await self._sampler.work(lambda: render_page(sample, selection))

        body = await self._shown.get(selection, make)
        return web.Response(body=body, content_type="text/html", charset="utf-8")

    async def _incident(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        accept, agent = (request.headers.get(name, "") for name in ("Accept", "User-Agent"))
        is_text = prefers_text(accept, agent)

        def render(sample: Sample) -> tuple[bytes, int]:
            if is_text:
                incident = Incidents(sample.view).find(id_)
                if incident is None:
                    return b"No Service has this cause any more.\n", 404
                return render_incident_text(incident, sample.now).body, 200
            body = render_incident(sample, id_)
            return (render_no_incident(sample), 404) if body is None else (body, 200)

        async def make() -> tuple[bytes, int]:
            sample = await self._sampler.look()
            return await self._sampler.work(lambda: render(sample))

        body, status = await self._incidents.get((id_, is_text), make)
        kind = "text/plain" if is_text else "text/html"
        return web.Response(status=status, body=body, content_type=kind, charset="utf-8")

    async def _text(self, request: web.Request) -> web.Response:
        query = {"sort": "-rate", **request.query} if "top" in request.query else request.query
        selection, service = _strictly_selected(query), query.get("service", "")
        is_top, is_wide = "top" in query, "wide" in query or "/" in service
        columns, server = _columns(query.get("columns", "")), query.get("server", "")

        def render(sample: Sample) -> StatusText:
            part = _part(sample.view, service)
            if is_top:
                history = sample.history
                return render_top(part, selection=selection, history=history, columns=columns)
            return render_text(
                part,
                now=sample.now,
                selection=selection,
                history=sample.history if sample.is_followed else IDLE,
                is_wide=is_wide,
                has_node="/" not in service and not selection.q,
                columns=columns,
                incidents=Incidents(sample.view, server),
            )

        async def make() -> StatusText:
            sample = await self._sampler.look()
            return await self._sampler.work(lambda: render(sample))

        text = await self._texts.get((selection, service, is_top, is_wide, columns, server), make)
        return web.Response(
            body=text.body,
            content_type="text/plain",
            charset="utf-8",
            headers={LEVEL_HEADER: text.level},
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        form = MetricsForm.accepted(
            *(request.headers.get(name, "") for name in ("Accept", "Accept-Encoding"))
        )

        async def make() -> MetricsPage:
            view = await self._views.take()
            taken = [*self.sync.families(), *self._probes.families()]
            if self._metrics_detail == "endpoint":
                taken.append(edge_family(self._observing.edges(ConnectionFilter())))
            return await self._sampler.work(
                lambda: render_metrics(view, taken, detail=self._metrics_detail, form=form)
            )

        page = await self._pages.get(form, make)
        return web.Response(body=page.body, headers=page.headers)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        selection = _strictly_selected(request.query)
        form = AnswerForm.read(request.query, request.headers)
        service = request.query.get("service", "")
        if "watch" in request.query and request.method == "GET":
            shown = await self._views.take()
            find = partial(self._sampler.work, lambda: _part(shown, service))
            await self._parts.get(service, find)
            return await self._streams.json(request, service, form)

        def render(view: StatusFacts, now: float) -> bytes:
            # Also answer for a rejected Service: `explain` shows why it isn't in the view.
            part = view.only(service) if view.source.rejected_of(service) else _part(view, service)
            answer = make_answer(part, now=now, selection=selection, whole=view)
            return compressed(encode_answer(form.of(answer)), form.is_gzip)

        async def make() -> bytes:
            view, now = await self._views.take(), self._clock()
            return await self._sampler.work(lambda: render(view, now))

        body = await self._answers.get((selection, service, form), make)
        headers = headers_for(form.is_gzip)
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _plan(self, request: web.Request) -> web.Response:
        buckets, is_gzip = (
            frozenset(request.query.getall("bucket", ())),
            accepts_gzip(request.headers),
        )

        async def make() -> bytes:
            view = await self._views.take()
            return await self._sampler.work(
                lambda: compressed(render_digests(view, buckets), is_gzip)
            )

        body = await self._answers.get(("plan", buckets, is_gzip), make)
        headers = headers_for(is_gzip)
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _demand(self, _request: web.Request) -> web.Response:
        body = render_demand(await self._views.take())
        return web.Response(body=body, content_type="application/json")

    async def _kernel_path(self, _request: web.Request) -> web.Response:

        async def make() -> bytes:
            view = await self._views.take()
            return await self._sampler.work(lambda: render_tracked(view))

        try:
            body = await self._tracked.get((), make)
        except SteeringError as exc:
            return web.json_response({"problem": str(exc)}, status=503)
        return web.Response(body=body, content_type="application/json")

    async def _configz(self, _request: web.Request) -> web.Response:
        body = render_configz(await self._views.take())
        return web.Response(body=body, content_type="application/json")

    async def _proxy_mode(self, _request: web.Request) -> web.Response:
        # Kubernetes' e2e tests and some installers read this path.
        return web.Response(text="userspace")


def _part(view: StatusFacts, service: str) -> StatusFacts:
    """Return a view's part about a Service or namespace, or the whole view. Call it in a thread.

    Raises:
        HTTPNotFound: The Service doesn't exist, or the namespace has no Services.
    """
    part = view.only(service) if service else view
    if service and not part.ports and not part.ignored:
        raise web.HTTPNotFound(reason=say_missing(view, service))
    return part


def _columns(text: str) -> int:
    """Return the terminal width in a query, at least LEAST_COLUMNS; 0 if missing or invalid."""
    is_number = text.isascii() and text.isdigit() and len(text) < 5
    return max(int(text), LEAST_COLUMNS) if is_number else 0


def _strictly_selected(query: Mapping[str, str]) -> Selection:
    """Parse a selection whose search must be valid; on the page, a search may be incomplete.

    Raises:
        HTTPBadRequest: The search contains an unknown state.
    """
    selection = Selection.parse(query)
    if unknown := Search.parse(selection.q).unknown:
        raise web.HTTPBadRequest(reason=printable(unknown))
    return selection
