"""Judges flows to endpoints that terminate and still serve the clients that they have.

left out, and leaving ─┬─ the Service's time for it ──▶ the flows end (docs/services.md)
                       ├─ it serves no more ──▶ they end at once: see ``flow_ends``
                       └─ it is back before ──▶ they go on
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

from .datagram_records import Flow

if TYPE_CHECKING:
    from .services import Service
    from .world import World

ORACLE = "flows of those that leave"
# A look each half a second, and a turn that was preempted.
_SLACK_S = 0.7
# A deadline is a timer's, which is early by a millisecond.
_EARLY_S = 0.002
# A flow that has just begun may have done so in the turn in which its endpoint was left out.
_NEAR_S = 0.06


class LeavingFlows:
    """The oracle of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._since: dict[tuple[str, SocketAddress], float] = {}
        """When endpoints that leave now were left out."""
        self._asked_at: dict[str, float] = {}
        """When Services' time for it was changed last."""

    def changing(self, service: Service, before: Serving, now: Serving) -> None:
        """Note which endpoints leave, and since when."""
        label = service.group.label
        if now.handling.removal_s != before.handling.removal_s:
            self._asked_at[label] = self._world.timeline.now
        for endpoint in before.leaving:
            if endpoint not in now.leaving:
                self._since.pop((label, endpoint), None)
        for endpoint in now.leaving:
            if endpoint in before.all_endpoints:
                self._since[label, endpoint] = self._world.timeline.now

    def may_end(self, flow: Flow) -> bool:
        """Return whether a flow ends by now, as its endpoint leaves."""
        due = self._due(flow)
        return due is not None and self._world.timeline.now >= due - _EARLY_S

    def check(self, flow: Flow) -> None:
        """Judge that an open flow is to an endpoint that serves, or leaves since a moment ago."""
        world, serving = self._world, flow.service.group.serving
        endpoint, due = SocketAddress(*flow.endpoint), self._due(flow)
        if endpoint in serving.all_endpoints:
            world.judgements.right(ORACLE)
            return
        # A shorter time may be over as it is asked for.
        asked_at = self._asked_at.get(flow.service.group.label, 0.0)
        late_s = 0.0 if due is None else world.timeline.now - max(due, asked_at) - _SLACK_S
        why = f"{flow.client} has a flow to {endpoint}, which left"
        if endpoint not in serving.leaving or late_s > world.stopped_since(flow.began):
            world.judgements.violate(ORACLE, why)
        else:
            world.judgements.right(ORACLE)

    def _due(self, flow: Flow) -> float | None:
        """Return when a flow has to end; None: it began later, or it isn't asked for."""
        key = flow.service.group.label, SocketAddress(*flow.endpoint)
        since, seconds = self._since.get(key), flow.service.group.serving.handling.removal_s
        if since is None or seconds is None or flow.began > since + _NEAR_S:
            return None
        return since + seconds
