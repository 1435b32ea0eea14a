"""Agents of many nodes behind a fake API server, for tests of programs that read all nodes.

    add("node-1", FakeAgent(facts)) ──▶ Node, pod of the DaemonSet ──port-forward──▶ HTTP answers

The objects match the chart's DaemonSet: labels, host network, arguments. An agent needs no socket,
so a test can have a thousand.
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
    """A request as parsed by an agent."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    """The query's values by name; a name without a value has an empty value."""
    headers: Mapping[str, str]
    """Header values, keyed by lower-case name."""
    is_chunked: bool
    """Whether the client speaks HTTP/1.1, so that a body without a length is sent in chunks."""

    @classmethod
    def parse(cls, head: bytes) -> AgentRequest:
        """Parse a request line and headers; raise ValueError if they are malformed."""
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
"""Answers one request; the connection ends when it returns."""


class FakeAgents:
    """The agents of one release.

    Args:
        api: The API server, which gets the Nodes and pods, and forwards to the pods.
        release: The release's name; the default is the chart's.
        port: The port of the agents' status page; they have a flag for it unless it is the default.
        serves: The label service-proxy-name of the served Services; empty for those without it.
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
        """Add a Node, without an agent."""
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
        """Add a Node with an agent, or another agent to a Node; return the pod's name.

        Args:
            answer: Answers each request; see ``agent_answers``.
            pod: The pod's name; empty to derive it from release and node.
            created: The pod's creation time.
            is_forbidden: Whether the API server denies port-forwards to it.
            log: The agent's log.
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
        """End a node's agents; the Node stays.

        Raises:
            KeyError: The node never had an agent.
        """
        for name in self._pods[node]:
            self._api.delete("Pod", name, self._namespace)
            self._api.pods.kill(name, self._namespace)
        self._pods[node] = []

    def passed_bytes(self, node: str) -> int:
        """Return the number of bytes that port-forwards to a node's current agents have carried."""
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
    """Return a ready Node."""
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
    """Return a function that serves one HTTP request on a pod's port."""

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
    """Return an answer's status line and headers, which announce that the connection will close.

    Args:
        headers: Values by name, with ``_`` in place of ``-``.
    """
    lines = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
