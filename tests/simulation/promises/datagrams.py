"""A datagram is sent to one allowed endpoint, once and in time, and an answer to its client.

client ──▶ an endpoint of the Service, with a hop limit reduced by one
       ◀── from the address that the client asked, to that client alone
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..datagrams import DatagramSocket
from ..network import ANSWERS, LATE, Address
from ..serving_rules import allowed
from .promise import Promise

if TYPE_CHECKING:
    from ..flows import Question
    from ..world import World

_SOON_S = 0.3
# The data plane keeps a flow's first datagrams for this time, to send them again after a refusal.
_KEPT_S = 1.0


class Datagrams(Promise):
    """Judges the datagrams of one run."""

    name = "datagrams"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._due: deque[tuple[float, bytes]] = deque()
        """Datagrams that must be sent on: the deadline and the payload."""

    def arrived(self, core: DatagramSocket | None, payload: bytes, *, is_taken: bool) -> None:
        """Record a datagram that must be sent on."""
        if core is not None and is_taken:
            self._due.append((self.world.timeline.now + _SOON_S, payload))

    def left(self, core: DatagramSocket, payload: bytes, to: Address, source: Address) -> None:
        """Judge the destination and the hop limit of a datagram."""
        if core.remote is None:
            self._check_answer(payload, to, source)
            return
        flow, question = self.world.flows.open.get(core), self.world.flows.questions.get(payload)
        if question is None or flow is None:
            self.check(False, f"{payload!r} was sent to {to}, and no client sent it")
            return
        is_lower = core.hops == question.hops - 1 >= 1
        self.check(is_lower, f"{payload!r}: {question.hops} hops, then {core.hops}")
        serving, ip = flow.service.serving, question.client[0]
        may = {*serving.all_endpoints, *serving.leaving}
        if flow.client is None:
            may = {*allowed(serving, ip), *allowed(flow.serving, ip)}
        self.check(flow.endpoint in may, f"{payload!r} of {question.client} was sent to {to}")

    def _check_answer(self, payload: bytes, to: Address, source: Address) -> None:
        answer = self.world.flows.answers.get(payload)
        if answer is None:
            self.check(False, f"{to} is sent {payload!r}")
            return
        question = answer.question
        closed_at = question.flow.closed_at if question.flow is not None else None
        if closed_at is None or closed_at > answer.at:
            # Answers that arrive after a flow's end may reach the next flow on its port.
            is_right = (question.client, question.to) == (to, source)
            is_right = is_right and not answer.is_passed_on
            self.check(is_right, f"{payload!r} is sent to {to} from {source}")

    def reached(self, payload: bytes, to: Address, behaviour: str) -> None:
        """Check that only one endpoint receives a datagram, unless an endpoint has just failed."""
        question = self.world.flows.questions.get(payload)
        if question is not None and behaviour in (ANSWERS, LATE):
            first = question.heard_at[0] if question.heard_at else 0.0
            pool = question.service.planned.pool
            failures = [at for e in pool for at in self.world.hosts[e].failures[-1:]]
            has_failed = any(at >= first - _KEPT_S for at in failures)
            is_right = not question.heard_at or has_failed
            self.check(is_right, f"{payload!r} arrived at {question.heard_at}, and at {to}")
            question.heard_at.append(self.world.timeline.now)

    def turn_over(self) -> None:
        """Check that datagrams whose deadline has passed were sent on."""
        world = self.world
        now = world.timeline.now
        while self._due and self._due[0][0] < now:
            due, payload = self._due.popleft()
            question, answer = world.flows.questions.get(payload), world.flows.answers.get(payload)
            if world.is_closed or not world.health.is_undisturbed():
                continue
            if question is not None and self._is_served(question, due):
                why = f"{payload!r} of {question.client} wasn't passed on"
                self.check(question.flow is not None, why)
            elif answer is not None and answer.flow is not None:
                is_open = answer.flow.closed_at is None and answer.flow.service.sock is not None
                why = f"{payload!r} wasn't passed on to {answer.flow.client}"
                self.check(answer.is_passed_on or not is_open, why)

    def _is_served(self, question: Question, due: float) -> bool:
        """Return whether nothing prevents a datagram from reaching an endpoint."""
        world, service, node = self.world, question.service, self.world.plan.node
        is_steady = max(service.changed_at, service.closed_at) < due - 2 * _SOON_S
        may = allowed(question.serving, question.client[0])
        is_free = service.limit is None and len(world.flows.open) < node.max_flows
        is_fine = bool(may) and service.is_steady
        return service.sock is not None and is_steady and is_free and is_fine and question.hops > 1
