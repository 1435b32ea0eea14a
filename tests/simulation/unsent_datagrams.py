"""Judges why a client's datagram was sent to no endpoint: what was there for it as it came.

    came ─┬─ sent ──────────────────────────────────────────────▶ right
          ├─ no endpoint, no listener, no route, no hop left ───▶ right
          ├─ its flow waited as it was read, and had kept as
          │  much as it may ────────────────────────────────────▶ right
          ├─ all at their limit, or ejected ──▶ its flow waits ──▶ judged again when that is over
          └─ none of these ─────────────────────────────────────▶ lost

Rule 1: what a client finds is noted as the node has its datagram, and added to until it is judged:
others that came at the same time may have been first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from userspace_proxy.model import Balance, SocketAddress
from userspace_proxy.model.serving import Serving

from .datagram_records import Flow, Question, allowed
from .datagrams import DatagramSocket
from .flow_ends import FlowEnds
from .network import UNROUTABLE, Address
from .refusing_endpoints import RefusingEndpoints
from .troubles import SOON_S, Troubles

if TYPE_CHECKING:
    from .world import World

ORACLE = "datagram passed on"

LATE_S = 2.5
"""By so much what has waited may be late."""


class UnsentDatagrams:
    """The oracle of datagrams that aren't passed on.

    Args:
        flows: Those that have an endpoint, by their sockets.
        of_client: The same, by the client's address and the one that it has dialled.
    """

    def __init__(
        self,
        world: World,
        troubles: Troubles,
        ends: FlowEnds,
        refusing: RefusingEndpoints,
        flows: Mapping[DatagramSocket, Flow],
        of_client: Mapping[tuple[Address | None, Address | None], Flow],
    ) -> None:
        self._world = world
        self._judge = world.judgements
        self._troubles = troubles
        self._ends = ends
        self._refusing = refusing
        self._flows = flows
        self._of_client = of_client
        self._read = b""
        """The datagram that was read last."""
        self._waited: list[Any] = []
        """Its client's flow, if it waited by then, and might keep it."""

    # -- what happens ------------------------------------------------------------------------------

    def came(self, question: Question) -> None:
        """Note what a datagram finds as the node has it."""
        question.at_limit = self._at_limit(question.serving)
        question.ejected = self._ejected(question)
        question.unroutable = self._unroutable(question)

    def took(self, payload: bytes, question: Question) -> None:
        """Note whether a flow that waits keeps a datagram that has been read."""
        waiting = self._ends.waiting_of(question)
        question.is_too_much = any(self._ends.keeps_no_more(each, payload) for each in waiting)
        self._read, self._waited = payload, [] if question.is_too_much else waiting

    def handled(self, question: Question) -> None:
        """Judge that a flow that waited as a datagram was read, and still does, has kept it."""
        waited, self._waited = self._waited, []
        is_elsewhere = question.ends or (question.client, question.to) in self._of_client
        if not waited or is_elsewhere or question.hops <= 1:
            return
        if all(each.is_waiting for each in waited):
            is_kept = any(self._read in self._ends.keeps(each) for each in waited)
            self._judge.check(ORACLE, is_kept, f"{self._read!r} wasn't kept by a flow that waits")

    def connected(self, questions: Iterable[Question]) -> None:
        """Note for datagrams that a new flow has made endpoints full."""
        for question in questions:
            if not question.ends:
                question.at_limit |= self._at_limit(question.serving)

    def failed_elsewhere(self, endpoint: Address, questions: Iterable[Question]) -> None:
        """Note that another worker has reported a failure: what is unread finds it left out."""
        for question in questions:
            question.ejected |= question.allowed & {SocketAddress(*endpoint)}

    # -- judging -----------------------------------------------------------------------------------

    def check(self, payload: bytes, question: Question) -> float | None:
        """Judge a datagram whose time is up; return when to judge it again, or None."""
        question.at_limit |= self._at_limit(question.serving)
        question.ejected |= self._ejected(question)
        is_lost = question.is_given_up or question.is_refused or question.hops <= 1
        is_lost = is_lost or question.is_too_much
        if question.ends or is_lost or self._has_none(question) or self._has_no_route(question):
            self._judge.right(ORACLE)
        elif self._waits(question) or self._waits_for_kernel(question, payload):
            question.has_waited = True
            hold = question.serving.handling.waits
            assert hold is not None, "it waits"
            return self._world.timeline.now + hold.seconds + LATE_S
        elif excuse := self._why_not_sent(question):
            self._judge.excuse(ORACLE, excuse)
        else:
            self._judge.violate(ORACLE, f"{payload!r} was sent to no endpoint")
        return None

    def _waits_for_kernel(self, question: Question, payload: bytes) -> bool:
        return not question.has_waited and self._ends.waits_for_kernel(payload)

    def _has_none(self, question: Question) -> bool:
        """Return whether no endpoint, or no listener, was there for a datagram."""
        world, service, client = self._world, question.service, question.client[0]
        if world.is_calm and world.plan.node.ends != "calm":
            return True
        is_closed = service.sock is None or service.closed_at >= question.at - SOON_S
        servings = question.serving, service.group.serving
        return is_closed or not all(allowed(serving, client) for serving in servings)

    def _has_no_route(self, question: Question) -> bool:
        """Return whether no endpoint could be dialled since a datagram came."""
        hosts = [self._world.hosts[each] for each in question.allowed]
        return not self._world.is_calm and all(
            set(host.mix) == {UNROUTABLE} and host.changed_at < question.at for host in hosts
        )

    def _waits(self, question: Question) -> bool:
        """Return whether a datagram waits for an endpoint that isn't ejected, or at its limit."""
        handling = question.serving.handling
        if handling.waits is None or question.has_waited:
            return False
        others = question.allowed - question.at_limit
        has_hold = handling.hold is not None
        # A client that has an endpoint waits for that one.
        is_pinned = bool(question.at_limit) and (
            question.serving.affinity_timeout_s is not None
            or handling.balance is Balance.SOURCE_HASH
        )
        may_wait = has_hold or bool(question.at_limit)
        are_ejected = may_wait and all(map(self._refusing.may_be_ejected, others))
        return is_pinned or question.was_at_limit or are_ejected or self._is_behind(question)

    def _is_behind(self, question: Question) -> bool:
        """Return whether those of the first priority are at their limit: no other is used then."""
        firsts = question.allowed - {endpoint for endpoint, _ in question.serving.standbys}
        left = firsts - question.at_limit
        return bool(firsts & question.at_limit) and all(map(self._refusing.may_be_ejected, left))

    def _why_not_sent(self, question: Question) -> str:
        service, at = question.service, question.at
        if service.changed_at >= at - SOON_S:
            return "the Service has changed meanwhile"
        others = question.allowed - question.at_limit - question.ejected
        if others <= question.unroutable | self._unroutable(question):
            return "no endpoint can be dialled"
        flow = self._of_client.get((question.client, question.to))
        if flow is not None and len(flow.refusals) > 1:
            return "its flow has more refusals than one"
        if question.has_waited:
            return "it has waited too long, or too many did"
        if self._troubles.flows_lacked(at):
            return "the kernel lacked something"
        if self._troubles.was_short(at):
            return "there may be a shortage"
        return ""

    def _ejected(self, question: Question) -> frozenset[SocketAddress]:
        return frozenset(filter(self._refusing.may_be_ejected, question.allowed))

    def _unroutable(self, question: Question) -> frozenset[SocketAddress]:
        hosts = self._world.hosts
        return frozenset(e for e in question.allowed if UNROUTABLE in hosts[e].mix)

    def _at_limit(self, serving: Serving) -> frozenset[SocketAddress]:
        most = self._world.plan.node.share_of(serving.handling.max_connections)
        if most is None:
            return frozenset()
        flows = Counter(SocketAddress(*flow.endpoint) for flow in self._flows.values())
        return frozenset(each for each, count in flows.items() if count >= most)
