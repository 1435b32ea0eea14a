"""Finds all nodes' agents, which are pods with the chart's labels, and Nodes that lack an agent.

    pods, listed and watched ─┐
    Nodes, DaemonSets, once ──┴──▶ FoundAgents

Rule 1: only pods must be readable; without Nodes, nodes without an agent are unknown.
Rule 2: if the chart has taken over kubeadm's DaemonSet, its pods have kube-proxy's labels; agents
have the flag with which the chart starts them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from userspace_proxy.errors import SourceError, UserspaceProxyError
from userspace_proxy.facts.units import in_order
from userspace_proxy.model.wire import FieldError, WireEvent, WireHead, decode
from userspace_proxy.sources.base import Pause, pause
from userspace_proxy.sources.kubernetes.api_paths import join
from userspace_proxy.sources.kubernetes.client import ApiClient, LineSplitter
from userspace_proxy.sources.kubernetes.lists import Take, read_page, read_whole
from userspace_proxy.sources.kubernetes.responses import (
    Response,
    TransportError,
    cause_of,
    invalid,
    rejected,
    unreachable,
)

from ..user_rights import lacks_rights
from .agent_pods import AgentPod, by_node, read_agent
from .placement import NodeState, Placement, lacking, read_daemon_set, read_node_state

NAMESPACE = "kube-system"
"""The chart's default namespace, as in docs/install.md."""
SELECTOR = "app.kubernetes.io/name=userspace-proxy"
KUBEADM_SELECTOR = "k8s-app=kube-proxy"
WATCH_S = 300.0
"""Seconds after which a watch of pods is ended, and pods are listed again."""

_AGAIN_S = 2.0
# The seconds after which an API server without an answer counts as unreachable.
_SERVER_S = 4.0
# The silence in seconds that is tolerated beyond the timeout requested from the server.
_SILENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Where:
    """Selects agents."""

    namespace: str = NAMESPACE
    selector: str = ""
    """The pods' labels; empty for the chart's labels."""
    nodes: frozenset[str] = frozenset()
    """The nodes whose agents are requested; empty for all nodes."""
    name: str = ""
    """The proxy name of the agent to select if a node has several agents; empty for the agent that
    serves Services without a proxy name."""


@dataclass(frozen=True, slots=True)
class FoundAgents:
    """The agents and Nodes that a :class:`Finder` has found."""

    agents: Mapping[str, tuple[AgentPod, ...]] = field(default_factory=dict)
    """By node, its agents' pods, including pods that aren't running; the first is asked."""
    nodes: Mapping[str, NodeState] | None = None
    """All Nodes; None if they can't be listed."""
    placements: tuple[Placement, ...] = ()
    """The nodes that the DaemonSets target."""

    def names(self, wanted: frozenset[str]) -> tuple[str, ...]:
        """Return the nodes that have, or should have, an agent, by name.

        Args:
            wanted: Only these nodes, including unknown nodes; empty for all.
        """
        if wanted:
            return tuple(sorted(wanted, key=in_order))
        placements = self.placements or self._placements_of_pods()
        without = lacking((self.nodes or {}).values(), placements, self.agents)
        return tuple(sorted({*self.agents, *without}, key=in_order))

    def excluded(self, names: Collection[str]) -> tuple[str, ...]:
        """Return Nodes, except virtual ones, that no DaemonSet targets; empty if they are unknown.

        Args:
            names: The result of :meth:`names` for all nodes.
        """
        others = (one for one in (self.nodes or {}).values() if one.name not in names)
        return tuple(sorted((one.name for one in others if not one.is_virtual), key=in_order))

    def _placements_of_pods(self) -> list[Placement]:
        placements: list[Placement] = []
        for agents in self.agents.values():
            for agent in agents:
                if agent.placement not in placements:
                    placements.append(agent.placement)
        return placements


class Finder:
    """Finds agents repeatedly.

    Args:
        client: The API server's client, open.
        pause: Awaited before a retry.
    """

    def __init__(self, client: ApiClient, where: Where, *, pause: Pause = pause) -> None:
        self._client = client
        self._where = where
        self._pause = pause
        self._selector = where.selector or SELECTOR
        self._is_kubeadm = False
        self._pods: dict[str, AgentPod] = {}
        self._version = ""
        self.found = FoundAgents()
        """The last result."""
        self.has_others = False
        """Whether Nodes and DaemonSets have been requested."""

    async def pods(self) -> FoundAgents:
        """List the pods, and return the agents found so far.

        Raises:
            SourceError: The pods can't be listed.
        """
        await self._list_pods()
        if not self._pods and not self._where.selector and not self._is_kubeadm:
            await self._try_kubeadm()
        return self._note()

    async def others(self) -> FoundAgents:
        """List the Nodes and DaemonSets that this user may list, and return the agents found."""
        nodes, placements = await asyncio.gather(self._list_nodes({}), self._list_daemon_sets())
        self.found = replace(self.found, nodes=nodes, placements=placements)
        self.has_others = True
        return self.found

    async def look_at(self, node: str) -> FoundAgents:
        """List a Node without an agent, and the DaemonSets, again; return the agents found."""
        query = {"fieldSelector": f"metadata.name={node}"}
        new, placements = await asyncio.gather(self._list_nodes(query), self._list_daemon_sets())
        self.found = replace(self.found, placements=placements)
        if new is not None and self.found.nodes is not None:
            others = {name: one for name, one in self.found.nodes.items() if name != node}
            self.found = replace(self.found, nodes={**others, **new})
        return self.found

    async def silence(self) -> str:
        """Return why the API server can't be reached; empty if it answers, with any status."""
        try:
            async with asyncio.timeout(_SERVER_S):
                await self._client.get("/version", {})
        except TransportError as exc:
            return unreachable(self._client.url, exc).text
        except TimeoutError:
            late = TransportError(f"no answer within {_SERVER_S:g} s")
            return unreachable(self._client.url, late).text
        except UserspaceProxyError:
            # The credentials can't be used; the failure of the agent's stream reports this.
            pass
        return ""

    def check(self) -> None:
        """Raise SourceError if neither an agent nor a DaemonSet that should run agents is known."""
        if self.found.agents or self.found.placements:
            return
        raise SourceError(
            f"no agent in namespace {self._where.namespace}: no pod has the labels "
            f"{self._where.selector or SELECTOR} and is in its node's network",
            hint="name the release's namespace with --release-namespace, or its pods' labels with "
            "--selector",
        )

    async def follow(self) -> AsyncIterator[FoundAgents]:
        """Yield the agents after each change and each new list of the pods; never ends."""
        while True:
            try:
                async for found in self._watch():
                    yield found
            except (UserspaceProxyError, TimeoutError):
                # Keep the known agents; if the API server fails, their answers will show that, too.
                pass
            await self._pause(_AGAIN_S)
            try:
                yield await self.pods()
            except SourceError:
                continue

    def _note(self) -> FoundAgents:
        pods = self._pods.values()
        agents = [one for one in pods if one.takes_over or not self._is_kubeadm]
        self.found = replace(self.found, agents=by_node(agents, self._where.name))
        return self.found

    def _path(self, kind: str, start: str = "/api/v1") -> str:
        return join(f"{start}/namespaces", self._where.namespace, kind)

    async def _list_pods(self) -> None:
        pods: dict[str, AgentPod] = {}

        def take(items: Sequence[bytes]) -> None:
            for agent in filter(None, map(read_agent, items)):
                pods[agent.target.pod] = agent

        query = {"labelSelector": self._selector}
        try:
            page = await read_page(self._client, self._path("pods"), query, take)
        except TransportError as exc:
            raise SourceError(unreachable(self._client.url, exc).text) from exc
        except FieldError as exc:
            raise SourceError(invalid(self._client.url, "pods", str(exc)).text) from exc
        if isinstance(page, Response):
            raise await self._refused(page)
        self._pods, self._version = pods, page.resource_version or ""

    async def _refused(self, response: Response) -> SourceError:
        if response.code == 403:
            words, namespace = cause_of(response), self._where.namespace
            return await lacks_rights(self._client, "list pods", namespace, words)
        credentials = self._client.credentials.description
        failure = rejected(self._client.url, "list", "pods", response, credentials=credentials)
        return SourceError(failure.text)

    async def _try_kubeadm(self) -> None:
        """List the pods of kubeadm's DaemonSet; if none takes over, select the chart's pods."""
        self._selector = KUBEADM_SELECTOR
        try:
            await self._list_pods()
            self._is_kubeadm = any(agent.takes_over for agent in self._pods.values())
        finally:
            if not self._is_kubeadm:
                self._pods, self._selector = {}, SELECTOR

    async def _list_nodes(self, query: Mapping[str, str]) -> Mapping[str, NodeState] | None:
        nodes: dict[str, NodeState] = {}

        def take(items: Sequence[bytes]) -> None:
            for node in map(read_node_state, items):
                nodes[node.name] = node

        return nodes if await self._list("/api/v1/nodes", query, take) else None

    async def _list_daemon_sets(self) -> tuple[Placement, ...]:
        placements: list[Placement] = []

        def take(items: Sequence[bytes]) -> None:
            placements.extend(map(read_daemon_set, items))

        path = self._path("daemonsets", "/apis/apps/v1")
        is_read = await self._list(path, {"labelSelector": self._selector}, take)
        return tuple(placements) if is_read else ()

    async def _list(self, path: str, query: Mapping[str, str], take: Take) -> bool:
        """Read a list; return False if it is denied, or can't be read completely."""
        try:
            return await read_whole(self._client, path, {**query, "limit": "500"}, take) is None
        except UserspaceProxyError:
            return False

    async def _watch(self) -> AsyncIterator[FoundAgents]:
        query = {
            "labelSelector": self._selector,
            "watch": "1",
            "resourceVersion": self._version,
            "timeoutSeconds": f"{WATCH_S:g}",
        }
        lines = LineSplitter()
        async with self._client.stream(self._path("pods"), query) as stream:
            while stream.code == 200:
                chunk = await stream.read(silence_s=WATCH_S + _SILENCE_S)
                events = [decode(line, WireEvent) for line in lines.feed(chunk)]
                if any(event.type == "ERROR" for event in events):
                    return
                for event in events:
                    self._take(event)
                if events:
                    yield self._note()
                if not chunk:
                    return

    def _take(self, event: WireEvent) -> None:
        name = decode(event.object, WireHead).metadata.name or ""
        agent = None if event.type == "DELETED" else read_agent(bytes(event.object))
        if event.type in ("ADDED", "MODIFIED") and agent is not None:
            self._pods[name] = agent
        elif event.type != "BOOKMARK":
            self._pods.pop(name, None)
