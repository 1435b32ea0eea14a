"""Judges why flows of UDP end: what is stated must hold, by the network and by those that wait.

new datagram ─▶ flow ─┬─ idle, its endpoint or its listener has left, refused ─▶ its end
     no endpoint │    └─ another flow needs its place in the table ────────────▶ its end
                 └─▶ waits ─ too long, or too many do, or evicted ─────────────▶ its end, and
                                                             what it keeps is lost with it
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.connection_ends import EndReason
from userspace_proxy.model.serving import Serving

from .addresses import NODE_IPS, losers
from .datagram_records import Flow, Question, may_leave, prefers
from .datagrams import DatagramSocket
from .leaving_flows import ORACLE as LEFT
from .leaving_flows import LeavingFlows
from .network import ARP_S, Address
from .troubles import Troubles

if TYPE_CHECKING:
    from .services import Service
    from .world import World

LOST, PLACES, READ = (
    "lost place of a flow",
    "places of flows",
    "waiting flows are reported",
)
ORACLES = (LOST, PLACES, LEFT, READ)

# As conntrack: until a client has sent after an answer, and from then on.
_YOUNG_S, _STREAM_S = 30.0, 120.0
# So many datagrams of a flow that waits, and bytes, are kept.
_HELD, _HELD_BYTES = 8, 16 * 1024
# A use is noted once a second, and flows are looked at once a second.
_GRAIN_S = 1.0
# The kernel is asked then whether a host has the endpoint of a flow that has no answer.
_ASKED_S = ARP_S - 0.05
# A deadline is a timer's, which is early by a millisecond.
_EARLY_S = 0.002
# The turn in which a flow began to wait may have been preempted.
_NEAR_S = 0.06


class FlowEnds:
    """The oracle of ends of flows.

    Args:
        flows: Those that have an endpoint, by their sockets.
        questions: The datagrams of clients, by what is in them.
    """

    def __init__(
        self,
        world: World,
        troubles: Troubles,
        flows: dict[DatagramSocket, Flow],
        questions: dict[bytes, Question],
    ) -> None:
        self._world = world
        self._judge = world.judgements
        self._troubles = troubles
        self._flows = flows
        self._questions = questions
        self._waiting: dict[Any, float] = {}
        """Flows of the data plane that wait for an endpoint, or have, and since when they do."""
        self._returned: set[Any] = set()
        """Those that have waited again, after they had an endpoint."""
        self._place: dict[Any, None] = {}
        """Those that have a place now, in order."""
        self.ending: Flow | None = None
        """The one with an endpoint that ends now, or has ended last."""
        self.evicted = 0
        """How many flows have ended for others."""
        self._newcomer: Any = None
        """The flow that is about to wait."""
        self._turn_at: dict[Any, float] = {}
        """When each of them last began to wait, or had its turn without getting an endpoint."""
        self._short_at: dict[Any, float] = {}
        """When that last happened at a Service port because the kernel had refused something."""
        self.leaving = LeavingFlows(world)
        self._left_at: dict[tuple[str, Address], float] = {}
        """When flows to an endpoint of a Service last had to end."""

    # -- what happens ------------------------------------------------------------------------------

    def changing(self, service: Service, before: Serving, now: Serving) -> None:
        """Note that a Service is about to be served in another way."""
        self.leaving.changing(service, before, now)
        for endpoint in (*before.all_endpoints, *before.leaving):
            if may_leave(before, now, endpoint):
                key = service.group.label, (endpoint.ip, endpoint.port)
                self._left_at[key] = self._world.timeline.now

    def will_wait(self, flow: Any, *, is_new: bool) -> None:
        """Note that a flow is about to wait: a new one has others lose their places."""
        self._newcomer = flow if is_new else None

    def waits(self, flow: Any) -> None:
        """Judge that a flow waits for an endpoint."""
        if self._newcomer is not None:
            count, most = len(flow.group.waiting_room), self._service_of(flow).places
            self._judge.check(PLACES, count <= most, f"{count} flows wait, not {most}")
        self._newcomer = None
        if flow in self._waiting and flow not in self._place:
            self._returned.add(flow)
        self._place[flow] = None
        began = self._world.moment()[0]
        self._waiting.setdefault(flow, began)
        self._turn_at[flow] = self._world.timeline.now
        if self._world.kernel.lacked_at >= began:
            self._short_at[flow.group] = self._turn_at[flow]

    def waits_for_kernel(self, payload: bytes) -> bool:
        """Return whether a datagram's flow waits since the kernel refused what it needed.

        Or what one before it needed: those behind have their turns later.
        """
        return any(
            self._short_at.get(each.group, -1.0) >= self._turn_at[each]
            and any(kept.payload == payload for kept in each.kept or ())
            for each in self.waiting()
        )

    def waiting_of(self, question: Question) -> list[Any]:
        """Return the flow of a datagram's client and the address that it dialled, if it waits."""
        group, dialled = question.service.group, ip_address(question.to[0]).packed
        return [
            each
            for each in self.waiting()
            if each.address[:2] == question.client and each.group is group
            # The data plane doesn't know the address at a socket that has only one.
            if each.key[1] in (b"", dialled)
        ]

    @staticmethod
    def keeps(flow: Any) -> list[bytes]:
        """Return the datagrams that a flow has kept."""
        return [one.payload for one in flow.kept or ()]

    def keeps_no_more(self, flow: Any, payload: bytes) -> bool:
        """Return whether a flow that waits keeps so much that a datagram is lost."""
        kept = self.keeps(flow)
        return len(kept) >= _HELD or sum(map(len, kept)) + len(payload) > _HELD_BYTES

    def _service_of(self, flow: Any) -> Service:
        return next(each for each in self._world.services if each.group is flow.group)

    @property
    def has_flows(self) -> bool:
        """Whether any flow is there, with or without an endpoint."""
        return bool(self._flows) or any(each.is_waiting for each in self._waiting)

    def look(self) -> None:
        """Judge what others read of flows that wait: how many, and for how long the first has."""
        now = self._world.timeline.now
        for service in self._world.services:
            if service.is_udp:
                waits = [self._waiting[e] for e in self._place if e.group is service.group]
                # The first is one that has waited before, but not always the longest.
                most_s, least_s = now - min(waits, default=now), now - max(waits, default=now)
                found = service.group.waiting(now)
                near_s = _NEAR_S + self._world.stopped_since(now - most_s)
                is_near = least_s - near_s < found.longest_s < most_s + near_s
                is_right = found.clients == len(waits) and is_near
                why = f"{found} is reported, and {len(waits)} wait for up to {most_s:.3f} s"
                self._judge.check(READ, is_right, why)

    def has_endpoint(self, flow: Any) -> None:
        """Note that a flow has an endpoint, so it doesn't wait any more."""
        self._place.pop(flow, None)

    def waiting(self) -> list[Any]:
        """Return the flows of the data plane that wait for an endpoint."""
        return [each for each in self._waiting if each.is_waiting]

    def _is_full(self) -> bool:
        """Return whether a new flow needs the place of another one."""
        return self.count() >= self._world.plan.node.max_flows

    def count(self) -> int:
        """Return how many flows there are, with or without an endpoint."""
        open_ = sum(not self.is_closing(flow) for flow in self._flows.values())
        return open_ + len(self.waiting())

    def ends(self, core: DatagramSocket | None, flow: Any, cause: EndReason) -> None:
        """Judge why the data plane is about to end a flow.

        Args:
            core: Its socket; None if it waits for an endpoint.
        """
        self._place.pop(flow, None)
        self.ending = None
        if self._world.is_closed:
            return
        known = self.ending = None if core is None else self._flows.get(core)
        if known is not None:
            known.cause = cause
        if cause is EndReason.EVICTED:
            self.evicted += 1
            is_right = self._is_full() or self._troubles.is_short()
            self._judge.check("flow ended for a reason", is_right, "evicted, and there is room")
        elif core is None and cause in (EndReason.WAITED_TOO_LONG, EndReason.TOO_MANY_WAITING):
            self._check_wait(flow, cause)
        elif core is None and cause is EndReason.IDLE:
            why = f"{flow.address} waits, which has a deadline of its own, and was idle"
            self._judge.violate("flow ended for a reason", why)
        else:
            return
        for kept in flow.kept or () if core is None else ():
            if kept.payload in self._questions:
                self._questions[kept.payload].is_given_up = True

    def _check_wait(self, flow: Any, cause: EndReason) -> None:
        """A flow waits for as long as it may, and as many do."""
        hold, now = flow.group.serving.handling.waits, self._world.timeline.now
        if cause is EndReason.WAITED_TOO_LONG:
            waited_s = now - self._waiting[flow]
            is_right = hold is not None and waited_s >= hold.seconds - _EARLY_S
            why = f"{flow.address} waited {waited_s:.3f} s only"
        else:
            # One that has waited before waits again already.
            waiting = [e for e in self.waiting() if e is not self._newcomer]
            others = [e for e in waiting if e.group is flow.group]
            count = len(others)
            is_right = hold is not None and count >= self._world.plan.node.places_of(hold)
            why = f"{flow.address} lost its place, and {count} waited"
            clients = Counter(each.client_ip for each in (*others, self._newcomer))
            own = [e for e in others if e.client_ip == flow.client_ip]
            is_loser = flow.client_ip in losers(clients, count)
            # One that returns is the first, though another one may have waited for longer.
            is_oldest = flow in self._returned or all(
                self._waiting[flow] <= self._waiting[e] + _EARLY_S for e in own
            )
            lost = f"{flow.address} lost its place, and {clients} had them"
            self._judge.check(LOST, is_loser and is_oldest, lost)
        self._judge.check("flow ended for a reason", is_right, why)

    def closed(self, flow: Flow) -> None:
        """A flow ends only for the reason that is stated."""
        if flow.cause is EndReason.EVICTED:
            # It was judged as the table was full.
            return
        if self._may_end(flow):
            self._judge.right("flow ended for a reason")
        else:
            self._judge.violate(
                "flow ended for a reason",
                f"the flow of {flow.client} to {flow.endpoint} ended as {flow.cause}, "
                f"{self._world.timeline.now - flow.used:.3f} s after it was used",
            )

    def _may_end(self, flow: Flow) -> bool:
        """Return whether a flow may end, or leave its endpoint, for the reason that is stated."""
        world, service, now = self._world, flow.service, self._world.timeline.now
        if world.is_closed or (world.is_calm and world.plan.node.ends != "calm"):
            return True
        if flow.cause is EndReason.IDLE:
            return now - flow.used_since >= self.idle_s(flow) - _GRAIN_S - 0.01
        if flow.cause is EndReason.ENDPOINT_REMOVED:
            left_at = self._left_at.get((service.group.label, flow.endpoint), 0.0)
            endpoint, serving = SocketAddress(*flow.endpoint), service.group.serving
            if flow.client is not None and prefers(serving, flow.client[0], endpoint):
                return False
            if left_at >= flow.began_since or endpoint not in serving.leaving:
                return left_at >= flow.began_since or endpoint not in serving.all_endpoints
            return self.leaving.may_end(flow)
        if flow.cause is EndReason.LISTENER_CLOSED:
            return service.sock is None or service.closed_at >= flow.began
        if flow.cause not in (None, EndReason.REFUSED):
            return False
        return flow.has_reason_to_end or self.absent_s(flow) >= _ASKED_S

    def changed(self, service: Service, before: Serving, now: Serving) -> None:
        """Judge that the flows to endpoints that have left end with the change."""
        for flow in self._flows.values():
            if flow.service is service and flow.client is not None:
                endpoint = SocketAddress(*flow.endpoint)
                may_stay = prefers(now, flow.client[0], endpoint)
                has_left = may_leave(before, now, endpoint) and not may_stay
                has_ended = flow.cause is not None or self.is_closing(flow)
                why = f"the flow of {flow.client} to {flow.endpoint} goes on, which has left"
                self._judge.check(LEFT, has_ended or not has_left, why)

    def absent_s(self, flow: Flow) -> float:
        """Return for how long no host has had the endpoint of a flow, which isn't told of it.

        The kernel tells a flow at this node's address. Others are asked about some seconds after
        they began, and then now and then.
        """
        since = self._world.network.asked_for.get(flow.endpoint[0])
        is_told = flow.core.local is None or flow.core.local[0] in NODE_IPS
        if is_told or flow.answered_at is not None or since is None:
            return 0.0
        return self._world.timeline.now - max(since, flow.began)

    def idle_s(self, flow: Flow, *, is_most: bool = False) -> float:
        idle_s = self._world.plan.node.udp_idle_s
        if idle_s is not None:
            return idle_s
        is_stream = flow.may_be_stream if is_most else flow.is_stream
        return _STREAM_S if is_stream else _YOUNG_S

    def is_closing(self, flow: Flow) -> bool:
        """Return whether the reactor closes its socket soon."""
        late = self._world.network.closing()
        return any(getattr(sock, "core", None) is flow.core for sock in late)  # type: ignore[attr-defined]
