"""Decides whether to request whole answers from agents, or summaries if these are too large.

Rule 1: whole answers are requested while nodes are few and answers small; a node whose answer is
too large is asked for a summary, and once several are, all nodes are.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.status.http_answer import ANSWER_BYTES, Bounds

from ..port_forward import ForwardTarget, PortForwardError
from . import agent_causes
from .agent_calls import Read, cause_of_failure
from .node_answers import Answers

SUMMARY_FROM = 100
"""Clusters with more nodes are read by summaries."""
WHOLE_BYTES = 36 << 20
"""Limit on the bytes of all whole answers together."""
ALSO_MAX = 100
"""How many Services a request names: its line may have 8 KiB."""

_STATUS = "/api/v1/status"


@dataclass(frozen=True, slots=True)
class AskingMode:
    """How to ask an agent."""

    is_summary: bool
    path: str
    """The path, including the query."""
    bounds: Bounds
    """Bounds of an answer, or of a stream's first line."""


class Asking:
    """How the agents of one read are asked.

    Args:
        also: Services, ``namespace/name``, that summaries include anyway.
        watches: Whether to request streams.
    """

    def __init__(self, also: Collection[str] = (), *, watches: bool = False) -> None:
        self._also = sorted(also)[:ALSO_MAX]
        self.watches = watches
        """Whether streams are requested."""
        self._too_large: set[str] = set()
        """Nodes whose whole answers are too large."""
        self._reduced: set[str] = set()
        """Those nodes that have sent a summary."""
        self.refused: PortForwardError | None = None
        """Whether the API server denies port-forwards."""

    def mode(self, node: str, count: int) -> AskingMode:
        """Return how to ask a node's agent now.

        Args:
            count: The number of nodes.
        """
        # A single node may have any reason, which doesn't change the others' mode.
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
        """Ask a node for summaries as its answer is too large; return False if that was one."""
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
        answers.fail(node, cause_of_failure(exc, to.namespace, answers.state_of(node)))

    def fail_late(self, answers: Answers, node: str, to: ForwardTarget, seconds: float) -> None:
        """Record that a node hasn't answered in time, or has been silent for that long."""
        has_answered = answers.nodes[node].status is not None if node in answers.nodes else False
        row = agent_causes.gone_silent if has_answered else agent_causes.no_answer
        answers.fail(node, row(to.namespace, seconds, answers.state_of(node)))


def every_s(count: int) -> int:
    """Return the seconds between a stream's lines; more for many nodes."""
    return 1 if count <= SUMMARY_FROM else 5
