"""A client is answered in time and in its turn, or refused; none waits while an endpoint is free.

accepted ──3 s──▶ an endpoint has answered, or the client is refused
           └ if the Service holds clients, that long, and 3 s more
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from ..serving_rules import first
from .promise import Promise

if TYPE_CHECKING:
    from ..clients import Client
    from ..services import Service
    from ..streams import Stream
    from ..world import World

_LOOK_S = 0.1
# A client without a hold may wait this long for an answer or a RST: three dials of a second each.
_CLIENT_S = 3.0
_SLACK_S = 0.4
_MOST_TRIED = 16
# The first waiting client may lack a dial for this time although an endpoint has room: while
# endpoints fail, dials begin for only some of the waiting clients each second.
_TURN_S = 1.0
# Clients that connect at the same time may be accepted in any order.
_NEAR_S = 0.05


class Waits(Promise):
    """Judges the waiting clients of one run."""

    name = "waits"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._hold_s: dict[Client, float] = {}
        """The longest time for which a client's Service has held clients since it was accepted."""
        self._could_since: dict[Service, float] = {}
        """The time since which a Service's clients wait although an endpoint has room."""
        self._queued: dict[Stream, float] = {}
        """The time at which each client was first found in an accept queue."""

    def ended(self, client: Client) -> None:
        """Check that no client is refused while an untried endpoint would answer it."""
        waited_s = self.world.timeline.now - client.accepted_at
        is_new = client.service.changed_at > client.accepted_at - _NEAR_S
        if client.cause == "unanswered" and waited_s < _CLIENT_S - _NEAR_S and not is_new:
            tried = {dial.endpoint for dial in client.dials}
            left = [each for each in self._with_room(client) if each not in tried]
            is_right = (
                not left
                or len(tried) >= _MOST_TRIED
                or not self.world.health.is_undisturbed()
                or self.world.is_closed
            )
            self.check(is_right, f"client {client.number} was refused, and {left} were left")

    def chosen(self, client: Client, endpoint: SocketAddress) -> None:
        """Check that the client of a Service that has waited longest is served first."""
        service = client.service
        self._could_since.pop(service, None)
        if client.dials or not (service.is_steady and service.serving.is_uniform):
            return
        if service.limit is not None and self.world.health.is_undisturbed():
            before = [
                other.number
                for other in self.world.clients_seen.open
                if other.service is service
                and not (other.dials or other.is_joined or other.is_announced)
                and service.changed_at < other.accepted_at < client.accepted_at - _NEAR_S
            ]
            why = f"client {client.number} was sent to {endpoint} before {before}"
            self.check(not before or client.is_announced, why)

    def turn_over(self) -> None:
        """Check that no client has waited for too long."""
        if not self.is_due(_LOOK_S):
            return
        world, now = self.world, self._looked_at
        self._look_at_queues(now)
        waiting: dict[Service, Client] = {}
        for client in world.clients_seen.open:
            if client.is_joined:
                continue
            self._look_at(client, now)
            is_new = now - client.accepted_at < _SLACK_S
            is_busy = client.is_dialled or is_new or client.is_announced
            if not is_busy and world.health.is_undisturbed() and self._with_room(client):
                waiting.setdefault(client.service, client)
        since = {service: self._could_since.get(service, now) for service in waiting}
        for service, client in waiting.items():
            late_s = now - max(since[service], service.changed_at) - _TURN_S - _SLACK_S
            why = f"client {client.number} isn't dialled for, and an endpoint has room for it"
            self.check(late_s <= 0, why)
        self._could_since = since

    def _look_at(self, client: Client, now: float) -> None:
        hold = client.service.serving.handling.waits
        hold_s = 0.0 if hold is None else hold.seconds + _CLIENT_S
        hold_s = self._hold_s[client] = max(hold_s, self._hold_s.get(client, 0.0))
        since = max(client.accepted_at, self.world.kernel.lacked_at)
        limit_s = _CLIENT_S + hold_s + (5.0 if client.is_announced else 0.0) + 2 * _SLACK_S
        late_s = now - since - limit_s - self.world.stopped_since(client.accepted_at)
        why = f"client {client.number} has no answer since {now - since:.3f} s"
        self.check(late_s <= 0, why)

    def _look_at_queues(self, now: float) -> None:
        """Check that clients are accepted soon after they have connected."""
        is_free = self.world.health.is_undisturbed(1.0)
        socks = (s.sock for s in self.world.services if s.sock and not s.is_udp and is_free)
        queued = (stream for sock in socks for stream in sock.core.queue)
        self._queued = {stream: self._queued.get(stream, now) for stream in queued}
        late_s = now - min(self._queued.values(), default=now)
        self.check(late_s <= _SLACK_S, f"a client isn't accepted since {late_s:.3f} s")

    def _with_room(self, client: Client) -> list[SocketAddress]:
        """Return endpoints of the best priority that answer and have room."""
        service, serving = client.service, client.service.serving
        fine = [e for e in first(serving, client.ip) if service.is_fine(e)]
        if service.limit is None or not fine:
            return fine
        if serving.affinity_timeout_s is not None:
            return []
        clients = self.world.clients_seen.open
        taken = Counter(other.at for other in clients if other.service is service)
        return [endpoint for endpoint in fine if taken[endpoint] < service.limit]
