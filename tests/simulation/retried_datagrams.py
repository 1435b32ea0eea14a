"""Judges that another endpoint gets what one has refused: a flow's first datagrams.

    sent ──refused, not answered before──▶ sent to another endpoint, if one may have it

Source: ``udp``, rule 3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.connection_ends import EndReason

from .datagram_records import Flow, Question, allowed
from .network import Address
from .refusing_endpoints import KEPT_S, RefusingEndpoints
from .troubles import SOON_S, Troubles

if TYPE_CHECKING:
    from .world import World

ORACLE, BOUND = "datagram tried again", "bound of kept datagrams"

# So many datagrams of a flow, and bytes, are kept for another endpoint.
_KEPT, _KEPT_BYTES = 4, 2048
# As many of one that waits.
_HELD, _HELD_BYTES = 8, 16 * 1024


class RetriedDatagrams:
    """The oracle of datagrams that an endpoint has refused.

    Args:
        questions: The datagrams of clients, by what is in them.
    """

    def __init__(
        self,
        world: World,
        troubles: Troubles,
        refusing: RefusingEndpoints,
        questions: Mapping[bytes, Question],
    ) -> None:
        self._world = world
        self._judge = world.judgements
        self._troubles = troubles
        self._refusing = refusing
        self._questions = questions
        self._due: deque[tuple[float, Flow, list[bytes]]] = deque()
        """Until when which first datagrams of a flow are to be sent to another endpoint."""

    def refused(self, flow: Flow) -> None:
        """Note that the node is told that a flow's endpoint refuses."""
        if self._is_to_be_tried_again(flow):
            self._due.append((self._world.timeline.now + SOON_S, flow, _fitting(flow.sent)))

    def look(self) -> None:
        """Judge those whose time is up."""
        while self._due and self._due[0][0] < self._world.timeline.now:
            self._check_tried_again(*self._due.popleft())

    def check_kept(self, flow: Flow, question: Question, payload: bytes) -> None:
        """What is kept for a flow has a bound; that is less if it may not have waited."""
        flow.kept.append(payload)
        count, size = len(flow.kept), sum(map(len, flow.kept))
        waits = flow.serving.handling.waits or question.serving.handling.waits
        has_waited = not question.ends or waits is not None
        most, most_bytes = (_HELD, _HELD_BYTES) if has_waited else (_KEPT, _KEPT_BYTES)
        is_right = count == 1 or (count <= most and size <= most_bytes)
        self._judge.check(BOUND, is_right, f"{count} datagrams were kept, with {size} B")

    def check_sent_again(self, flow: Flow, question: Question, payload: bytes, to: Address) -> None:
        """What an endpoint has refused is sent to another one, unless the flow has waited since."""
        waits = flow.serving.handling.waits or question.serving.handling.waits
        left = question.allowed - {SocketAddress(*end) for end in question.ends} - question.at_limit
        if waits is not None and all(map(self._refusing.may_be_ejected, left)):
            # It had none left to try, so it has waited, and begins anew.
            self._judge.right(ORACLE)
        elif waits is not None or flow.service.changed_at >= question.at:
            self._judge.excuse(ORACLE, "its flow may have waited")
        else:
            why = f"{payload!r} was sent to {to} again, which had refused it"
            self._judge.violate(ORACLE, why)

    def _is_to_be_tried_again(self, flow: Flow) -> bool:
        """Return whether another endpoint is to get what a refused flow has sent."""
        now, world = self._world.timeline.now, self._world
        if flow.answered_at is not None or flow.core.inbox or not _fitting(flow.sent):
            return False
        if now - flow.began > KEPT_S - SOON_S or flow.client is None or world.is_calm:
            return False
        serving = flow.service.group.serving
        if serving.handling.max_connections is not None or serving.standbys:
            return False
        others = allowed(serving, flow.client[0]) - {SocketAddress(*flow.endpoint)}
        return any(not world.hosts[e].mix and not self._refusing.may_be_ejected(e) for e in others)

    def _check_tried_again(self, due: float, flow: Flow, sent: list[bytes]) -> None:
        if flow.cause is EndReason.EVICTED:
            # Another client's flow has its place: that is judged at its end.
            return
        ends = {payload: self._questions[payload].ends for payload in sent}
        excuse = self._why_not_tried_again(flow, due)
        if all(len(set(each)) > 1 for each in ends.values()):
            self._judge.right(ORACLE)
        elif excuse:
            self._judge.excuse(ORACLE, excuse)
        else:
            why = f"{flow.endpoint} has refused {ends}, and no other endpoint got them"
            self._judge.violate(ORACLE, why)

    def _why_not_tried_again(self, flow: Flow, due: float) -> str:
        if flow.service.closed_at >= flow.began or flow.service.changed_at >= flow.began:
            return "the Service has changed"
        if self._troubles.flows_lacked(due - SOON_S):
            return "the kernel lacked something"
        if self._world.stopped_since(flow.began) or flow.answered_at is not None:
            return "it was too late"
        return ""


def _fitting(sent: list[bytes]) -> list[bytes]:
    """Return those of a flow's first datagrams that are kept."""
    kept: list[bytes] = []
    for payload in sent:
        if len(kept) < _KEPT and sum(map(len, kept)) + len(payload) <= _KEPT_BYTES:
            kept.append(payload)
    return kept
