"""Defines the answers of one node's agent, and of all nodes.

Rule 1: an answer is a value; a newer answer replaces it.
Rule 2: a node without an answer has a cause, and affects only its own row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from userspace_proxy.causes.cause import Cause
from userspace_proxy.facts import StatusFacts

from ..port_forward import ForwardTarget

# Slewing the node's clock may make an agent's age appear to shrink by this much.
_SLEWED_S = 1.0


class AgentRun(NamedTuple):
    """An agent's start, and the time of its answer, in Unix times of the node's clock."""

    started: float
    now: float

    def since(self, was: AgentRun) -> tuple[bool, float]:
        """Return whether an earlier answer is of the same run, and the seconds counted since.

        The runs are compared by the agent's age, because setting the node's clock changes both
        times. If the agent was restarted in between, only the time since its start counts.
        """
        age, before = self.now - self.started, was.now - was.started
        is_same = age >= before - _SLEWED_S
        return is_same, age - before if is_same else age


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """The known facts about one node."""

    node: str
    agents: tuple[ForwardTarget, ...] = ()
    """The pods on the node that run a proxy for the same Services, with the port of their status
    page; the first is asked. May be empty."""
    status: StatusFacts | None = None
    """The last answer of the first agent, in full or as a summary; None before the first one."""
    problem: Cause | None = None
    """Why there is no answer, or no current one; None if there is a current answer."""
    asked_at: float = 0.0
    """This machine's Unix time when the answer was requested; 0 without an answer."""
    answered_at: float = 0.0
    """This machine's Unix time when the answer's first byte arrived; 0 without an answer."""
    is_summary: bool = False
    """Whether ``status.ports`` omits served Service ports."""
    behind: tuple[str, ...] = ()
    """Services, ``namespace/name``, whose plan on the node has differed from the API server's
    contents for more than two seconds, by name; including missing and surplus Services."""
    restarts: Cause | None = None
    """Why the agent's container was restarted lately; None if it wasn't."""


@dataclass(frozen=True, slots=True)
class AllNodes:
    """All nodes at one moment."""

    answers: tuple[AgentAnswer, ...] = ()
    """The answers by node name, including nodes without an agent."""
    has_nodes: bool = True
    """Whether the cluster's Nodes could be listed; otherwise nodes without an agent are unknown."""
    digests: Mapping[str, str] | None = None
    """Digests of Services' plans, by ``namespace/name``, which this machine computed from the API
    server's objects; None if not computed yet, or not permitted."""
    planned_at: float = 0.0
    """This machine's Unix time when the API server's objects were read; 0 without digests."""
    excluded: tuple[str, ...] = ()
    """The Nodes that no agents' DaemonSet targets, by name; empty if nodes are selected by name."""
