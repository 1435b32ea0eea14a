"""Agents of many nodes behind a fake API server, as one who reads all of them meets them.

    add("node-1", FakeAgent(facts)) ──▶ Node, pod of the DaemonSet ──port-forward──▶ HTTP answers

The objects are those of the chart's DaemonSet: labels, host network, arguments. An agent costs no
socket, so there may be a thousand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .api_server import FakeApiServer
from .port_forward import Send, Serve

RELEASE_NAMESPACE = "kube-system"
PORT = 10249
CREATED = "2026-11-21T09:00:00Z"


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """A request as an agent reads it."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    """Each name with its values; one without a value has an empty one."""
    headers: Mapping[str, str]
    """By their names in lower case."""
    is_chunked: bool
    """The client knows HTTP/1.1, so a body without a length is sent in chunks."""

    @classmethod
    def parse(cls, head: bytes) -> AgentRequest:
        """Read a request line and headers."""
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, version = first.split(" ")
        parts = urlsplit(target)
        pairs = (line.partition(":") for line in lines)
        return cls(
            method,
            unquote(parts.path),
            parse_qs(parts.query, keep_blank_values=True),
            {name.strip().lower(): value.strip() for name, _, value in pairs},
            version == "HTTP/1.1",
        )


Answer = Callable[[AgentRequest, Send], Awaitable[None]]
"""Answers one request; when it returns, the connection ends."""


class FakeAgents:
    """The agents of one release.

    Args:
        api: It gets the Nodes and pods, and forwards to them.
        release: The release's name, which is that of the chart by default.
        port: That of the agents' status page; another one is in their arguments.
        serves: The name of the Services that they serve, of a canary; empty: those without one.
    """

    def __init__(
        self,
        api: FakeApiServer,
        *,
        namespace: str = RELEASE_NAMESPACE,
        release: str = "userspace-proxy",
        port: int = PORT,
        serves: str = "",
    ) -> None:
        self._api = api
        self._serves = serves
        self._namespace = namespace
        self._release = release
        self._port = port
        self._pods: dict[str, list[str]] = {}

    def put_node(self, name: str) -> None:
        """Add a Node, where no agent may run."""
        self._api.put(node_object(name))

    def add(
        self,
        node: str,
        answer: Answer,
        *,
        pod: str = "",
        created: str = CREATED,
        is_forbidden: bool = False,
        log: str = "",
    ) -> str:
        """Add a Node with an agent, or another agent to it; return its pod's name.

        Args:
            answer: To each request; see ``agent_answers``.
            pod: Its name; empty: that of the release and the node.
            created: When the pod was made.
            is_forbidden: The API server denies port-forwards to it.
            log: What it has written.
        """
        if node not in self._pods:
            self.put_node(node)
        name = pod or f"{self._release}-{node}"
        self._api.put(self._pod_object(name, node, created))
        self._api.pods.run(name, {self._port: serve_http(answer)}, self._namespace)
        key = f"{self._namespace}/{name}"
        self._api.pods.logs[key] = log
        if is_forbidden:
            self._api.pods.forbidden.add(key)
        self._pods.setdefault(node, []).append(name)
        return name

    def remove(self, node: str) -> None:
        """End the agents of a node, whose Node stays.

        Raises:
            KeyError: It has none.
        """
        for name in self._pods[node]:
            self._api.delete("Pod", name, self._namespace)
            self._api.pods.kill(name, self._namespace)
        self._pods[node] = []

    def passed_bytes(self, node: str) -> int:
        """Return the bytes that port-forwards of a node's agents have cost, in both directions."""
        passed = self._api.pods.passed_bytes
        return sum(passed[f"{self._namespace}/{name}"] for name in self._pods[node])

    def _pod_object(self, name: str, node: str, created: str) -> Mapping[str, Any]:
        arguments = [
            "--config=/etc/userspace-proxy/config.conf",
            "--hostname-override=$(NODE_NAME)",
        ]
        if self._port != PORT:
            arguments.append(f"--metrics-bind-address=127.0.0.1:{self._port}")
        if self._serves:
            arguments.append(f"--service-proxy-name={self._serves}")
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "uid": f"uid-{name}",
                "creationTimestamp": created,
                "labels": {
                    "app.kubernetes.io/name": "userspace-proxy",
                    "app.kubernetes.io/instance": self._release,
                },
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": self._release}
                ],
            },
            "spec": {
                "nodeName": node,
                "hostNetwork": True,
                "containers": [{"name": "userspace-proxy", "args": [*arguments, "--take-over"]}],
            },
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }


def node_object(name: str) -> Mapping[str, Any]:
    """Return a Node that is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"operatingSystem": "linux", "kubeletVersion": "v1.36.3"},
        },
    }


def serve_http(answer: Answer) -> Serve:
    """Return what serves one HTTP request at a port of a pod."""

    async def serve(reader: asyncio.StreamReader, send: Send) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        try:
            request = AgentRequest.parse(head)
        except ValueError:
            await send(response_head(400))
            return
        await answer(request, send)

    return serve


def response_head(code: int, **headers: str) -> bytes:
    """Return the status line and headers of an answer, after which the connection ends.

    Args:
        headers: By name, with ``_`` for ``-``.
    """
    lines = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
