"""Follows each datagram of UDP: who may have it, and that it goes on in time.

    client ──▶ the node ──▶ (read) ──▶ a flow's socket ──▶ endpoint
           ◀── (sent) ◀──── the node ◀──────────────────── endpoint

What is known comes from the network alone: payloads are unique, so each datagram is recognized
wherever it is. A flow is a socket of the data plane that is connected to an endpoint; the first
client's datagram on it says whose it is.

Rule 1: an excuse is one datagram's, or one flow's, and states why.
Rule 2: what the data plane can't know yet counts for neither side: a datagram that waits in a
socket, or that arrived while the process was stopped.

Ends of flows are judged by ``flow_ends``, what refusals mean by ``refusing_endpoints``, why a
datagram was sent to no endpoint by ``unsent_datagrams``, and what is sent to another one by
``retried_datagrams``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from . import flow_ends, retried_datagrams, unsent_datagrams
from .datagram_records import PASSING, Flow, Question, allowed
from .datagrams import DatagramSocket
from .flow_ends import FlowEnds
from .network import ANSWERS, ARP_S, LATE, Address
from .refusing_endpoints import KEPT_S, RefusingEndpoints
from .retried_datagrams import RetriedDatagrams
from .troubles import SOON_S, Troubles
from .unsent_datagrams import LATE_S, UnsentDatagrams

if TYPE_CHECKING:
    from .services import Service
    from .world import World

ORACLES = (
    "absent host",
    "answer passed on",
    "answer to its client",
    "answer's source",
    "datagram hops",
    "datagram kept",
    retried_datagrams.BOUND,
    "datagram once",
    unsent_datagrams.ORACLE,
    retried_datagrams.ORACLE,
    "stalled flows",
    "flow counters",
    "flow ended for a reason",
    "flow endpoint",
    "flow idle",
    *flow_ends.ORACLES,
    "one flow",
    "refusing endpoint",
    "refused flow ends",
)

_CHECK_EVERY_S = 0.5
# A flow is stalled no sooner than that after its last answer, when so many looks have found that
# its client asks.
_STALLED_S, _LOOKS = 11.0, 3
# The kernel is asked so often about the host of a flow that has no answer.
_ASKED_AGAIN_S = 10.0


class DatagramChecks:
    """The oracles of UDP."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.judge = world.judgements
        self._questions: dict[bytes, Question] = {}
        self._answers: dict[bytes, tuple[Address, Flow | None, float]] = {}
        """Who sent it, on which flow it arrived, and when."""
        self._flows: dict[DatagramSocket, Flow] = {}
        self.began_at: dict[Service, float] = {}
        """When a Service port's last flow began."""
        self._of_client: dict[tuple[Address | None, Address | None], Flow] = {}
        self._due: deque[tuple[float, bytes, bool]] = deque()
        """What is to go on: until when, the payload, whether it is an answer."""
        self._refused: deque[tuple[float, Flow, int]] = deque()
        """Flows whose endpoint has refused: until when they are to leave it, and how many errors
        calls that send had taken by then."""
        self._gone: set[bytes] = set()
        """Answers that were passed on."""
        self._refused_answers: set[bytes] = set()
        """Answers for which the kernel had no memory as they were to be passed on."""
        self._handling: tuple[Question, int] | None = None
        """The datagram that was read last, in this turn, and what the kernel had lacked by then."""
        self.troubles = Troubles(world)
        self.ends = FlowEnds(world, self.troubles, self._flows, self._questions)
        self.refusing = RefusingEndpoints(world)
        self._retried = RetriedDatagrams(world, self.troubles, self.refusing, self._questions)
        self._unsent = UnsentDatagrams(
            world, self.troubles, self.ends, self.refusing, self._flows, self._of_client
        )
        self._checked_at = 0.0
        self.connections: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    # -- what the world tells ----------------------------------------------------------------------

    def ask(
        self, payload: bytes, client: Address, to: Address, hops: int, service: Service
    ) -> None:
        """Note a datagram that a client is about to send."""
        self._questions[payload] = Question(
            client, to, hops, 0.0, service, is_first=True, serving=service.group.serving
        )

    def _service_of(self, endpoint: Address) -> Service | None:
        for service in self.world.services:
            if service.is_udp and SocketAddress(*endpoint) in service.planned.pool:
                return service
        return None

    def open_flows(self) -> list[Flow]:
        """Return the flows whose sockets are open."""
        return list(self._flows.values())

    # -- what the network tells --------------------------------------------------------------------

    def arrived(self, core: DatagramSocket | None, payload: bytes, *, is_taken: bool) -> None:
        """Note that a datagram has reached the node; None: no socket takes it."""
        now = self.world.timeline.now
        question = self._questions.get(payload)
        if question is not None:
            if core is not None and is_taken:
                question.at = now
                question.is_first = (question.client, question.to) not in self._of_client
                question.serving = question.service.group.serving
                flow = self._of_client.get((question.client, question.to))
                if flow is not None:
                    flow.came_at = now
                    # Or the process has the answer, and hasn't read it yet.
                    flow.may_be_stream = True
                self._unsent.came(question)
                self._due.append((now + SOON_S, payload, False))
            return
        found = self._answers.get(payload)
        if found is None:
            return
        endpoint = found[0]
        if core is None:
            # Its flow has ended, so nothing is learned from it.
            return
        flow = self._flows.get(core)
        is_first = flow is None or flow.answered_at is None
        if flow is None or flow.cause is None:
            # Of one that has just ended the process reads nothing more.
            self.refusing.heard(endpoint, is_first=is_first)
        self._answers[payload] = endpoint, flow, now
        if flow is not None and is_taken:
            flow.came_at = now
            self._due.append((now + SOON_S, payload, True))

    def took(self, payload: bytes) -> None:
        """Note that the data plane handles a client's datagram from now on."""
        self._handled()
        question = self._questions.get(payload)
        if question is not None:
            self._handling = question, self.world.kernel.lacks
            question.read_as = self.world.kernel.calls
            self._unsent.took(payload, question)
            used = self.world.dataplane.engine.descriptors
            question.is_refused = used.in_use >= used.limit and not self.ends.has_flows
            flow = self._of_client.get((question.client, question.to))
            if flow is not None and question.hops > 1:
                self.world.flow_choices.goes_on(flow.core)

    def answer_taken(self, core: DatagramSocket) -> None:
        """Note that the data plane has an endpoint's datagram."""
        self.world.flow_choices.answered(core)
        flow = self._flows.get(core)
        if flow is not None and flow.read_at is None:
            flow.read_at = self.world.timeline.now

    def not_sent(self, payload: bytes) -> None:
        """Note that the kernel had no memory for a datagram to a client."""
        self._refused_answers.add(payload)

    def _handled(self) -> None:
        """Note whether the kernel has refused what the last datagram needed."""
        if self._handling is not None:
            question, lacks = self._handling
            question.is_refused |= self.world.kernel.lacks != lacks
            self._handling = None
            self._unsent.handled(question)

    def left(self, core: DatagramSocket, payload: bytes, to: Address, source: Address) -> None:
        """Note that the data plane sends a datagram: to an endpoint, or to a client."""
        if core.remote is None:
            self._answered(payload, to, source)
        else:
            self._asked(core, payload, to)

    def connected(self, core: DatagramSocket, to: Address) -> None:
        """Note a new flow's socket."""
        service = self._service_of(to)
        if service is None:
            return
        since, now = self.world.moment()
        calls = self.world.kernel.calls
        flow = Flow(core, to, service, service.group.serving, now, calls, since, used=now)
        self.began_at[service] = now
        flow.used_since = since
        self._flows[core] = flow
        if service.group.serving.handling.max_connections is not None:
            # What was asked before may be judged much later.
            self._unsent.connected(q for q in self._unjudged() if q.service is service)

    def _unjudged(self) -> Iterator[Question]:
        """Yield the clients' datagrams that are to go on."""
        return (self._questions[payload] for _, payload, is_answer in self._due if not is_answer)

    def reached(self, payload: bytes, to: Address, behaviour: str) -> None:
        """Note what a datagram meets at its endpoint."""
        question = self._questions.get(payload)
        if question is None or behaviour not in (ANSWERS, LATE):
            return
        now = self.world.timeline.now
        # It may be on its way to one that has refused another datagram of its flow meanwhile.
        ends = *question.heard_at, (to, question.at)
        if question.heard_at and not any(self._has_refused(e, since) for e, since in ends):
            self.judge.violate("datagram once", f"{payload!r} arrived at {question.heard_at}, {to}")
        else:
            self.judge.right("datagram once")
        question.heard_at.append((to, now))

    def answer(self, payload: bytes, endpoint: Address) -> None:
        """Note a datagram that an endpoint is about to send."""
        self._answers[payload] = endpoint, None, 0.0

    def refused(self, core: DatagramSocket, number: int) -> None:
        """Note that the node is told that an endpoint refuses."""
        flow = self._flows.get(core)
        if flow is None or flow.cause is not None or self.ends.is_closing(flow):
            # Of one that has just ended the process reads nothing more.
            return
        now = self.world.timeline.now
        flow.refusals.append((now, number))
        self._refused.append((now + SOON_S, flow, core.errors_sent))
        self._retried.refused(flow)
        self.refusing.refused(flow, number)

    def closed(self, core: DatagramSocket) -> None:
        """Note that the data plane closes a socket."""
        flow = self._flows.pop(core, None)
        if flow is None:
            return
        flow.closed_at = self.world.timeline.now
        if self._of_client.get(flow.key) is flow:
            del self._of_client[flow.key]
        if flow.client is not None:
            self.ends.closed(flow)
        elif core.tries:
            # It was dialled, and the kernel had nothing to send its datagram with.
            self.connections[flow.service.group.label] += 1

    # -- judging -----------------------------------------------------------------------------------

    def _asked(self, core: DatagramSocket, payload: bytes, to: Address) -> None:
        question, flow = self._questions.get(payload), self._flows.get(core)
        if question is None or flow is None:
            self.judge.violate(
                "flow endpoint", f"{payload!r} was sent to {to}, and no client sent it"
            )
            return
        now, label = self.world.timeline.now, question.service.group.label
        self.received[label] += len(payload)
        if flow.client is None:
            self._begin(flow, question)
        flow.used, flow.used_since = now, self.world.moment()[0]
        flow.sent.append(payload)
        flow.asked += 1
        flow.is_stream = flow.is_stream or flow.answered_at is not None
        is_own = flow.key == (question.client, question.to)
        self.judge.check(
            "one flow", is_own, lambda: f"{payload!r} was sent in the flow of {flow.key}"
        )
        self.judge.check(
            "datagram hops",
            core.hops >= 1 and core.hops == question.hops - 1,
            lambda: f"{payload!r} came with {question.hops} hops, and left with {core.hops}",
        )
        self._check_endpoint(flow, payload)
        self._check_kept(question, payload)
        if question.read_as < flow.dialled_as:
            self._retried.check_kept(flow, question, payload)
        if to in question.ends:
            self._retried.check_sent_again(flow, question, payload, to)
        question.ends.append(to)
        question.flow = flow

    def _check_kept(self, question: Question, payload: bytes) -> None:
        """A datagram is sent while its flow may wait for an endpoint, and not later."""
        now, waits = self.world.timeline.now, question.service.group.serving.handling.waits
        hold_s = 0.0 if waits is None else waits.seconds
        late_s = now - question.at - hold_s - KEPT_S - SOON_S
        if late_s <= self.world.stopped_since(question.at):
            self.judge.right("datagram kept")
        elif question.service.changed_at >= question.at:
            self.judge.excuse("datagram kept", "the Service has changed")
        else:
            why = f"{payload!r} was sent {now - question.at:.3f} s after it had come"
            self.judge.violate("datagram kept", why)

    def _begin(self, flow: Flow, question: Question) -> None:
        """Note whose a flow is."""
        flow.client, flow.to = question.client, question.to
        self.refusing.check_new_flow(flow, question.client)
        self.connections[flow.service.group.label] += 1
        before = self._of_client.get(flow.key)
        if before is not None and not self.ends.is_closing(before):
            self.judge.violate(
                "one flow", f"{flow.key} has flows to {before.endpoint}, {flow.endpoint}"
            )
        else:
            self.judge.right("one flow")
        self._of_client[flow.key] = flow

    def _check_endpoint(self, flow: Flow, payload: bytes) -> None:
        """A datagram goes to an endpoint of the Service; a new flow's to one for this client."""
        assert flow.client is not None, "it has begun"
        serving, endpoint = flow.service.group.serving, SocketAddress(*flow.endpoint)
        may = allowed(flow.serving if len(flow.sent) == 1 else serving, flow.client[0])
        later = *serving.all_endpoints, *serving.leaving
        is_right = endpoint in (may if len(flow.sent) == 1 else later)
        if len(flow.sent) == 1 and flow.serving is not serving:
            is_right = is_right or endpoint in serving.all_endpoints
        self.judge.check(
            "flow endpoint",
            is_right,
            lambda: f"{payload!r} of {flow.client} was sent to {endpoint}, which it may not have",
        )

    def _has_refused(self, endpoint: Address, since: float) -> bool:
        """Return whether an endpoint that took a datagram has refused another one since."""
        return any(
            at >= since - KEPT_S for at in self.world.hosts[SocketAddress(*endpoint)].failures
        )

    def _answered(self, payload: bytes, to: Address, source: Address) -> None:
        found = self._answers.get(payload)
        question = self._questions.get(payload.partition(b" from ")[0])
        if found is None or question is None:
            self.judge.violate("answer to its client", f"{to} is sent {payload!r}")
            return
        first, came_at = question.flow, found[2]
        if first is not None and first.closed_at is not None and first.closed_at <= came_at:
            # What comes after a flow's end reaches the next one from its port.
            self.judge.excuse("answer to its client", "its flow had ended")
        else:
            self.judge.check(
                "answer to its client",
                question.client == to and payload not in self._gone,
                lambda: f"{payload!r} is sent to {to}",
            )
            self.judge.check(
                "answer's source",
                source == question.to,
                lambda: f"{payload!r} comes from {source}, and {question.to} was asked",
            )
        self._gone.add(payload)
        self.sent[question.service.group.label] += len(payload)
        _, flow, _ = found
        if flow is not None:
            flow.used, flow.used_since = self.world.timeline.now, self.world.moment()[0]
            flow.replied_at, flow.asked = flow.used, 0
            if flow.answered_at is None:
                flow.answered_at = flow.used

    # -- when time has passed ----------------------------------------------------------------------

    def look(self) -> None:
        """Judge what is to have happened by now."""
        now = self.world.timeline.now
        if self.world.is_closed:
            return
        self.troubles.look()
        self._handled()
        if now < self._checked_at:
            return
        self._checked_at = now + _CHECK_EVERY_S
        for flow in self._flows.values():
            idle_s = now - max(flow.used, flow.came_at)
            if flow.client is None or flow.core.inbox:
                continue
            self.ends.leaving.check(flow)
            self._check_absent(flow)
            late_s = LATE_S + self.world.stopped_since(flow.used)
            limit_s = self.ends.idle_s(flow, is_most=True) + late_s
            self.judge.check(
                "flow idle",
                idle_s <= limit_s,
                lambda flow=flow, idle_s=idle_s: (  # type: ignore[misc]
                    f"the flow of {flow.client} to {flow.endpoint} is idle for {idle_s:.1f} s"
                ),
            )
        self.ends.look()
        self._retried.look()
        while self._refused and self._refused[0][0] < now:
            self._check_refused(*self._refused.popleft())
        while self._due and self._due[0][0] + self.world.stopped_since(self._due[0][0] - 1.0) < now:
            _, payload, is_answer = self._due.popleft()
            if is_answer:
                self._check_answer(payload)
            elif again_at := self._unsent.check(payload, self._questions[payload]):
                self._due.append((again_at, payload, False))

    def reported(self, endpoint: Address, how: str) -> None:
        """Note what another worker has reported of an endpoint."""
        self.refusing.reported(endpoint, how)
        if how != "answered":
            self._unsent.failed_elsewhere(endpoint, self._unjudged())

    def _check_refused(self, due: float, flow: Flow, errors_sent: int) -> None:
        """A flow leaves an endpoint that refuses, unless that has answered it and it may pass."""
        if flow.closed_at is not None or not flow.has_reason_to_end:
            self.judge.right("refused flow ends")
        elif flow.read_at is not None and flow.core.errors_sent > errors_sent:
            # Its client's datagram has met it, and the next one may pass.
            self.judge.right("refused flow ends")
        elif self.world.stopped_since(due - SOON_S):
            self.judge.excuse("refused flow ends", "the process was stopped")
        elif flow.read_at is not None and any(n in PASSING for _, n in flow.refusals):
            # Of errors that are there at once the last one counts.
            self.judge.excuse("refused flow ends", "an error that may pass came with it")
        else:
            why = f"{flow.endpoint} has refused {flow.client}, and its flow goes on"
            self.judge.violate("refused flow ends", why)

    def _check_absent(self, flow: Flow) -> None:
        """A flow whose endpoint's address no host has ends: nothing else tells its client."""
        absent_s = self.ends.absent_s(flow)
        late_s = LATE_S + self.world.stopped_since(flow.began)
        if absent_s:
            has_left = self.world.network.asked_for[flow.endpoint[0]] > flow.began
            self.judge.check(
                "absent host",
                absent_s <= ARP_S + late_s + (_ASKED_AGAIN_S if has_left else 0.0),
                lambda: f"{flow.endpoint} is absent for {absent_s:.1f} s, and a flow is there",
            )

    def _check_answer(self, payload: bytes) -> None:
        _, flow, _ = self._answers[payload]
        assert flow is not None, "it is due because a flow has it"
        if payload in self._gone:
            self.judge.right("answer passed on")
        elif flow.closed_at is not None:
            self.judge.excuse("answer passed on", "its flow has ended")
        elif payload in self._refused_answers:
            self.judge.excuse("answer passed on", "the kernel had no memory for it")
        elif flow.service.sock is None:
            self.judge.excuse("answer passed on", "its listener was closed")
        else:
            self.judge.violate("answer passed on", f"{payload!r} wasn't passed on")

    def settled(self) -> None:
        """Check, after a look at all flows, that those which were answered aren't stalled."""
        since = self.world.timeline.now - _STALLED_S
        for service in self.world.services:
            if service.is_udp:
                silent = sum(
                    flow.service is service and flow.asked >= _LOOKS and flow.replied_at <= since
                    for flow in self._flows.values()
                )
                stalled, label = service.group.totals().stalled, service.group.label
                self.judge.check(
                    "stalled flows",
                    stalled <= silent,
                    f"{label} has {stalled} stalled flows, and {silent} had no answer",
                )

    def at_rest(self) -> None:
        """Check what was counted."""
        for service in self.world.services:
            if not service.is_udp:
                continue
            label, totals = service.group.label, service.group.totals()
            counted = totals.connections, totals.received_bytes, totals.sent_bytes
            right = self.connections[label], self.received[label], self.sent[label]
            self.judge.check(
                "flow counters", counted == right, f"{label} counted {counted}, not {right}"
            )
