"""The answers of all nodes as they arrive: each node's asked agent and the result.

Rule 1: a node that was found keeps its place; without an agent it has a cause.
Rule 2: a failure keeps the last answer, and adds why there is none now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from userspace_proxy.causes.cause import Cause

from ..port_forward import ForwardTarget
from . import agent_causes
from .agent_answer import AgentAnswer, AllNodes
from .agent_calls import Read
from .agent_pods import serving
from .discovery import FoundAgents, Where
from .plans import Plans


class Answers:
    """The nodes of one read, or of a continuous one."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._found = FoundAgents()
        self._nodes: dict[str, AgentAnswer] = {}

    def take(self, found: FoundAgents) -> None:
        """Update the nodes and their agents."""
        self._found = found
        known, self._nodes = self._nodes, {}
        for node in found.names(self._where.nodes):
            pods = found.agents.get(node, ())
            running = serving(pods)
            before = known.get(node, AgentAnswer(node))
            problem = before.problem
            if not running:
                namespace = self._where.namespace
                problem = agent_causes.no_agent(namespace)
                if pods:
                    problem = agent_causes.agent_not_running(namespace, pods[0].why_not)
            elif before.agents == ():
                problem = None
            self._nodes[node] = replace(before, agents=running, problem=problem)

    def to_ask(self) -> Mapping[str, ForwardTarget]:
        return {node: one.agents[0] for node, one in self._nodes.items() if one.agents}

    def put(self, node: str, read: Read, *, is_summary: bool) -> None:
        if node in self._nodes:
            self._nodes[node] = replace(
                self._nodes[node],
                status=read.status,
                problem=None,
                asked_at=read.asked_at,
                answered_at=read.answered_at,
                is_summary=is_summary,
            )

    def fail(self, node: str, cause: Cause) -> None:
        if node in self._nodes:
            self._nodes[node] = replace(self._nodes[node], problem=cause)

    def set_behind(self, behind: Mapping[str, tuple[str, ...]]) -> bool:
        """Set the Services that aren't as planned, by node; return whether that changed."""
        news = {
            node: replace(one, behind=services)
            for node, one in self._nodes.items()
            if one.behind != (services := behind.get(node, ()))
        }
        self._nodes.update(news)
        return bool(news)

    def state_of(self, node: str) -> str:
        """Return why a Node isn't ready; empty if it is, or if unknown."""
        state = (self._found.nodes or {}).get(node)
        return state.why_not if state is not None else ""

    @property
    def nodes(self) -> Mapping[str, AgentAnswer]:
        return self._nodes

    @property
    def count(self) -> int:
        return len(self._nodes)

    def is_settled(self) -> bool:
        return all(
            one.status is not None or one.problem is not None for one in self._nodes.values()
        )

    def all_nodes(self, plans: Plans | None) -> AllNodes:
        """Return the present nodes, with what this machine has read from the API server."""
        nodes, has_nodes = tuple(self._nodes.values()), self._found.nodes is not None
        if plans is None:
            return AllNodes(nodes, has_nodes)
        return AllNodes(nodes, has_nodes, plans.digests, plans.planned_at)
