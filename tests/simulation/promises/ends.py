"""A connection is closed only for a logged reason, and that reason is true.

A working connection stays open until one of its sides closes it, it has been idle for too long, the
grace period of its removed endpoint is over, the node is short of a resource, or the data plane is
closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.connection_ends import EndReason
from userspace_proxy.model.serving import Serving

from ..serving_rules import first, is_left_out
from .promise import Promise

if TYPE_CHECKING:
    from ..clients import Client
    from ..services import Service
    from ..world import World

# A deadline may expire this early: timers fire up to a millisecond early, and an iteration of the
# loop reads the clock once, even if it is long.
_EARLY_S = 0.05
# The greatest delay of a check that runs each second.
_LATE_S = 1.3
_HEADER_S = 5.0


class Ends(Promise):
    """Judges the closed connections of one run."""

    name = "ends"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._left_at: dict[tuple[Service, SocketAddress], float] = {}
        self._asked_at: dict[Service, float] = {}
        """The time at which each Service last changed the grace period of removed endpoints."""

    def changing(self, service: Service, now: Serving) -> None:
        """Record which endpoints are removed."""
        before, at = service.serving, self.world.timeline.now
        if before.handling.removal_s != now.handling.removal_s:
            self._asked_at[service] = at
        for endpoint in (*before.all_endpoints, *before.leaving):
            if is_left_out(before, now, endpoint):
                self._left_at[service, endpoint] = at

    def ended(self, client: Client) -> None:
        """Judge the logged reason of a connection's end."""
        is_right = self._may_end(client, EndReason(client.cause))
        self.check(is_right, f"client {client.number} ended as {client.cause}")

    def _may_end(self, client: Client, cause: EndReason) -> bool:
        world, party, left, right = self.world, client.party, client.left, client.right
        now, room = world.timeline.now, client.service.group.waiting_room
        hold = client.service.serving.handling.waits
        fins = left.fin_at is not None and right is not None and right.fin_at is not None
        has_failed = left.failed_at is not None or (right and right.failed_at is not None)
        announces = world.plan.node.reads_headers and party.served_as != party.own
        is_header_missing = (
            party.how in ("bad", "none") or now - client.accepted_at >= _HEADER_S - _EARLY_S
        )
        has_left = left.fin_at is not None or left.failed_at is not None
        may = {
            EndReason.COMPLETE: fins or (not client.is_joined and has_left),
            EndReason.RESET: bool(has_failed),
            EndReason.LEFT: has_left,
            EndReason.TIMED_OUT: False,
            EndReason.IDLE: self._is_idle(client),
            EndReason.EVICTED: "shedding" in world.plan.features or world.health.was_memory_short,
            EndReason.ENDPOINT_REMOVED: self._is_removed(client),
            EndReason.SHUTDOWN: world.is_closed or world.drained_for_s >= world.drain_s - _EARLY_S,
            EndReason.WAITED_TOO_LONG: hold is not None
            and now - client.accepted_at >= hold.seconds - _EARLY_S,
            EndReason.TOO_MANY_WAITING: room is not None and len(room) + 1 >= client.service.places,
            EndReason.NO_HEADER: announces and (is_header_missing or has_left),
        }
        return may.get(cause, not client.is_joined)

    def _is_idle(self, client: Client) -> bool:
        node, idle_s = self.world.plan.node, self.world.timeline.now - client.moved_at
        least_s = min(node.half_closed_s, node.tcp_idle_s) if client.ends_seen else node.tcp_idle_s
        is_stuck = self.world.timeline.now - least_s > self.world.finishing_at + 5.0
        return client.is_joined and idle_s >= least_s - _EARLY_S and not is_stuck

    def _is_removed(self, client: Client) -> bool:
        endpoint, serving = client.endpoint, client.service.serving
        seconds = serving.handling.removal_s
        if endpoint is None or seconds is None or endpoint in first(serving, client.ip):
            return False
        left_s = self.world.timeline.now - self._left_at.get((client.service, endpoint), 0.0)
        return left_s >= seconds - _EARLY_S

    def turn_over(self) -> None:
        """Check that connections to removed endpoints are closed in time."""
        world = self.world
        for client in world.clients_seen.open if not world.is_closed else ():
            serving, endpoint = client.service.serving, client.endpoint
            left_at = self._left_at.get((client.service, endpoint)) if endpoint else None
            seconds = serving.handling.removal_s
            if left_at is None or seconds is None or endpoint in first(serving, client.ip):
                continue
            if client.chosen_at < left_at:
                since = max(left_at, self._asked_at.get(client.service, 0.0), client.joined_at)
                late_s = world.timeline.now - since - seconds
                why = f"client {client.number} is at {endpoint}, which left {late_s:.3f} s before"
                self.check(late_s <= _LATE_S + world.stopped_since(left_at), why)

    def all_ended(self) -> None:
        """Check that each connection has ended, and that its end was logged."""
        for client in self.world.clients_seen.all.values():
            self.check(not client.is_open, f"client {client.number} is still connected")
