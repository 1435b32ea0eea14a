"""A client's datagrams go to one endpoint while it keeps sending; afterwards, its flow ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..datagrams import DatagramSocket
from .promise import Promise

if TYPE_CHECKING:
    from ..flows import Flow

# conntrack's UDP timeouts: until a client sends again after an answer, and from then on.
_YOUNG_S, _STREAM_S = 30.0, 120.0
# A flow may expire this much before its timeout, because its last use is recorded once a second.
_GRAIN_S = 1.1
_LATE_S = 2.5
_SOON_S = 0.4


class Places(Promise):
    """Judges the flows of one run."""

    name = "flows"

    def closed(self, core: DatagramSocket) -> None:
        """Check that a flow that is in use and has a working endpoint isn't closed."""
        flow, world = self.world.flows.open[core], self.world
        service = flow.service
        # Flows that wait for an endpoint count, too, but have no socket yet.
        others = len({(each.client, each.to) for each in world.flows.questions.values()})
        is_idle = (
            world.timeline.now - flow.used_at >= self._idle_s(is_stream=flow.is_stream) - _GRAIN_S
        )
        is_kept = max(service.closed_at, service.changed_at) < flow.began
        is_kept = is_kept and others < world.plan.node.max_flows and not world.is_closed
        is_kept = is_kept and not (world.is_calm and world.plan.node.ends != "calm")
        is_kept = is_kept and service.limit is None and flow.client is not None
        if is_kept and service.is_fine(flow.endpoint) and world.health.is_undisturbed():
            self.check(is_idle, f"the flow of {flow.client} to {flow.endpoint} ended")

    def left(self, core: DatagramSocket, payload: bytes, to: object, source: object) -> None:
        """Check that a flow's socket sends only one client's data, for the address it dialled."""
        flow, question = self.world.flows.open.get(core), self.world.flows.questions.get(payload)
        if flow is not None and flow.client is not None and question is not None:
            is_own = (flow.client, flow.to) == (question.client, question.to)
            self.check(is_own, f"{payload!r} was sent in the flow of {flow.client}")

    def turn_over(self) -> None:
        """Check the flows twice a second."""
        if not self.is_due():
            return
        world, now = self.world, self._looked_at
        seen: dict[object, Flow] = {}
        for flow in world.flows.open.values():
            if flow.client is None or flow.core.inbox:
                continue
            key = flow.client, flow.to
            why = f"{flow.client} has flows to {flow.endpoint} and another endpoint"
            self.check(key not in seen, why)
            seen[key] = flow
            self._look_at(flow, now)

    def _look_at(self, flow: Flow, now: float) -> None:
        stopped_s = self.world.stopped_since(flow.used_at)
        name = f"the flow of {flow.client} to {flow.endpoint}"
        idle_s = now - max(flow.used_at, flow.came_at)
        is_old = idle_s > self._idle_s(is_stream=flow.may_be_stream) + _LATE_S + stopped_s
        self.check(not is_old, f"{name} is idle for {idle_s:.1f} s")
        serving, changed_at = flow.service.serving, flow.service.changed_at
        has_left = flow.endpoint not in (*serving.all_endpoints, *serving.leaving)
        is_late = now - max(changed_at, flow.began) > _SOON_S + self.world.stopped_since(changed_at)
        self.check(not (has_left and is_late), f"{name} goes on, which has left")
        if flow.refused_at is not None and flow.answered_at is None:
            late_s = now - flow.refused_at - _SOON_S - self.world.stopped_since(flow.refused_at)
            self.check(
                late_s <= 0 or flow.came_at > flow.refused_at, f"{name} goes on, which refuses"
            )

    def _idle_s(self, *, is_stream: bool) -> float:
        idle_s = self.world.plan.node.udp_idle_s
        return idle_s if idle_s is not None else _STREAM_S if is_stream else _YOUNG_S
