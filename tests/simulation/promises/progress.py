"""One side's bytes, FIN and RST are passed on immediately, as far as the other side has room.

bytes, a FIN ──within half a second──▶ the other side
a RST ──after the bytes before it, or once the other side accepts no more──▶
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from userspace_proxy.dataplane.ageing import LOOK_S
from userspace_proxy.dataplane.tcp_connections import LIMIT_S
from userspace_proxy.dataplane.tuning import Tuning

from ..streams import OPEN, Stream
from .promise import Promise

if TYPE_CHECKING:
    from ..clients import Client
    from ..world import World

_RESET_WAIT_S = Tuning().reset_wait_s
_SLACK_S = 0.25
# ACKs of a new connection may be delayed for this time; the data plane does so for at most 20 ms.
_ACKS_HELD_S = 0.1


class _Way(NamedTuple):
    """The state of one direction at one check."""

    at: float
    stuck: tuple[int, int] | None
    """Written and arrived bytes, while more could arrive; None if nothing can."""
    owes_fin: bool


class Progress(Promise):
    """Judges the progress of one run."""

    name = "progress"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._ways: dict[tuple[int, bool], _Way] = {}

    def turn_over(self) -> None:
        """Check each connection twice a second."""
        looked_at = self._looked_at
        if not self.is_due():
            return
        world, now = self.world, self._looked_at
        before, self._ways = self._ways, {}
        is_stopped = bool(world.stopped_since(looked_at - 1.0))
        for client in world.clients_seen.open:
            if client.right is None:
                continue
            self._look_at_idle(client, now)
            if is_stopped or world.loop.held_until > now:
                continue
            header = len(client.party.expected_header())
            up_bytes = max(0, client.right.accepted_bytes - header)
            held = client.left.received_bytes - client.party.announced - up_bytes
            self._look_at(client, before, client.left, client.right, held)
            held = client.right.received_bytes - client.left.accepted_bytes
            self._look_at(client, before, client.right, client.left, held)
            if now - client.joined_at > _ACKS_HELD_S + _SLACK_S:
                why = f"client {client.number}: ACKs to its endpoint are still held back"
                self.check(not client.right.holds_acks, why)

    def _look_at(
        self,
        client: Client,
        before: dict[tuple[int, bool], _Way],
        source: Stream,
        sink: Stream,
        held: int,
    ) -> None:
        now, key = self._looked_at, (client.number, source is client.left)
        is_sound = sink.state == OPEN and not sink.shut_out
        has_room = 3 * len(sink.outbox) <= 2 * sink.outbox_bytes
        arrived = 0 if sink.peer is None else sink.peer.received_bytes
        stuck = (sink.accepted_bytes, arrived) if held > 0 and has_room and is_sound else None
        owes_fin = source.has_fin and not held and is_sound and source.failed_at is None
        self._ways[key] = _Way(now, stuck, owes_fin)
        last, name = before.get(key), f"from {source.name} to {sink.name}"
        if last is not None:
            is_stuck = stuck is not None and stuck == last.stuck
            self.check(not is_stuck, f"{held} B aren't sent {name}")
            self.check(not (owes_fin and last.owes_fin), f"no FIN is sent {name}")
        if source.failed_at is not None:
            moved_at = max(source.failed_at, sink.failed_at or 0.0)
            moved_at = max(moved_at, sink.peer.data_at if sink.peer else 0.0)
            stopped_s = self.world.stopped_since(source.failed_at)
            limit_s = _RESET_WAIT_S if held > 0 or sink.unacknowledged else 0.0
            is_late = now - moved_at - stopped_s > limit_s + _SLACK_S
            is_late |= now - source.failed_at - stopped_s > LIMIT_S + _SLACK_S
            self.check(not is_late, f"no RST is sent {name}")

    def _look_at_idle(self, client: Client, now: float) -> None:
        """Check that the data plane closes an idle connection within two of its checks."""
        node, since = self.world.plan.node, client.moved_at
        limit_s = max(node.tcp_idle_s, node.half_closed_s) if client.ends_seen else node.tcp_idle_s
        late_s = now - since - limit_s - 2 * LOOK_S - _SLACK_S
        why = f"client {client.number} is idle since {now - since:.1f} s"
        self.check(late_s <= self.world.stopped_since(since), why)
