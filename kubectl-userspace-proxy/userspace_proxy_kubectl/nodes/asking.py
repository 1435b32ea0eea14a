"""How agents are asked for their state: for whole answers, or for summaries if these are too much.

Rule 1: whole answers are asked for while nodes are few and answers small; a node whose answer is
too large is asked for a summary, and once several are, all of them.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote

from userspace_proxy.causes import agents
from userspace_proxy.errors import UserspaceProxyError

from ..port_forward import ForwardTarget, PortForwardError
from .answers import Answers
from .ask import ANSWER_BYTES, Bounds
from .calls import Read, cause_of_failure

SUMMARY_FROM = 100
"""Clusters of more nodes are read by summaries."""
WHOLE_BYTES = 36 << 20
"""What all whole answers together may have."""
ALSO_MAX = 100
"""Services that a request names: its line may have 8 KiB."""

_STATUS = "/api/v1/status"


@dataclass(frozen=True, slots=True)
class AskingMode:
    """How an agent is asked."""

    is_summary: bool
    path: str
    """With its query."""
    bounds: Bounds
    """Of an answer, or of the first line of a stream."""


class Asking:
    """How the agents of one look are asked.

    Args:
        also: Services, ``namespace/name``, that summaries contain anyway.
        watches: Ask for streams.
    """

    def __init__(self, also: Collection[str] = (), *, watches: bool = False) -> None:
        self._also = sorted(also)[:ALSO_MAX]
        self.watches = watches
        """Whether agents are asked for streams."""
        self._too_large: set[str] = set()
        """Nodes whose whole answers are."""
        self._reduced: set[str] = set()
        """Those of them that have sent a summary."""
        self.refused: PortForwardError | None = None
        """The API server doesn't permit port-forwards."""

    def mode(self, node: str, count: int) -> AskingMode:
        """Return how to ask the agent of a node now.

        Args:
            count: How many nodes there are.
        """
        # One node may have any reason; it changes nothing for the others.
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
        """Ask a node for summaries, as its answer is too large; return False if that was one."""
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
        """Note that a node hasn't answered within some seconds, or has sent nothing for so long."""
        has_answered = answers.nodes[node].status is not None if node in answers.nodes else False
        row = agents.gone_silent if has_answered else agents.no_answer
        answers.fail(node, row(to.namespace, seconds, answers.state_of(node)))


def every_s(count: int) -> int:
    """Return how many seconds are between two lines of a stream; of many nodes, more."""
    return 1 if count <= SUMMARY_FROM else 5
