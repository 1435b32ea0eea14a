"""Decides how large an agent's answer may be, and whether to request a summary instead.

    6 MiB of JSON each, 36 MiB all together ──▶ ``decoding``: 12 bytes of memory per byte of JSON

Rule 1: whole answers are requested while nodes are few and answers small; a node whose answer is
too large is asked for a summary. Once more than a tenth of the answers, and at least two, are too
large, all nodes are asked for summaries.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from userspace_proxy.causes.cause import Cause
from userspace_proxy.clocks import Clocks
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.model.pods import NOT_ENDED, ContainerEnd
from userspace_proxy.status.http_answer import ANSWER_BYTES, Bounds

from ..port_forward import ForwardTarget, PortForwardError
from . import agent_causes
from .agent_answer import AgentAnswer, AllNodes
from .agent_calls import Read, cause_of_failure
from .agent_pods import AgentPod, serving
from .discovery import FoundAgents, Where
from .plans import Plans

SUMMARY_FROM = 100
"""Agents of clusters with more nodes than this are asked for summaries."""
WHOLE_BYTES = 36 << 20
"""The maximum number of bytes of all whole answers together."""
ALSO_MAX = 100
"""The maximum number of Services in a request: its request line may have 8 KiB."""

# The seconds for which a restart is reported: an agent that fails again and again waits up to five
# minutes before its next start.
_LATELY_S = 600.0
_STATUS = "/api/v1/status"


@dataclass(frozen=True, slots=True)
class AskingMode:
    """How to ask an agent."""

    is_summary: bool
    path: str
    bounds: Bounds
    """Bounds of an answer, or of a stream's first line."""


class Asking:
    """How the agents of one read are asked.

    Args:
        also: Services, ``namespace/name``, that summaries include even if served; only the first
            ALSO_MAX, by name, count.
        watches: Whether to request streams.
    """

    def __init__(self, also: Collection[str] = (), *, watches: bool = False) -> None:
        self._also = sorted(also)[:ALSO_MAX]
        self.watches = watches
        """Whether streams are requested."""
        self._too_large: set[str] = set()
        """Nodes whose whole answers are too large."""
        self._reduced: set[str] = set()
        """Nodes with too large answers whose summaries have arrived."""
        self.refused: PortForwardError | None = None
        """The error with which the API server denied port-forwards; None if it didn't."""

    def mode(self, node: str, count: int) -> AskingMode:
        """Return how to ask a node's agent now.

        Args:
            count: The number of nodes.
        """
        # A large answer doesn't change the mode for other nodes unless many answers are large.
        are_many = len(self._reduced) > max(1, count // 10)
        is_summary = node in self._too_large or are_many or count > SUMMARY_FROM
        query = []
        if is_summary:
            query = ["view=summary", *(f"also={quote(one, safe='')}" for one in self._also)]
        if self.watches:
            query += ["watch", f"every={every_s(count)}"]
        path = f"{_STATUS}?{'&'.join(query)}" if query else _STATUS
        body = ANSWER_BYTES if is_summary else min(ANSWER_BYTES, WHOLE_BYTES // max(count, 1))
        return AskingMode(is_summary, path, Bounds(body=body))

    def reduce(self, node: str, mode: AskingMode) -> bool:
        """Request summaries from a node from now on; return False if its answer was a summary."""
        self._too_large.add(node)
        return not mode.is_summary

    def take(self, answers: Answers, node: str, read: Read, mode: AskingMode) -> None:
        if mode.is_summary:
            self._reduced |= self._too_large & {node}
        answers.put(node, read, is_summary=mode.is_summary)

    def fail(
        self, answers: Answers, node: str, to: ForwardTarget, exc: UserspaceProxyError
    ) -> None:
        if isinstance(exc, PortForwardError) and exc.number == errno.EACCES:
            self.refused = exc
        state, ended = answers.state_of(node), answers.last_end_of(node)
        answers.fail(node, cause_of_failure(exc, to.namespace, state, ended))

    def fail_late(
        self,
        answers: Answers,
        node: str,
        to: ForwardTarget,
        seconds: float,
        *,
        is_open: bool = False,
    ) -> None:
        """Record that a node hasn't answered for ``seconds``, or that its open stream is silent."""
        row = agent_causes.gone_silent if is_open else agent_causes.no_answer
        answers.fail(node, row(to.namespace, seconds, answers.state_of(node)))


def every_s(count: int) -> int:
    """Return the seconds between a stream's lines; more for many nodes."""
    return 1 if count <= SUMMARY_FROM else 5


def _is_recent(end: ContainerEnd) -> bool:
    return Clocks.time() - end.at <= _LATELY_S


def _restarts(pod: AgentPod) -> Cause | None:
    """Return why an agent's container was restarted lately; None if it wasn't."""
    end = pod.last_end
    if not pod.restarts or not _is_recent(end):
        return None
    return agent_causes.agent_restarts(
        end.text,
        pod.target.namespace,
        is_repeated=pod.restarts > 1,
        out_of_memory=end.is_out_of_memory,
        is_graceful=end.is_graceful,
    ).replace(count=pod.restarts, last_at=end.at)


class Answers:
    """The answers of all nodes, from one read or a continuous read."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._found = FoundAgents()
        self._nodes: dict[str, AgentAnswer] = {}

    def take(self, found: FoundAgents) -> None:
        """Update the nodes and their agents."""
        self._found = found
        known, self._nodes = self._nodes, {}
        excluded = found.excluded(found.names(frozenset()))
        for node in found.names(self._where.nodes):
            pods = found.agents.get(node, ())
            running = serving(pods)
            before = known.get(node, AgentAnswer(node))
            problem = before.problem
            if not running:
                namespace = self._where.namespace
                missing = agent_causes.agent_excluded if node in excluded else agent_causes.no_agent
                problem = missing(namespace)
                if pods:
                    facts, end = (namespace, pods[0].reason, pods[0].target.pod), pods[0].last_end
                    problem = agent_causes.agent_not_running(*facts)
                    if end.text:
                        is_oom = end.is_out_of_memory
                        problem = agent_causes.agent_ended(*facts, out_of_memory=is_oom)
            elif before.agents == ():
                problem = None
            restarts = _restarts(pods[0]) if running else None
            self._nodes[node] = replace(before, agents=running, problem=problem, restarts=restarts)

    def note(self, found: FoundAgents) -> None:
        """Update the states of Nodes, which the next failures include."""
        self._found = found

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
        """Set the Services whose plan lags behind, by node; return whether any of them changed."""
        news = {
            node: replace(one, behind=services)
            for node, one in self._nodes.items()
            if one.behind != (services := behind.get(node, ()))
        }
        self._nodes.update(news)
        return bool(news)

    def state_of(self, node: str) -> str:
        """Return why a Node isn't ready; empty if it is ready, or its state is unknown."""
        state = (self._found.nodes or {}).get(node)
        return state.reason if state is not None else ""

    def last_end_of(self, node: str) -> ContainerEnd:
        """Return how the container of a node's agent last ended, if that was recently."""
        pods = self._found.agents.get(node, ())
        return pods[0].last_end if pods and _is_recent(pods[0].last_end) else NOT_ENDED

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
        """Return the current nodes; with plans, also digests of the API server's objects."""
        return AllNodes(
            tuple(self._nodes.values()),
            self._found.nodes is not None,
            plans.digests if plans is not None else None,
            plans.planned_at if plans is not None else 0.0,
            () if self._where.nodes else self._found.excluded(self._nodes),
        )
