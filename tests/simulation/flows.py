"""Records each datagram and each UDP flow, as the network sees them.

    client ──▶ the node ──▶ a flow's socket ──▶ endpoint
           ◀──────────────────────────────────

Payloads are unique, so each datagram can be recognized at each hop. A flow is a socket of the node
that is connected to an endpoint; the first datagram sent on it identifies the client.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

from .datagrams import DatagramSocket
from .network import Address

if TYPE_CHECKING:
    from .services import Service
    from .world import World


@dataclass(eq=False)
class Flow:
    """A socket of the node that is connected to an endpoint."""

    core: DatagramSocket
    endpoint: SocketAddress
    service: Service
    serving: Serving
    began: float
    client: Address | None = None
    to: Address | None = None
    used_at: float = 0.0
    """The time at which a datagram last passed in either direction."""
    came_at: float = 0.0
    """The time at which a datagram last reached the node."""
    answered_at: float | None = None
    """The time at which the first answer was sent to the client."""
    is_stream: bool = False
    """Whether its client has sent after the first answer."""
    may_be_stream: bool = False
    """Whether its client has sent again."""
    refused_at: float | None = None
    """The time at which the node first received an ICMP error of its endpoint."""
    closed_at: float | None = None


@dataclass(eq=False)
class Question:
    """A client's datagram."""

    client: Address
    to: Address
    hops: int
    service: Service
    serving: Serving
    at: float = 0.0
    """The time at which the node received it."""
    flow: Flow | None = None
    """The flow in which it was last sent."""
    heard_at: list[float] = field(default_factory=list)
    """The times at which endpoints received it."""


@dataclass(eq=False)
class Answer:
    """An endpoint's datagram."""

    question: Question
    flow: Flow | None = None
    """The flow on which the datagram arrived."""
    at: float = 0.0
    """The time at which the datagram arrived."""
    is_passed_on: bool = False


class Flows:
    """The flows of one run; a ``network.Watcher``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.questions: dict[bytes, Question] = {}
        self.answers: dict[bytes, Answer] = {}
        self.open: dict[DatagramSocket, Flow] = {}
        self._counts: Counter[tuple[Service, str]] = Counter()

    def ask(
        self, payload: bytes, client: Address, to: Address, hops: int, service: Service
    ) -> None:
        """Record a datagram that a client is about to send."""
        self.questions[payload] = Question(client, to, hops, service, service.serving)

    def answer(self, payload: bytes) -> None:
        """Record a datagram that an endpoint is about to send."""
        question = self.questions.get(payload.partition(b" from ")[0])
        if question is not None:
            self.answers[payload] = Answer(question)

    def to(self, endpoint: Address) -> list[Flow]:
        """Return the open flows to an endpoint."""
        return [each for each in self.open.values() if each.endpoint == endpoint]

    def sums(self, service: Service) -> tuple[int, int, int]:
        """Return the recorded numbers of flows, bytes from clients, and bytes to clients."""
        counts = self._counts
        return counts[service, "flows"], counts[service, "up"], counts[service, "down"]

    def arrived(self, core: DatagramSocket | None, payload: bytes, *, is_taken: bool) -> None:
        now = self._world.timeline.now
        question, answer = self.questions.get(payload), self.answers.get(payload)
        if question is not None and core is not None and is_taken:
            question.at, question.serving = now, question.service.serving
            for flow in self.open.values():
                if (flow.client, flow.to) == (question.client, question.to):
                    flow.came_at, flow.may_be_stream = now, True
        elif answer is not None and core is not None:
            answer.flow, answer.at = self.open.get(core), now
            if answer.flow is not None and is_taken:
                answer.flow.came_at = now
        for promise in self._world.promises:
            promise.arrived(core, payload, is_taken=is_taken)

    def connected(self, core: DatagramSocket, to: Address) -> None:
        now, endpoint = self._world.timeline.now, SocketAddress(*to)
        for service in self._world.services:
            if service.is_udp and endpoint in service.planned.pool:
                self.open[core] = Flow(core, endpoint, service, service.serving, now, used_at=now)
        for promise in self._world.promises:
            promise.connected(core, to)

    def left(self, core: DatagramSocket, payload: bytes, to: Address, source: Address) -> None:
        for promise in self._world.promises:
            promise.left(core, payload, to, source)
        now, flow = self._world.timeline.now, self.open.get(core)
        question, answer = self.questions.get(payload), self.answers.get(payload)
        if question is not None and flow is not None:
            if flow.client is None:
                flow.client, flow.to = question.client, question.to
                self._counts[flow.service, "flows"] += 1
            question.flow, flow.used_at = flow, now
            flow.is_stream = flow.is_stream or flow.answered_at is not None
            self._counts[question.service, "up"] += len(payload)
        elif answer is not None and core.remote is None:
            answer.is_passed_on = True
            self._counts[answer.question.service, "down"] += len(payload)
            if answer.flow is not None:
                answer.flow.used_at = now
                answer.flow.answered_at = answer.flow.answered_at or now

    def reached(self, payload: bytes, to: Address, behaviour: str) -> None:
        for promise in self._world.promises:
            promise.reached(payload, to, behaviour)

    def refused(self, core: DatagramSocket, number: int) -> None:
        flow = self.open.get(core)
        if flow is not None and flow.refused_at is None:
            flow.refused_at = self._world.timeline.now

    def closed(self, core: DatagramSocket) -> None:
        flow = self.open.get(core)
        if flow is not None:
            flow.closed_at = self._world.timeline.now
            if flow.client is None and core.tries:
                # The flow has a socket, but the kernel couldn't send its datagram.
                self._counts[flow.service, "flows"] += 1
            for promise in self._world.promises:
                promise.closed(core)
            del self.open[core]
