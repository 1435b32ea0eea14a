"""A Kubernetes API server in memory: Services, EndpointSlices, Nodes, Pods, Leases, DaemonSets.

    test ──put, delete──▶ objects ──HTTP──▶ lists, watches ──▶ client
         ──refuse, forget, break …──────────┘

To clients, it behaves like kube-apiserver: resourceVersions, pages with continue tokens, bookmarks,
410 for forgotten revisions, 504 for lists of future revisions, Status objects for errors. It
validates and allocates nothing.

Rule 1: ``requests`` contains all requests except reviews and ``/version``, each as one line.
Rule 2: only the test triggers bookmarks, silence, the end of a watch and refusals.
Rule 3: a server belongs to the event loop in which it was started.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from userspace_proxy.loops import close_server

from .api_objects import Expired, FakeObjects, Object, ObjectFilter, WatchEvent
from .api_pods import write_pod
from .port_forward import FakePods

PATHS = {
    "services": "/api/v1/services",
    "endpointslices": "/apis/discovery.k8s.io/v1/endpointslices",
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "leases": "/apis/coordination.k8s.io/v1/leases",
    "daemonsets": "/apis/apps/v1/daemonsets",
}
_FORWARD = "/api/v1/namespaces/{namespace}/pods/{name}/portforward"
_LOG = "/api/v1/namespaces/{namespace}/pods/{name}/log"
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_PODS = "/api/v1/namespaces/{namespace}/pods"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
_REASONS = {404: "NotFound", 409: "Conflict"}
_EVENTS = "/apis/events.k8s.io/v1/namespaces/{namespace}/events"


@dataclass(slots=True)
class _Watch:
    wanted: ObjectFilter
    transport: asyncio.Transport | None
    since: int = 0
    lines: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    """Lines to send; an empty line ends the watch."""


@dataclass(slots=True)
class _Refusal:
    resource: str
    code: int
    reason: str
    message: str
    retry_after_s: int
    times: int
    after: int


@web.middleware
async def _end_quietly(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """End the request of a client that has left, without an error, like a real server."""
    try:
        return await handler(request)
    except* ConnectionError:
        pass
    # aiohttp requires a response, which it drops because the connection is closed.
    return web.Response()


class FakeApiServer:
    """A server on 127.0.0.1, from ``start`` to ``stop``; also an async context manager.

    Args:
        token: The only valid bearer token; empty if no token is required.
        has_watch_cache: Whether to send lists from a resourceVersion in one page regardless of the
            limit, like kube-apiserver; other lists are sent in pages.
        port: The port to listen on; 0 for any free port.
        tls: The context for serving HTTPS; clients send credentials only over HTTPS.
    """

    def __init__(
        self,
        *,
        token: str = "",
        has_watch_cache: bool = True,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.token = token
        self.has_watch_cache = has_watch_cache
        self.requests: list[str] = []
        """Requests, such as ``GET /api/v1/services?limit=500&resourceVersion=0``."""
        self.sent: list[tuple[str, str, Object]] = []
        """Events that clients wrote: ``POST`` or ``PATCH``, the path, the object."""
        self.pods = FakePods()
        """The pods that port-forwards reach."""
        self.denied: set[str] = set()
        """Forbidden actions, such as ``create pods/portforward``: access reviews deny them,
        and requests to read or port-forward are rejected."""
        self.user = "test"
        """The clients' user name."""
        self.url = ""
        self._port = port
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._objects = FakeObjects()
        self._watches: list[_Watch] = []
        self._refusals: list[_Refusal] = []
        self._is_silent = False
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after a ``stop``, on the same port with the same objects."""
        app = web.Application(middlewares=[_end_quietly])
        for resource, path in PATHS.items():
            app.router.add_get(path, self._handler(resource))
            start, _, name = path.rpartition("/")
            inside = f"{start}/namespaces/{{namespace}}/{name}"
            app.router.add_get(inside, self._handler(resource))
            app.router.add_get(f"{inside}/{{name}}", self._get(resource))
            app.router.add_get(f"{path}/{{name}}", self._get(resource))
        one = f"{_PODS}/{{name}}"
        app.router.add_post(_PODS, self._write_pod)
        for method, path in (("PATCH", one), ("DELETE", one)):
            app.router.add_route(method, path, self._write_pod)
        app.router.add_patch(f"{one}/status", self._write_pod)
        app.router.add_post(_LEASES, self._write_lease)
        app.router.add_put(f"{_LEASES}/{{name}}", self._write_lease)
        app.router.add_post(_EVENTS, self._take)
        app.router.add_patch(f"{_EVENTS}/{{name}}", self._take)
        app.router.add_get(_FORWARD, self._forward)
        app.router.add_get(_LOG, self._log)
        app.router.add_post(_REVIEWS, self._review)
        app.router.add_post(_WHO, self._who)
        app.router.add_get("/version", self._version)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1
        )
        await self._runner.setup()
        assert self._runner.server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._runner.server, "127.0.0.1", self._port, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Reset all watches and stop listening. Idempotent."""
        self.break_watches()
        server, self._server = self._server, None
        if server is not None:
            await close_server(server)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def put(self, item: Object) -> str:
        """Add an object, or replace its earlier version; return its new resourceVersion.

        Raises:
            KeyError: The kind is unknown, or the object has no name.
        """
        return self._send_event(self._objects.put(item))

    def delete(self, kind: str, name: str, namespace: str = "default") -> str:
        """Delete an object; return the resourceVersion of the deletion.

        Raises:
            KeyError: The kind is unknown, or the object doesn't exist.
        """
        return self._send_event(self._objects.delete(kind, name, namespace))

    def forget(self) -> None:
        """Forget the history: earlier resourceVersions and continue tokens expire."""
        self._objects.forget()

    def refuse(
        self,
        resource: str,
        code: int,
        *,
        reason: str = "",
        message: str = "",
        retry_after_s: int = 0,
        times: int = 1,
        after: int = 0,
    ) -> None:
        """After ``after`` requests for a resource, answer ``times`` requests with an error."""
        self._refusals.append(
            _Refusal(resource, code, reason, message, retry_after_s, times, after)
        )

    def bookmark(self) -> None:
        """Send a bookmark with the current resourceVersion to each watch."""
        revision = self._objects.revision
        item = {"metadata": {"resourceVersion": str(revision)}}
        for watch in self._watches:
            self._send(watch, WatchEvent(revision, watch.wanted.resource, "BOOKMARK", item).line)

    def send(self, resource: str, line: bytes) -> None:
        """Send bytes, valid or not, to each watch of a resource."""
        for watch in self._watches:
            if watch.wanted.resource == resource:
                self._send(watch, line)

    def be_silent(self, is_silent: bool = True) -> None:
        """Stop or resume sending to watches; the events in between are lost."""
        self._is_silent = is_silent

    def end_watches(self) -> None:
        """End all watches, as a server does after their timeout."""
        for watch in self._watches:
            watch.lines.put_nowait(b"")

    def break_watches(self) -> None:
        """Reset all watches, as a killed server does."""
        for watch in self._watches:
            if watch.transport is not None:
                watch.transport.abort()

    async def until(
        self, condition: Callable[[FakeApiServer], bool], *, deadline_s: float = 30.0
    ) -> None:
        """Wait for a condition, checked at each list, watch, forward, and Event or Lease written.

        Raises:
            TimeoutError: The condition didn't hold in time; the message contains all requests.
        """
        try:
            async with asyncio.timeout(deadline_s), self._changed:
                await self._changed.wait_for(lambda: condition(self))
        except TimeoutError as exc:
            raise TimeoutError("\n".join(["not so after:", *self.requests])) from exc

    def watch_count(self, resource: str) -> int:
        """Return the number of open watches of a resource."""
        return sum(watch.wanted.resource == resource for watch in self._watches)

    def _handler(self, resource: str) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests.append(f"GET {request.path_qs}")
            await self._notify()
            is_watch = request.query.get("watch") in ("1", "true")
            refusal = self._forbid("watch" if is_watch else "list", resource, request)
            refusal = refusal or self._refuse(resource, request)
            if refusal is not None:
                return refusal
            if is_watch:
                return await self._watch(resource, request)
            return self._list(_filter(resource, request), request.query)

        return handle

    async def _take(self, request: web.Request) -> web.Response:
        self.requests.append(f"{request.method} {request.path_qs}")
        await self._notify()
        refusal = self._refuse("events", request)
        if refusal is None:
            self.sent.append((request.method, request.path, await request.json()))
            await self._notify()
        return refusal or web.json_response({}, status=201 if request.method == "POST" else 200)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"GET {request.path_qs}")
        await self._notify()
        refusal = self._forbid("get", "pods/portforward", request)
        # Source: the feature gate AuthorizePodWebsocketUpgradeCreatePermission, on from 1.35.
        refusal = refusal or self._forbid("create", "pods/portforward", request)
        refusal = refusal or self._refuse("portforward", request)
        return refusal or self._without_host(request, 400) or await self.pods.forward(request)

    async def _log(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"GET {request.path_qs}")
        refusal = self._forbid("get", "pods/log", request) or self._refuse("log", request)
        return refusal or self._without_host(request, 204) or await self.pods.log(request)

    def _without_host(self, request: web.Request, code: int) -> web.Response | None:
        """Return the response for a pod without a node, which has no kubelet; else None."""
        where = request.match_info
        pod = self._objects.get("pods", where["name"], where["namespace"])
        if pod is None or (pod.get("spec") or {}).get("nodeName"):
            return None
        if code == 204:
            return web.Response(status=code)
        return _status(code, "BadRequest", f"pod {where['name']} does not have a host assigned")

    async def _review(self, request: web.Request) -> web.Response:
        refusal = self._refuse("selfsubjectaccessreviews", request)
        wanted = (await request.json())["spec"]["resourceAttributes"]
        what = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
        is_allowed = f"{wanted['verb']} {what}" not in self.denied
        return refusal or web.json_response({"status": {"allowed": is_allowed}}, status=201)

    async def _who(self, request: web.Request) -> web.Response:
        refusal = self._refuse("selfsubjectreviews", request)
        status = {"userInfo": {"username": self.user}}
        return refusal or web.json_response({"status": status}, status=201)

    def _get(self, resource: str) -> Callable[[web.Request], Any]:
        async def get(request: web.Request) -> web.Response:
            self.requests.append(f"GET {request.path_qs}")
            where = request.match_info
            item = self._objects.get(resource, where["name"], where.get("namespace", ""))
            refusal = self._forbid("get", resource, request) or self._refuse(resource, request)
            if item is None:
                refusal = refusal or _status(404, _REASONS[404], f'"{where["name"]}" not found')
            return refusal or web.json_response(item)

        return get

    async def _write_pod(self, request: web.Request) -> web.Response:
        self.requests.append(f"{request.method} {request.path_qs}")
        refusal = self._refuse("pods", request)
        if refusal is not None:
            return refusal
        body = await request.json()
        namespace = request.match_info["namespace"]
        name = request.match_info.get("name") or body["metadata"]["name"]
        before = self._objects.get("pods", name, namespace)
        uid = f"uid-{self._objects.revision}"
        code, after = write_pod(request.method, before, body, uid=uid)
        if code >= 400:
            return _status(code, _REASONS[code], f'pods "{name}": {_REASONS[code]}')
        if after is None:
            self.delete("Pod", name, namespace)
        else:
            self.put(after)
        return web.json_response(after or before, status=code)

    async def _write_lease(self, request: web.Request) -> web.Response:
        self.requests.append(f"{request.method} {request.path_qs}")
        await self._notify()
        refusal = self._refuse("leases", request)
        if refusal is not None:
            return refusal
        item = {"kind": "Lease", **await request.json()}
        name = request.match_info.get("name") or item["metadata"]["name"]
        namespace = request.match_info["namespace"]
        before = self._objects.get("leases", name, namespace)
        if request.method == "PUT" and before is None:
            return _status(404, _REASONS[404], f'leases "{name}" not found')
        version = before["metadata"]["resourceVersion"] if before else None
        if item["metadata"].get("resourceVersion") != version:
            return _status(409, _REASONS[409], f'leases "{name}": modified or already exists')
        self.put(item)
        after = self._objects.get("leases", name, namespace)
        return web.json_response(after, status=200 if before else 201)

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"gitVersion": "v1.36.3"})

    def _forbid(self, verb: str, resource: str, request: web.Request) -> web.Response | None:
        if f"{verb} {resource}" not in self.denied:
            return None
        kind, name = resource.partition("/")[0], request.match_info.get("name", "")
        namespace = request.match_info.get("namespace", "")
        group = PATHS[kind].split("/")[2] if PATHS[kind].startswith("/apis/") else ""
        place = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        what = f'{kind} "{name}"' if name else kind
        message = (
            f'{what} is forbidden: User "{self.user}" cannot {verb} resource "{resource}" '
            f'in API group "{group}" {place}'
        )
        return _status(403, "Forbidden", message)

    def _refuse(self, resource: str, request: web.Request) -> web.Response | None:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        for refusal in self._refusals:
            if refusal.resource == resource and refusal.after:
                refusal.after -= 1
            elif refusal.resource == resource and refusal.times:
                refusal.times -= 1
                return _status(refusal.code, refusal.reason, refusal.message, refusal.retry_after_s)
        version = request.query.get("resourceVersion", "")
        if version and not version.isdigit():
            return _status(400, "BadRequest", f"resourceVersion: Invalid value: {version!r}")
        # A watch silently waits for a future revision (kube-apiserver 1.36).
        is_watch = request.query.get("watch") in ("1", "true")
        if version and int(version) > self._objects.revision and not is_watch:
            message = f"Too large resource version: {version}, current: {self._objects.revision}"
            return _status(504, "Timeout", message, 1)
        return None

    def _list(self, wanted: ObjectFilter, query: Mapping[str, str]) -> web.Response:
        limit = int(query.get("limit", 0))
        if self.has_watch_cache and query.get("resourceVersion"):
            limit = 0
        try:
            if token := query.get("continue"):
                page = self._objects.list_on(token, limit)
            else:
                page = self._objects.list(wanted, limit)
        except Expired as exc:
            return _status(410, "Expired", str(exc))
        revision = str(page.revision)
        if query.get("limit") and "resourceVersionMatch" not in query:
            # With a limit and a nonzero resourceVersion, kube-apiserver returns that revision, so
            # a watch from it may be too old. Source: API concepts, "resourceVersion parameter".
            asked = query.get("resourceVersion", "0")
            revision = revision if asked in ("", "0") else asked
        metadata = {"resourceVersion": revision, "continue": page.token}
        return web.json_response({"kind": "List", "metadata": metadata, "items": page.items})

    async def _watch(self, resource: str, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        since = int(request.query.get("resourceVersion", 0))
        watch = _Watch(_filter(resource, request), request.transport, since)
        try:
            for event in self._objects.since(since, watch.wanted):
                watch.lines.put_nowait(event.line)
        except Expired as exc:
            error = {"kind": "Status", "code": 410, "reason": "Expired", "message": str(exc)}
            await response.write(WatchEvent(since, resource, "ERROR", error).line)
            return response
        self._watches.append(watch)
        try:
            await self._notify()
            while line := await watch.lines.get():
                await response.write(line)
        finally:
            self._watches.remove(watch)
            await self._notify()
        return response

    def _send_event(self, event: WatchEvent) -> str:
        for watch in self._watches:
            is_wanted = watch.wanted.matches(event.resource, event.object)
            if is_wanted and event.revision > watch.since:
                self._send(watch, event.line)
        return str(event.revision)

    def _send(self, watch: _Watch, line: bytes) -> None:
        if not self._is_silent:
            watch.lines.put_nowait(line)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _filter(resource: str, request: web.Request) -> ObjectFilter:
    labels = [pair.partition("=") for pair in request.query.get("labelSelector", "").split(",")]
    return ObjectFilter(
        resource,
        request.query.get("fieldSelector", "").removeprefix("metadata.name="),
        request.match_info.get("namespace", ""),
        tuple((name, value) for name, _, value in labels if name),
    )


def _status(code: int, reason: str, message: str, retry_after_s: int = 0) -> web.Response:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
    return web.json_response({**body, "message": message}, status=code, headers=headers)
