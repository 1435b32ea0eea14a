"""What the agent of one node has answered, and those of all nodes.

Rule 1: an answer is a value; a newer one replaces it.
Rule 2: a node that doesn't answer has a cause, and costs its own row only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from userspace_proxy.causes.cause import Cause
from userspace_proxy.facts import StatusFacts

from ..port_forward import ForwardTarget

# An adjusted clock may be half a second off its own start.
_SLEWED_S = 1.0


class AgentRun(NamedTuple):
    """When an agent has counted what it says, by its own clock; Unix times."""

    started: float
    now: float

    def since(self, was: AgentRun) -> tuple[bool, float]:
        """Return whether it still runs, and how many seconds it has counted since another moment.

        That shows by its age: both times move where the node's clock is set. One that has been
        started in between counts from its start.
        """
        age, before = self.now - self.started, was.now - was.started
        is_same = age >= before - _SLEWED_S
        return is_same, age - before if is_same else age


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """One node, as far as it is known."""

    node: str
    """Its name."""
    agents: tuple[ForwardTarget, ...] = ()
    """The pods that run a proxy there for the same Services, the one that is asked first, each with
    the port of its status page; empty: none does."""
    status: StatusFacts | None = None
    """The last answer of the first agent, which may be a summary; None: none has arrived yet."""
    problem: Cause | None = None
    """Why there is no answer, or none any more; None while there is one."""
    asked_at: float = 0.0
    """Unix time of this machine at which the answer was asked for; 0 without an answer."""
    answered_at: float = 0.0
    """Unix time of this machine at which its first byte arrived; 0 without an answer."""
    is_summary: bool = False
    """Whether Service ports that are served are left out of ``status.ports``."""
    behind: tuple[str, ...] = ()
    """Services, ``namespace/name``, whose plan there has differed from what the API server contains
    for more than two seconds, by name; a Service that is missing there, or too many, included."""


@dataclass(frozen=True, slots=True)
class AllNodes:
    """All nodes at one moment."""

    answers: tuple[AgentAnswer, ...] = ()
    """By the node's name; also of nodes that have no agent."""
    has_nodes: bool = True
    """Whether the Nodes of the cluster could be listed; without, nodes without an agent are
    unknown."""
    digests: Mapping[str, str] | None = None
    """The digest of each Service's plan, ``namespace/name``, that this machine has made of the API
    server's objects; None: it hasn't, or may not read them."""
    planned_at: float = 0.0
    """Unix time of this machine at which these objects were read."""
