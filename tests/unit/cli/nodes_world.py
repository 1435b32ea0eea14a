"""A cluster for commands that query agents: a fake API server with agents behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from tests.unit.status.views import NOW, make_endpoint, make_frontend, make_port, make_view
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.cli import main
from userspace_proxy.clocks import Clocks
from userspace_proxy.facts import PortFacts, StatusFacts
from userspace_proxy.facts.connection import ConnectionFacts
from userspace_proxy_testing.fakes.agent_answers import FakeAgent
from userspace_proxy_testing.fakes.agents import FakeAgents
from userspace_proxy_testing.fakes.api_server import FakeApiServer

A, B = "10.244.1.1:8080", "10.244.2.2:8080"
ADDRESS = make_frontend("10.96.0.10:80", "ClusterIP", "proxy port 17004")
WEB = make_port("web", frontends=(ADDRESS,), endpoints=(make_endpoint(A), make_endpoint(B)))
DB = make_port("db", namespace="cart")
REFUSED = make_port(
    "web", frontends=(ADDRESS,), endpoints=(make_endpoint(A, cause=refuses(A)), make_endpoint(B))
)
"""The Service port WEB with one failing endpoint."""
POD = "shop/cart-7d9f8b6c5d-x2x9z"
ENDED = ConnectionFacts(
    at=NOW,
    service="shop/web:http",
    client="10.244.0.7:41234",
    client_pod=POD,
    endpoint="10.244.0.3:8080",
    received_bytes=78,
    sent_bytes=1240,
    first_byte_s=0.0008,
    duration_s=3.1,
    ended_by="client",
    cause="complete",
)


def status_of(node: str, *ports: PortFacts, **changes: object) -> StatusFacts:
    """Return the response of a node's agent."""
    view = make_view(*(ports or (WEB, DB)), **changes)
    return msgspec.structs.replace(view, node=node, now=Clocks.time(), version="0.1.0")


class Cluster:
    """Agents behind an API server."""

    def __init__(self, api: FakeApiServer) -> None:
        self.api = api
        self.agents = FakeAgents(api)

    def add(self, node: str, *ports: PortFacts, **changes: object) -> FakeAgent:
        """Add a node whose agent serves these Service ports, by default web and db."""
        agent = FakeAgent(status_of(node, *ports, **changes))
        self.agents.add(node, agent)
        return agent

    async def run(self, *words: str) -> int:
        """Run a command with the cluster's kubeconfig; return its exit status."""
        return await asyncio.to_thread(main, [*words, self.kubeconfig])

    @property
    def kubeconfig(self) -> str:
        """The flag with the path of the cluster's kubeconfig."""
        return f"--kubeconfig={self.path}"

    path = Path()
    """The path of the cluster's kubeconfig."""


@contextlib.asynccontextmanager
async def cluster_at(path: Path) -> AsyncIterator[Cluster]:
    """Start a cluster, and write its kubeconfig."""
    async with FakeApiServer() as api:
        cluster = Cluster(api)
        cluster.path = path
        path.write_text(
            "current-context: c\n"
            "contexts: [{name: c, context: {cluster: c, user: u, namespace: shop}}]\n"
            f"clusters: [{{name: c, cluster: {{server: '{api.url}'}}}}]\n"
            "users: [{name: u, user: {}}]\n"
        )
        yield cluster
