"""Watches failing endpoints: ejected endpoints that no client dials, and silent endpoints.

    ejected ──10 s without a dial──▶ probed ──answered──▶ the workers' ejections end
       │                                └──failed──▶ the failure is current
       └──a dial met silence──▶ the kernel is asked: does any host answer for the next hop?
    flows of the last minute or open connections get no answer ──▶ which chain drops packets?

With ClientIP affinity or a source hash, clients may stay with other endpoints for hours: the
recovery of an endpoint would go unnoticed, and an old failure would be shown as current.

Rule 1: an endpoint that clients dial isn't probed: a dial proves more than a probe.
Rule 2: a probe may end an ejection, and never prolongs it. A network policy may reject this node,
the source of a probe, while it admits clients at their own addresses.
Rule 3: a probe proves nothing for an endpoint that accepts connections and resets them, nor for
UDP, where a probe would have to send a datagram. Texts about such endpoints state when they failed.
Rule 4: an endpoint resolved by DNS name isn't probed, because only workers check that the address
isn't this node's.
Rule 5: the kernel is queried only about dials that met silence, a bounded number per check. It soon
forgets that it didn't find a host, so "no host answered for the next hop" counts as true until the
next dial; if a worker has detected this, only the next hop is looked up.
Rule 6: a UDP Service port is checked only if clients got no answer in the last minute, and any port
while open connections get no answer: a rule may be newer than these, so no dial has failed. A check
makes at most ``QUESTIONS_MAX`` queries of each kind, first about the endpoints that were checked
longest ago.
Rule 7: an ejected endpoint that leaves, and returns within a minute, is probed again: its group
remembers the failure (:meth:`~.plane.Group.change`), although workers don't.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...clocks import Clocks
from ...facts import LAST_MINUTE_S
from ...kernel.neighbours import absent_hop, next_hop, own_route_failure
from ...model import DialFailure, Failure, Protocol, ServiceKey, SocketAddress
from ...model.failures import NO_ANSWER
from ...model.node_network import DroppedBy, NextHop
from ...model.serving import Serving
from ...plane import Group, Plane
from ...plane.group import keys_of_removed
from ...plane.messages import Returned
from ...plane.path_probes import Note, PathProbes
from ...shares import remove_from
from ...steering import Steering
from ..rounds.component import Component
from ..rounds.served_ports import ServedPorts
from ..rounds.tasks import Supervisor, pause

_LOOK_S = 1.0
QUIET_S = 10.0
"""Seconds without a client's dial before a probe: twice the duration of the first ejection."""
FOLLOWED_MAX = 1_000
"""The maximum number of checked endpoints (1 ms per check); others depend on clients' dials."""
QUESTIONS_MAX = 100
"""The maximum number of queries to the kernel per check, which take 5 ms."""
# The failures after which the kernel's neighbours and routes are queried. REFUSED is included
# because a rule that rejects outgoing packets sometimes answers a dial.
_ASKED = NO_ANSWER | {Failure.NO_HOST, Failure.REFUSED}
# The worker number in messages of this process, which are for all workers; no worker has it.
_NO_WORKER = -1


@dataclass(slots=True, eq=False)
class _Ejected:
    """An endpoint of one Service port, from its ejection to its next answer."""

    group: Group
    endpoint: SocketAddress
    at: float
    """Monotonic seconds of the last known failed dial of a client."""
    serving: Serving | None = None
    """The last ``Serving`` that listed the endpoint."""
    probed_for: ServiceKey | None = None
    """The Service for which the endpoint is probed; None if it isn't probed."""
    asked_at: float = 0.0
    """Monotonic seconds when the kernel was last queried about the endpoint."""
    absent_at: float = 0.0
    """Monotonic seconds of the last failed dial whose next hop is known to be absent."""
    left_at: float = 0.0
    """Monotonic seconds when the endpoint left its group; 0 while the group has it."""
    has_returned: bool = False
    """Whether it left and returned, so that no worker ejects it."""


class EjectedEndpoints(Component):
    """Probes one proxy's ejected endpoints, and finds chains that drop packets to silent endpoints.

    Args:
        plane: Reports ejections, and receives the answers of probes.
        can_probe: Whether endpoints are dialled by address.
        absent_hop: Returns the next hop to an address if no host answers for that hop, else None.
        next_hop: Returns the next hop to an address; None if it is unknown.
    """

    def __init__(
        self,
        plane: Plane,
        served_ports: ServedPorts,
        steering: Steering,
        *,
        can_probe: bool,
        clock: Callable[[], float] = Clocks.monotonic,
        make_probes: Callable[[Note], PathProbes] = PathProbes,
        absent_hop: Callable[[str], NextHop | None] = absent_hop,
        next_hop: Callable[[str], NextHop | None] = next_hop,
    ) -> None:
        self._plane = plane
        self._served_ports = served_ports
        self._steering = steering
        self._can_probe = can_probe
        self._clock = clock
        self._absent_hop = absent_hop
        self._next_hop = next_hop
        self._followed: dict[tuple[int, SocketAddress], _Ejected] = {}
        self._probed: dict[SocketAddress, dict[int, _Ejected]] = {}
        """The probed endpoints, by address and the number of their group."""
        self._probes = make_probes(self.note)
        self._silent_asked_at: dict[tuple[Group, SocketAddress], float] = {}
        """When each silent endpoint was last checked, in monotonic seconds."""
        plane.on_ejection.append(self._note_ejection)

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("ejected", self.run)

    async def run(self) -> None:
        while True:
            await pause(_LOOK_S)
            self.look()

    async def close(self) -> None:
        self._probes.close()

    def look(self) -> None:
        """Probe endpoints that clients haven't dialled for a while, and look for obstacles."""
        now = self._clock()
        removed = frozenset(keys_of_removed(self._followed))
        for key in removed:
            self._leave(key, now)
        unknown: list[_Ejected] = []
        over: list[tuple[int, SocketAddress]] = []
        for key, one in self._followed.items():
            if key in removed:
                continue
            one.has_returned |= one.left_at > 0
            one.left_at = 0.0
            dials = one.group.counters_of(one.endpoint).dials
            if one.has_returned and not dials.is_on:
                over.append(key)
            if one.probed_for is None and now - one.at >= QUIET_S:
                self._probe(one)
            if not dials.is_on or dials.part.failure not in _ASKED:
                one.group.note_obstacle(one.endpoint, None)
            elif dials.part.last_at > one.absent_at:
                unknown.append(one)
        for key in over:
            self._forget(key)
        for one in sorted(unknown, key=lambda one: one.asked_at)[:QUESTIONS_MAX]:
            one.asked_at = now
            self._look_for(one)
        self._look_at_silent(now)

    def note(self, endpoint: SocketAddress, failed: DialFailure | None) -> None:
        """Record a probe's failure, or None for an answer, which may end the ejection."""
        now = self._clock()
        if failed is not None:
            failed = own_route_failure(failed, endpoint.ip)
        for number_of_group, one in list(self._probed.get(endpoint, {}).items()):
            dials = one.group.counters_of(endpoint).dials
            if failed is not None:
                dials.still_fails(now, failed.failure, number=failed.number)
                one.group.revision += 1
            elif dials.part.failure is not Failure.RESET:
                dials.succeeded_at = now
                # Like an answer to a worker, this ends the ejection here as well.
                self._plane.receive(_NO_WORKER, Returned(number_of_group, endpoint))

    def _note_ejection(self, group: Group, endpoint: SocketAddress, is_ejected: bool) -> None:
        key = group.number, endpoint
        if not is_ejected:
            self._forget(key)
        elif (known := self._followed.get(key)) is not None:
            known.at, known.has_returned = self._clock(), False
        elif len(self._followed) < FOLLOWED_MAX:
            self._followed[key] = _Ejected(group, endpoint, self._clock())

    def _leave(self, key: tuple[int, SocketAddress], now: float) -> None:
        """Stop probing an endpoint that its group lacks; forget it after a minute."""
        one = self._followed[key]
        self._forget(key)
        # The group remembers failures for a minute after the endpoint's last connection has ended.
        if not one.left_at or one.group.find_counters(one.endpoint) is not None:
            one.left_at = now
        if now - one.left_at < LAST_MINUTE_S:
            one.probed_for = None
            self._followed[key] = one

    def _forget(self, key: tuple[int, SocketAddress]) -> None:
        one = self._followed.pop(key, None)
        if one is None:
            return
        one.group.note_obstacle(one.endpoint, None)
        if one.probed_for is not None:
            self._probes.discard(one.endpoint, one.probed_for)
            remove_from(self._probed, one.endpoint, one.group.number)

    def _probe(self, one: _Ejected) -> None:
        served = self._served_ports.of_group(one.group)
        if served is None or served.plan.protocol is not Protocol.TCP or not self._can_probe:
            return
        dials = one.group.counters_of(one.endpoint).dials
        serving = one.group.serving
        is_detoured = one.endpoint in dict(serving.detours)
        is_by_name = one.endpoint.ip in serving.handling.found_by_name
        if is_detoured or is_by_name or not dials.is_on or dials.part.failure is Failure.RESET:
            return
        one.probed_for = served.plan.key.name.service
        self._probed.setdefault(one.endpoint, {})[one.group.number] = one
        self._probes.add(one.endpoint, one.probed_for)

    def _look_for(self, one: _Ejected) -> None:
        """Record an obstacle between this node and an endpoint: an absent host, or a rule."""
        dials = one.group.counters_of(one.endpoint).dials
        hop = None
        # A refusal proves that packets leave this node, unless a rule forged it, so don't look for
        # an absent host.
        if dials.part.failure is not Failure.REFUSED:
            ask = self._next_hop if dials.part.failure is Failure.NO_HOST else self._absent_hop
            hop = ask(one.endpoint.ip)
        if hop:
            one.absent_at = dials.part.last_at
        chain = "" if hop else self._dropped_by(one.group, one.endpoint)
        one.group.note_obstacle(one.endpoint, DroppedBy(chain) if chain else hop)

    def _dropped_by(self, group: Group, endpoint: SocketAddress) -> str:
        """Return the chain that drops or translates an endpoint's packets; empty if none does."""
        served = self._served_ports.of_group(group)
        return (
            "" if served is None else self._steering.dropping_chain(endpoint, served.plan.protocol)
        )

    def _look_at_silent(self, now: float) -> None:
        """Record which chains drop packets of silent endpoints, and which endpoints answer now."""
        silent = {
            (served.group, endpoint)
            for served in self._served_ports.of_udp
            if served.group.last_minute.failing(now).unanswered
            for endpoint, counters in served.group.each_counters()
            if counters.ends.is_on and counters.ends.part.failure is Failure.NO_DATAGRAM
        }.union(self._plane.stalled())
        asked = [one for one in silent if not one[0].read_counters(one[1]).dials.is_on]
        for group, endpoint in self._silent_asked_at.keys() - {*asked}:
            del self._silent_asked_at[group, endpoint]
            group.note_obstacle(endpoint, None, "answers")
        asked.sort(key=lambda one: self._silent_asked_at.get(one, 0.0))
        for group, endpoint in asked[:QUESTIONS_MAX]:
            self._silent_asked_at[group, endpoint] = now
            chain = self._dropped_by(group, endpoint)
            group.note_obstacle(endpoint, DroppedBy(chain) if chain else None, "answers")
