"""A Deployment that is scaled to zero and back, with a real API server and two local nodes.

    clients ──▶ agent of node-1, agent of node-2 ──▶ the pod: a server of this process
                        │ Leases, scale                   ▲ starts and ends it
                        ▼                                 │
                 kube-apiserver ──watch──▶ Controllers ───┘ writes the EndpointSlice

Agents dial the pod on loopback through a detour, because the API server rejects slices with
loopback addresses.

Rule 1: a terminating pod resets its connections before its slice changes, so a connection is lost
if an agent is too late.
Rule 2: like Kubernetes' controllers, ``Controllers`` follow the newest state, and don't see changes
that are reverted within ``lag_s``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from tests.tcp_servers import serving
from userspace_proxy.agent.agent import Agent
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.rounds.tasks import pause
from userspace_proxy.dataplane import Tuning
from userspace_proxy.model import Protocol, ServiceKey, SocketAddress
from userspace_proxy.plan.detours import At
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.client import ApiClient, LineSplitter
from userspace_proxy.sources.kubernetes.credentials import Credentials

from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .objects import Object, deployment, made

NAMESPACE = "shop"
WEB = ServiceKey(NAMESPACE, "web")
DEADLINE_S = 120.0
_APPS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
_SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"

_PORT = 8080
_CONTAINER = {"name": "web", "image": "none"}


def service(idle_after: str) -> Object:
    annotations = {
        "userspace-proxy.io/hold": "60s",
        "userspace-proxy.io/wake": "deployment/web",
        "userspace-proxy.io/idle-after": idle_after,
    }
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": _PORT}]}
    return made("Service", "web", spec, namespace=NAMESPACE, annotations=annotations)


class Controllers:
    """Simulates the Deployment's controller and kubelet, and the EndpointSlice controller.

    Args:
        agents: The agents that must be able to dial the pod.
    """

    def __init__(self, api: ApiClient, agents: Iterable[Agent]) -> None:
        self.starts = self.ends = 0
        self.lag_s = 0.0
        self._api = api
        self._agents = tuple(agents)
        self._pod: contextlib.AsyncExitStack | None = None
        """Stops the pod; None if there is no pod."""
        self._version = ""
        self._wanted = 0
        self._has_changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the Deployment until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._follow())

    async def _watch(self) -> None:
        query = {"watch": "1", "fieldSelector": "metadata.name=web", "resourceVersion": "0"}
        while True:
            lines = LineSplitter()
            async with self._api.stream(_APPS, query) as stream:
                while chunk := await stream.read(silence_s=600.0):
                    for line in lines.feed(chunk):
                        self._wanted = json.loads(line)["object"]["spec"]["replicas"]
                        self._has_changed.set()

    async def _follow(self) -> None:
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            await pause(self.lag_s)
            if self._wanted and self._pod is None:
                await self._start_pod()
            elif not self._wanted and self._pod is not None:
                await self._end_pod()

    async def _start_pod(self) -> None:
        self.starts += 1
        self._pod = contextlib.AsyncExitStack()
        address = await self._pod.enter_async_context(serving(_answer))
        ip = f"192.0.2.{self.starts % 250 + 1}"
        detours = {At(Protocol.TCP, SocketAddress(ip, _PORT)): address}
        for agent in self._agents:
            assert agent._core is not None
            agent._core.served_ports.detour(WEB, detours, dict)
        await self._write_slice(ip)

    async def _end_pod(self) -> None:
        self.ends += 1
        await self.close()
        await self._write_slice()

    async def close(self) -> None:
        """Stop the pod, if any."""
        if self._pod is not None:
            await self._pod.aclose()
        self._pod = None

    async def _write_slice(self, *ips: str) -> None:
        metadata: dict[str, Any] = {
            "name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"},
        }
        method, path = "POST", _SLICES
        if self._version:
            metadata["resourceVersion"] = self._version
            method, path = "PUT", f"{_SLICES}/web-1"
        item = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv4",
            "ports": [{"name": "", "port": _PORT, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in ips],
        }
        response = await self._api.send(method, path, item, content_type="application/json")
        assert response.code in (200, 201), response.body
        self._version = json.loads(response.body)["metadata"]["resourceVersion"]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()


class Connection:
    """A connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self) -> bool:
        """Send a line; return whether it was echoed."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                self._writer.write(b"hello\n")
                return await self._reader.readline() == b"hello\n"
        except OSError:
            return False

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Shop:
    """The Deployment, its Service, and the nodes; see :func:`open_shop`."""

    def __init__(self, api: ApiClient, agents: Mapping[str, Agent]) -> None:
        self.agents = agents
        self.controllers = Controllers(api, agents.values())
        self._api = api

    async def put(self, path: str, item: Mapping[str, Any]) -> None:
        """Create or replace an object."""
        json_ = "application/json"
        response = await self._api.send("POST", path, item, content_type=json_)
        if response.code == 409:
            name = item["metadata"]["name"]
            response = await self._api.send("PUT", f"{path}/{name}", item, content_type=json_)
        assert response.code in (200, 201), response.body

    async def delete(self, path: str) -> None:
        await self._api.send("DELETE", path, {}, content_type="application/json")

    async def replicas(self) -> int:
        """Return the desired number of replicas."""
        response = await self._api.get(f"{_APPS}/web", {})
        return int(json.loads(response.body)["spec"]["replicas"])

    async def scale(self, replicas: int) -> None:
        """Set the number of replicas, as a user does."""
        response = await self._api.send(
            "PATCH",
            f"{_APPS}/web/scale",
            {"spec": {"replicas": replicas}},
            content_type="application/merge-patch+json",
        )
        assert response.code == 200, response.body

    async def events(self, reason: str) -> list[str]:
        """Return the notes of Events with a reason."""
        response = await self._api.get(f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events", {})
        items = json.loads(response.body)["items"]
        return [item["note"] for item in items if item["reason"] == reason]

    def address(self, node: str) -> SocketAddress:
        """Return the address at which a node's clients dial the Service."""
        core = self.agents[node]._core
        assert core is not None
        (served,) = core.served_ports.of_service(WEB)
        (listener,) = served.listeners.values()
        return listener.address

    async def dial(self, node: str) -> Connection:
        address = self.address(node)
        return Connection(*await asyncio.open_connection(address.ip, address.port))


@contextlib.asynccontextmanager
async def open_shop(control_plane: ControlPlane, idle_after: str) -> AsyncIterator[Shop]:
    """Run the agents of two nodes, with the rights of the role, and the Deployment at zero."""
    api = ApiClient(Credentials(kubeconfig=str(control_plane.kubeconfig)))
    await api.open()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(api.close)
        agents: dict[str, Agent] = {}
        for number, name in enumerate(("node-1", "node-2")):
            kubeconfig = str(control_plane.kubeconfig_for(NODE_PROXIER))
            source = KubernetesSource(kubeconfig=kubeconfig, node_name=name)
            options = Options(
                node_name=name,
                allow_wake=True,
                proxy_ports=(27000 + 500 * number, 27499 + 500 * number),
                tuning=Tuning(connect_timeout_s=0.3),
            )
            agents[name] = Agent("none", source, options)
        shop = Shop(api, agents)
        for name in agents:
            await shop.put("/api/v1/nodes", {"kind": "Node", "metadata": {"name": name}})
        await shop.put(_APPS, deployment(_CONTAINER, 0, namespace=NAMESPACE))
        await shop.put(f"/api/v1/namespaces/{NAMESPACE}/services", service(idle_after))
        for agent in agents.values():
            await stack.enter_async_context(agent)
            await agent.settled()
        controllers = asyncio.create_task(shop.controllers.run())
        try:
            yield shop
        finally:
            controllers.cancel()
            await asyncio.gather(controllers, return_exceptions=True)
            await shop.controllers.close()
            for path in (f"{_APPS}/web", f"{_SLICES}/web-1"):
                await shop.delete(path)
            await shop.delete(f"/api/v1/namespaces/{NAMESPACE}/services/web")
