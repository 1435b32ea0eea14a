"""Judges that a flow that waits for room at an endpoint has it as soon as another flow ends.

    all endpoints are at their limit ──▶ a flow waits, with its first datagrams ──one ends──▶ sent

Only where all clients use the same endpoints: otherwise each waits for endpoints of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from .model import Span
from .network import UNROUTABLE
from .troubles import SOON_S

if TYPE_CHECKING:
    from .services import Service
    from .world import World

ORACLE = "turn of flows that wait"

_LOOK_S = 0.05
# Those for which the kernel lacked something are tried again each second.
_RETRY_S = 1.0
# What has failed, and isn't ejected, is tried for four of those that wait each second: as many as
# have room there at most have had their turns by then.
_TRIED_S = 4.0


class FlowWaits:
    """The oracle of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looked_at = 0.0
        self._could_since: dict[Service, Span] = {}
        """Since when an endpoint could take one of those that wait, as looks show."""
        self._could_not_at: dict[Service, float] = {}
        """When a look last found that none could."""

    def after_turn(self) -> None:
        """Judge for how long an endpoint could have taken a flow."""
        now = self._world.timeline.now
        if now < self._looked_at + _LOOK_S or self._world.is_closed:
            return
        self._looked_at = now
        for service in self._world.services:
            if service.is_udp:
                self._look_at(service, now)

    def _look_at(self, service: Service, now: float) -> None:
        room, judge = service.group.waiting_room, self._world.judgements
        waiting = room._clients.at_limit if room is not None else ()
        if not (waiting and self._has_place(service)):
            self._could_since.pop(service, None)
            self._could_not_at[service] = now
            return
        first = self._could_not_at.get(service, 0.0), now
        earliest, since = self._could_since.setdefault(service, first)
        choices = self._world.flow_choices
        if self._world.datagrams.began_at.get(service, 0.0) > since:
            # One has begun since, and between two turns of the loop nothing is seen. If it hadn't
            # waited, it has overtaken those that do: the one that is next keeps its time.
            earliest = max(earliest, choices.had_turn_at.get(service, 0.0))
            since = now
            self._could_since[service] = earliest, since
        # One for which the kernel lacked something as there was room is tried again later.
        lacked_at = choices.lacked_at.get(service, -_RETRY_S)
        due = max(since, lacked_at + _RETRY_S if lacked_at >= earliest else 0.0) + _LOOK_S
        late_s = now - due - self._world.stops_add(since, due)
        what = f"{len(waiting)} flows wait, and for {now - since:.3f} s an endpoint has room"
        judge.check(ORACLE, late_s <= SOON_S, what)

    def _has_place(self, service: Service) -> bool:
        """Return whether an endpoint that answers is below its limit."""
        serving, datagrams = service.group.serving, self._world.datagrams
        limit = service.limit
        if limit is None or not serving.is_uniform or serving.standbys:
            return False
        flows = Counter(SocketAddress(*flow.endpoint) for flow in datagrams.open_flows())
        return any(
            flows.get(each, 0) < limit
            and not datagrams.refusing.may_be_ejected(each)
            and UNROUTABLE not in self._world.hosts[each].mix
            and not self._has_failed(each)
            for each in serving.endpoints
        )

    def _has_failed(self, endpoint: SocketAddress) -> bool:
        """Return whether an endpoint has failed a moment ago."""
        failed_at = max(self._world.hosts[endpoint].failures, default=-1.0)
        return failed_at >= self._world.timeline.now - _TRIED_S
