"""Judges each choice of an endpoint for a flow of UDP against the reference model.

    dials ─┬─▶ chosen ─┬─▶ answered ──────────▶ leaves its endpoint
           │  (judged) └─▶ refused ─▶ dials again
           └─▶ none (judged): the flow waits, or is refused

Rule 1: what is promised is what is promised of connections, and judged by the same (``judging``).
Rule 2: a failure at a client's own address is that client's, and ejects nothing (``udp``, rule 4).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from userspace_proxy.dataplane.tuning import DIALS
from userspace_proxy.model import Failure, SocketAddress
from userspace_proxy.model.failures import SHORTAGES

from .addresses import NODE_IP, NODE_IPS, alike
from .attempts import Attempt, Dial, Port
from .datagrams import DatagramSocket
from .judging import Judging
from .model import Kind, Sure
from .sockets import SOURCE_PORTS, core_of

if TYPE_CHECKING:
    from .choices import Choices
    from .services import Service
    from .world import World

REFUSAL, ADDRESS, FREED = "flow without endpoint", "flow's address", "source ports are freed"
ORACLES = (REFUSAL, ADDRESS, FREED)

# From then on a further datagram without a refusal shows that a one-way endpoint is there.
_ONE_WAY_S = 4.0
# What each dial needs: without it a flow has no endpoint, and no other one is tried. A client's
# ports to one endpoint may be in use, and free to another one.
_ALL_LACK = {"descriptors", "memory", "watches", SOURCE_PORTS}
# This part of the flows ends where no source port is left.
_PORTS_PART = 16


class FlowChoices:
    """The oracles of one run.

    Args:
        choices: Has the models of all Service ports.
    """

    def __init__(self, world: World, choices: Choices) -> None:
        self._world = world
        self._choices = choices
        self._judge = world.judgements
        self._judging = Judging(world)
        self._attempts: dict[Any, Attempt] = {}
        """By flow of the data plane, until it ends."""
        self._is_portless = False
        """No source port was left for the flow that dials now."""
        self._lacked = ""
        """What the kernel had not for the last dial of the flow that dials now; empty: nothing."""
        self.lacked_at: dict[Service, float] = {}
        """When the kernel last lacked something for a dial of a Service port's flow."""
        self.had_turn_at: dict[Service, float] = {}
        """When a flow that had waited last got an endpoint."""
        self._waiting: set[Any] = set()
        """The flows that wait."""
        self._flows: dict[DatagramSocket, Any] = {}
        """The flows of the data plane, by what is behind their sockets."""

    # -- what the data plane does ------------------------------------------------------------------

    @contextlib.contextmanager
    def dials(self, flow: Any) -> Iterator[list[bool]]:
        """Judge what a flow is left with; the caller adds whether it has an endpoint."""
        attempt = self._attempt_of(flow)
        before, found = len(attempt.tried), list[bool]()
        ends = self._world.datagrams.ends
        evicted, count = ends.evicted, len(self._flows) + len(ends.waiting())
        self._is_portless, self._lacked = False, ""
        yield found
        if self._is_portless and not self._world.is_closed:
            self._check_freed(flow, ends.evicted - evicted, count)
        if found == [False] and not self._world.is_closed:
            dialled = len(attempt.tried) - before
            if dialled >= DIALS:
                why = f"{flow.address} was dialled for {dialled} times"
                self._judge.check(REFUSAL, dialled == DIALS, why)
            elif self._lacked in _ALL_LACK:
                # No dial could begin, to whichever endpoint.
                self._judge.right(REFUSAL)
            else:
                self._check_none(flow, attempt)

    @contextlib.contextmanager
    def dial(self, flow: Any, endpoint: SocketAddress) -> Iterator[list[Any]]:
        """Judge an endpoint before it is dialled; the caller adds the failure, or None."""
        world, port, attempt = self._world, self._port_of(flow), self._attempt_of(flow)
        at, answer, lacks = world.moment(), list[Any](), world.kernel.lacks
        if not world.is_closed:
            self._judging.judge_choice(port, attempt, endpoint, at)
            port.model.sent(attempt.ip, endpoint, at)
            if self._lacked in _ALL_LACK:
                why = f"{flow.address} was dialled for at {endpoint}, without {self._lacked}"
                self._judge.violate(REFUSAL, why)
        yield answer
        failed = answer[0] if answer else None
        if failed is None:
            core = core_of(flow.sock)
            attempt.first_dial = attempt.first_dial or at
            self._flows[core] = flow
            if flow in self._waiting:
                self._waiting.discard(flow)
                self.had_turn_at[port.service] = world.timeline.now
            world.datagrams.ends.has_endpoint(flow)
            port.model.loads.add(flow, endpoint)
            self._check_address(core, port, attempt)
            return
        attempt.tried[endpoint] = None
        self._lacked = world.kernel.last_lack if world.kernel.lacks != lacks else ""
        if self._lacked:
            self.lacked_at[port.service] = world.timeline.now
        self._is_portless |= failed.failure is Failure.OUT_OF_ALL_PORTS
        if failed.failure not in SHORTAGES:
            self._failed(port, endpoint, is_own=flow.is_preserved)

    def refused(self, flow: Any, failure: Failure) -> None:
        """Note that a flow's endpoint has refused, as the data plane knows."""
        if flow.endpoint is not None:
            attempt = self._attempt_of(flow)
            attempt.tried[flow.endpoint] = None
            is_own = core_of(flow.sock).local[0] not in NODE_IPS and failure is not Failure.NO_HOST
            self._failed(self._port_of(flow), flow.endpoint, is_own=is_own)

    def waits(self, flow: Any) -> None:
        """Note that a flow waits: it may try all endpoints again."""
        attempt = self._attempt_of(flow)
        attempt.tried.clear()
        attempt.first_dial = None
        self._waiting.add(flow)

    def leaves(self, flow: Any) -> None:
        """Note that a flow's socket is closed."""
        if flow.sock is not None:
            self._flows.pop(core_of(flow.sock), None)
            self._port_of(flow).model.loads.remove(flow)

    def ended(self, flow: Any) -> None:
        """Note that a flow has ended."""
        self._attempts.pop(flow, None)
        self._waiting.discard(flow)

    # -- what the network shows --------------------------------------------------------------------

    def answered(self, core: DatagramSocket) -> None:
        """Note that the data plane takes an answer of a flow: its first one ends an ejection.

        It does so also if datagrams without a refusal have shown before that the endpoint is there:
        the endpoint may have been ejected since.
        """
        flow = self._flows.get(core)
        if flow is None:
            return
        attempt = self._attempt_of(flow)
        if attempt.joined is None:
            attempt.joined = flow.endpoint
            self._is_there(flow)

    def goes_on(self, core: DatagramSocket) -> None:
        """Note that a flow's client sends again: one-way protocols have no answers."""
        flow = self._flows.get(core)
        if flow is None:
            return
        attempt, at = self._attempt_of(flow), self._world.moment()
        assert attempt.first_dial is not None, "it has been dialled"
        if attempt.joined is not None or attempt.is_one_way:
            return
        if at[0] - attempt.first_dial[1] > _ONE_WAY_S:
            attempt.is_one_way = True
            self._is_there(flow)
        elif at[1] - attempt.first_dial[0] > _ONE_WAY_S:
            self._port_of(flow).model.may_have_answered(flow.endpoint)

    def _is_there(self, flow: Any) -> None:
        self._port_of(flow).answered(flow.endpoint, self._world.moment())

    # -- judging -----------------------------------------------------------------------------------

    def _check_none(self, flow: Any, attempt: Attempt) -> None:
        """A flow has no endpoint only if none is left, or room at one."""
        options = self._port_of(flow).model.options(attempt.ip, self._world.moment(), attempt.tried)
        if options is None:
            self._judge.excuse(REFUSAL, "too much is unsure")
            return
        is_right = any(option.kind in (Kind.NONE, Kind.WAIT) for option in options)
        kinds = ", ".join(option.kind.value for option in options)
        self._judge.check(REFUSAL, is_right, f"{flow.address} has no endpoint, and had: {kinds}")

    def _check_freed(self, flow: Any, evicted: int, count: int) -> None:
        """Where no source port is left, a sixteenth of the flows ends: later ones have their ports.

        Args:
            count: How many flows there were, without the one that dials, unless it had waited.
        """
        why = f"no source port was left for {flow.address}, and {evicted} of {count} flows ended"
        is_in_table = flow.waited is not None or flow.tried is None or len(flow.tried) > 1
        if is_in_table or any(core.local[0] not in NODE_IPS for core in self._flows if core.local):
            # The next one to go may be itself, or at its client's address, which has other ports:
            # then no more end.
            self._judge.check(FREED, evicted <= 1 + (count + 1) // _PORTS_PART, why)
        else:
            right = min(count, 1 + count // _PORTS_PART)
            self._judge.check(FREED, evicted == right, why)

    def _check_address(self, core: DatagramSocket, port: Port, attempt: Attempt) -> None:
        """Endpoints see the client's own address where the node says so, and ports are left."""
        keeps = port.model.serving.handling.keeps_clients and self._world.plan.node.is_preserving
        wanted = attempt.ip if keeps else alike(NODE_IP, attempt.ip)
        source = "" if core.local is None else core.local[0]
        if source == wanted:
            self._judge.right(ADDRESS)
        elif source in NODE_IPS and self._world.kernel.lacked("ports"):
            self._judge.excuse(ADDRESS, "no port of its client's was free")
        else:
            why = f"{attempt.ip} is seen as {source} by {core.remote}, not as {wanted}"
            self._judge.violate(ADDRESS, why)

    def _failed(self, port: Port, endpoint: SocketAddress, *, is_own: bool) -> None:
        at, of_endpoint = self._world.moment(), Sure.NO if is_own else Sure.YES
        port.failed(Dial(endpoint, at), at, is_silent=False, is_of_endpoint=of_endpoint)

    def _port_of(self, flow: Any) -> Port:
        group = flow.group
        return next(port for port in self._choices.ports if port.service.group is group)

    def _attempt_of(self, flow: Any) -> Attempt:
        attempt = self._attempts.get(flow)
        if attempt is None:
            attempt = Attempt(-1, flow.address[0], self._world.moment())
            self._attempts[flow] = attempt
        return attempt
