"""Judges how each relayed TCP connection ends, by what its four sockets have seen.

    joined ─▶ looked at twice a second ─▶ a line of the connection log
               bytes, FIN and RST go on     its cause, its side, its bytes and times

Rule 1: what arrives at one of the data plane's ends leaves at the other one, unless that has no
room; what has no room waits only while the other side still takes bytes.
Rule 2: the reason of an end is one that the sockets show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from userspace_proxy.dataplane.ageing import LOOK_S
from userspace_proxy.dataplane.late_reset import LIMIT_S
from userspace_proxy.dataplane.tuning import Tuning
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.connection_ends import EndedBy, EndReason

from .model import Span, Sure
from .streams import CLOSED, OPEN, Stream

if TYPE_CHECKING:
    from .actors import Party
    from .world import World

ORACLES = (
    "end cause",
    "end side",
    "end bytes",
    "end times",
    "idle",
    "idle end",
    "bytes go on",
    "FIN goes on",
    "RST goes on",
    "bytes before a RST",
    "first byte time",
    "longest idle goes",
    "drain",
    "ACKs aren't held",
)
RESET_WAIT_S = Tuning().reset_wait_s
DRAIN_S = 3.0
# A look each half second; timers may be a millisecond early, and a turn of the loop late.
_LOOK_S = 0.5
_SLACK_S = 0.05
# Of a new connection ACKs are held back for 2 ms, and for 20 ms while the loop is behind.
_ACKS_HELD_S = 0.1
# Idle times are known by looks; one may be a turn of the loop late.
_IDLE_NEAR_S = LOOK_S + 0.5
# Younger ones are never reset where no client is above its share, which is at least so many.
_SETTLED_S = 10.0
_FEW = 16
# The clock is read once a turn, which is as long as its calls are preempted.
_TURN_S = 0.04
_BY_PROXY = {
    EndReason.IDLE,
    EndReason.EVICTED,
    EndReason.ENDPOINT_REMOVED,
    EndReason.SHUTDOWN,
}


class _Way(NamedTuple):
    """One direction at one look."""

    at: float
    stuck: tuple[int, int, int] | None
    """What has been written, what of it has arrived, and what hasn't been written yet, although
    there is room; None: nothing."""
    owes_fin: bool


@dataclass(eq=False)
class Relayed:
    """One client's connection to an endpoint, as its sockets show it."""

    number: int
    service: int
    endpoint_at: SocketAddress
    client: Party
    endpoint: Party
    left: Stream
    """The data plane's end towards the client."""
    right: Stream
    """Its end towards the endpoint."""
    accepted: Span
    joined: Span
    header_bytes: int
    ways: dict[bool, _Way] = field(default_factory=dict)
    """At the last look, from the client and to it."""

    def held(self, *, is_up: bool) -> int:
        """Return how many bytes have arrived, and weren't written to the other side."""
        if is_up:
            return self.left.received_bytes - self.client.announced - self.up_bytes
        return self.right.received_bytes - self.left.accepted_bytes

    @property
    def up_bytes(self) -> int:
        """How many of the client's bytes were written to the endpoint."""
        return max(0, self.right.accepted_bytes - self.header_bytes)

    @property
    def moved_at(self) -> float:
        """When bytes were last written to a side."""
        return max(self.left.moved_at, self.right.moved_at)

    @property
    def half_closed_at(self) -> float | None:
        """When the end of a side was first passed on, or noticed; None: both are open."""
        times = (
            self.left.shut_out_at,
            self.right.shut_out_at,
            self.left.failed_at,
            self.right.failed_at,
        )
        return min((at for at in times if at is not None), default=None)


class TcpEnds:
    """The oracles of the ends of one run's connections."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = world.judgements
        self.open: dict[int, Relayed] = {}
        self._looked_at = 0.0
        self.drains_since: float | None = None
        self._evicted: list[Relayed] = []
        """Those of this turn."""

    def joined(self, client: Party, endpoint: Party, left: Stream, right: Stream) -> Relayed:
        """Follow a connection from now on; returns what is known of it."""
        assert endpoint.stream.local is not None, "it is at an address"
        relayed = self.open[client.number] = Relayed(
            client.number,
            client.service,
            SocketAddress(*endpoint.stream.local),
            client,
            endpoint,
            left,
            right,
            client.accepted,
            self._world.moment(),
            len(client.expected_header()),
        )
        left.written, right.written = [], []
        return relayed

    def drained(self) -> None:
        """Judge the moment at which draining ends: when nothing is open, or its time is up.

        What is still open is reset in one turn, which takes the longer the more that is.
        """
        assert self.drains_since is not None, "it has begun"
        began = self._world.moment()[0]
        late_s = began - self.drains_since - DRAIN_S - self._world.stopped_since(self.drains_since)
        self._judge.check("drain", late_s < _SLACK_S, f"draining has ended {late_s:.3f} s late")

    # -- while it is open --------------------------------------------------------------------------

    def look(self) -> bool:
        """Judge that everything goes on, if it is time to; returns whether it was."""
        world = self._world
        now = world.timeline.now
        if self._evicted:
            self._judge_evictions()
        if now < self._looked_at + _LOOK_S or world.is_closed:
            return False
        was_stopped = (
            bool(world.stopped_since(self._looked_at - 1.0)) or world.loop.held_until > now
        )
        self._looked_at = now
        for relayed in self.open.values():
            if was_stopped:
                relayed.ways.clear()
            else:
                for is_up in (True, False):
                    self._look_at(relayed, now, is_up=is_up)
                self._look_at_acks(relayed, now)
            self._look_at_idle(relayed, now)
        return True

    def _look_at_acks(self, relayed: Relayed, now: float) -> None:
        """An endpoint that writes twice gets its ACKs at once, but for the first moment."""
        if now - relayed.joined[1] > _ACKS_HELD_S:
            why = f"client {relayed.number}: ACKs to its endpoint are still held back"
            self._judge.check("ACKs aren't held", not relayed.right.holds_acks, why)

    def _look_at(self, relayed: Relayed, now: float, *, is_up: bool) -> None:
        left, right = relayed.left, relayed.right
        source, sink = (left, right) if is_up else (right, left)
        before = relayed.ways.get(is_up)
        held = relayed.held(is_up=is_up)
        has_room = 3 * len(sink.outbox) <= 2 * sink.outbox_bytes
        is_sound = sink.state == OPEN and not sink.shut_out
        arrived = 0 if sink.peer is None else sink.peer.received_bytes
        stuck = (sink.accepted_bytes, arrived, held) if held and has_room and is_sound else None
        owes_fin = source.has_fin and not held and is_sound and source.failed_at is None
        relayed.ways[is_up] = _Way(now, stuck, owes_fin)
        if before is None or now - before.at < 0.9 * _LOOK_S:
            return
        name = f"client {relayed.number}"
        way = "to its endpoint" if is_up else "to it"
        # What arrives meanwhile doesn't matter.
        is_stuck = stuck is not None and before.stuck is not None and stuck[:2] == before.stuck[:2]
        if held or is_stuck:
            self._judge.check("bytes go on", not is_stuck, f"{name}: {held} B aren't sent {way}")
        if source.has_fin:
            is_owed = owes_fin and before.owes_fin
            self._judge.check("FIN goes on", not is_owed, f"{name}: no FIN is sent {way}")
        self._look_at_reset(relayed, source, sink, now, held)

    def _look_at_reset(
        self, relayed: Relayed, source: Stream, sink: Stream, now: float, held: int
    ) -> None:
        """A RST is passed on once all before it has arrived, or the other side is stalled."""
        if source.failed_at is None:
            return
        since = self._progress_at(source.failed_at, sink)
        late_s = now - since - self._world.stopped_since(since)
        in_all_s = now - source.failed_at - self._world.stopped_since(source.failed_at)
        limit_s = RESET_WAIT_S if held or sink.unacknowledged else 0.0
        is_late = late_s > limit_s + 0.2 + _SLACK_S or in_all_s > LIMIT_S + 0.3
        self._judge.check(
            "RST goes on",
            not is_late,
            f"client {relayed.number}: a RST is not passed on since {late_s:.3f} s",
        )

    @staticmethod
    def _progress_at(failed_at: float, sink: Stream) -> float:
        """Return when the side that is to be reset last took bytes."""
        times = failed_at, sink.failed_at or 0.0, sink.peer.data_at if sink.peer else 0.0
        return max(times)

    def _look_at_idle(self, relayed: Relayed, now: float) -> None:
        """A connection on which nothing moves ends, two looks of the data plane later at most."""
        node, since = self._world.plan.node, relayed.moved_at
        half_closed_at = relayed.half_closed_at
        due = since + node.tcp_idle_s
        if half_closed_at is not None:
            due = max(since + node.half_closed_s, half_closed_at)
        late_s = now - due - 2 * LOOK_S - _SLACK_S
        self._judge.check(
            "idle",
            late_s <= 0 or late_s <= self._world.stopped_since(since),
            lambda: f"client {relayed.number} is idle since {now - since:.1f} s",
        )

    def _judge_evictions(self) -> None:
        """Of one client's connections to a Service port, the longest-idle ones are reset."""
        evicted, self._evicted = self._evicted, []
        settled_at = self._world.timeline.now - _SETTLED_S - _SLACK_S
        for victim in evicted:
            ip, service = victim.client.served_as.ip, victim.service
            held = sum(each.client.served_as.ip == ip for each in self.open.values())
            is_above = held > max(_FEW, len(self.open) // 8)
            longer = [
                other
                for other in self.open.values()
                if other.client.served_as.ip == ip
                and other.service == service
                and (is_above or other.accepted[1] < settled_at - self._world.stopped_s)
                and other.moved_at < victim.moved_at - _IDLE_NEAR_S - self._world.stopped_s
            ]
            why = (
                f"client {victim.number} was evicted, and {[o.number for o in longer]} idle longer"
            )
            self._judge.check("longest idle goes", not longer, why)

    # -- at its end --------------------------------------------------------------------------------

    def ended(self, number: int, line: dict[str, Any]) -> Relayed | None:
        """Judge a line of the connection log, as it is written; returns what it is about."""
        relayed = self.open.pop(number, None)
        cause, by = line["cause"], line["ended_by"]
        if relayed is None:
            self._judge_unjoined(number, cause, by, line)
            return None
        self._judge_cause(relayed, cause)
        self._judge_side(relayed, cause, by)
        self._judge_bytes(relayed, cause, line)
        self._judge_times(relayed, line)
        if cause == EndReason.IDLE:
            self._judge_idle_end(relayed)
        if cause == EndReason.EVICTED and not self._world.datagrams.troubles.frees_memory():
            self._evicted.append(relayed)
        if cause == EndReason.RESET and not self._world.is_closed:
            self._judge_rest(relayed)
        return relayed

    def _judge_unjoined(self, number: int, cause: str, by: str, line: dict[str, Any]) -> None:
        """A client without an endpoint: it has left, or the data plane ends it."""
        client = self._world.clients.get(number)
        stream = None if client is None else client.stream.peer
        if stream is None:
            self._judge.violate("end cause", f"client {number} wasn't connected")
            return
        is_sent = bool(line["received_bytes"] or line["sent_bytes"] or line["endpoint"])
        self._judge.check(
            "end bytes", not is_sent, lambda: f"client {number} was never joined: {line}"
        )
        has_left = stream.failed_at is not None or stream.fin_at is not None
        by_client = cause in (EndReason.LEFT, EndReason.RESET, EndReason.COMPLETE)
        right = has_left if by_client else cause not in (EndReason.IDLE, EndReason.TIMED_OUT)
        if cause == EndReason.RESET:
            right = stream.failed_at is not None
        if cause == EndReason.SHUTDOWN:
            right = self._may_shut_down()
        self._judge.check("end cause", right, f"client {number} ended as {cause}")
        wanted = EndedBy.CLIENT if by_client else EndedBy.PROXY
        self._judge.check("end side", by == wanted, f"client {number}: {cause} by {by}")

    def _may_shut_down(self) -> bool:
        since, world = self.drains_since, self._world
        return world.is_closed or (
            since is not None and world.timeline.now - since >= DRAIN_S - _SLACK_S
        )

    def _judge_cause(self, relayed: Relayed, cause: str) -> None:
        left, right = relayed.left, relayed.right
        fins = left.fin_at is not None and right.fin_at is not None
        has_failed = left.failed_at is not None or right.failed_at is not None
        allowed = {
            EndReason.COMPLETE: fins,
            EndReason.RESET: has_failed,
            EndReason.TIMED_OUT: False,
            EndReason.SHUTDOWN: self._may_shut_down(),
        }
        is_right = allowed.get(EndReason(cause), cause in _BY_PROXY)
        self._judge.check("end cause", is_right, f"client {relayed.number} ended as {cause}")

    def _judge_side(self, relayed: Relayed, cause: str, by: str) -> None:
        left, right, number = relayed.left, relayed.right, relayed.number
        if cause in _BY_PROXY:
            self._judge.check("end side", by == EndedBy.PROXY, f"client {number}: {cause} by {by}")
            return
        if cause == EndReason.RESET:
            wanted = self._first(left.failed_at, right.failed_at, 2 * _SLACK_S)
            if left.state == CLOSED and left.fin_at is not None and left.failed_at is None:
                # Both of its FINs have arrived: to the kernel it has left, as after its RST.
                wanted = None
        else:
            # The side whose FIN was passed on first.
            wanted = self._first(right.shut_out_at, left.shut_out_at, 0.0)
            if not left.accepted_bytes:
                wanted = self._first_without_a_byte(relayed, wanted)
        if wanted is None:
            self._judge.excuse("end side", "both ended at once")
            return
        self._judge.check("end side", by == wanted, f"client {number}: {cause} by {by}")

    def _first(self, client: float | None, endpoint: float | None, least_s: float) -> str | None:
        if client is None or endpoint is None:
            if client is endpoint:
                return None
            return EndedBy.ENDPOINT if client is None else EndedBy.CLIENT
        if abs(client - endpoint) <= least_s + self._world.stopped_s:
            return None
        return EndedBy.CLIENT if client < endpoint else EndedBy.ENDPOINT

    def _first_without_a_byte(self, relayed: Relayed, wanted: str | None) -> str | None:
        """An endpoint that has sent nothing was first, unless it had received the client's FIN."""
        right, began = relayed.right, self._world.moment()[0]
        if not right.fin_queued:
            if right.failed_at is not None and right.failed_at >= began:
                # What it hadn't received is forgotten with its RST, after the data plane's look.
                return None
            return EndedBy.ENDPOINT if right.unacknowledged else wanted
        if right.unacknowledged:
            return EndedBy.ENDPOINT
        peer = right.peer
        if peer is not None and peer.fin_at is not None and peer.fin_at >= began:
            return None
        return wanted

    def _judge_bytes(self, relayed: Relayed, cause: str, line: dict[str, Any]) -> None:
        left, judge, number = relayed.left, self._judge, relayed.number
        counted = line["received_bytes"], line["sent_bytes"]
        moved = relayed.up_bytes, left.accepted_bytes
        judge.check("end bytes", counted == moved, f"client {number}: {counted} B, not {moved}")
        if cause == EndReason.COMPLETE:
            held = relayed.held(is_up=True), relayed.held(is_up=False)
            judge.check("end bytes", held == (0, 0), f"client {number}: {held} B weren't sent")
        is_right = line["endpoint"] == str(relayed.endpoint_at)
        judge.check("end bytes", is_right, f"client {number}: {line['endpoint']} in its line")

    def _judge_times(self, relayed: Relayed, line: dict[str, Any]) -> None:
        now, number = self._world.moment(), relayed.number
        accepted, joined = relayed.accepted, relayed.joined
        wanted = {
            "duration_s": (now[0] - accepted[1], now[1] - accepted[0]),
            "waited_s": (joined[0] - accepted[1], joined[1] - accepted[0]),
        }
        for name, (least, most) in wanted.items():
            is_right = least - 0.001 <= line[name] <= most + 0.001
            why = f"client {number}: {name} is {line[name]}, not {least:.4f} to {most:.4f}"
            self._judge.check("end times", is_right, why)
        self._judge_first_byte(relayed, line["first_byte_s"])

    def _judge_first_byte(self, relayed: Relayed, waited_s: float | None) -> None:
        """The endpoint's first byte comes so long after its answer, or the client's first byte."""
        first, right = relayed.right.first_read_at, relayed.right
        why = f"client {relayed.number}: first byte after {waited_s}"
        if waited_s is None:
            is_lost = relayed.left.failed_at is not None and not relayed.left.accepted_bytes
            if first is not None and is_lost:
                self._judge.excuse("first byte time", "the client had left")
            else:
                self._judge.check("first byte time", first is None, why)
            return
        if first is None:
            self._judge.violate("first byte time", why)
            return
        header, joined_at = relayed.header_bytes, relayed.joined[0]
        near_s = max(_TURN_S, self._world.loop.longest_turn_s)
        asked_at = next((at for at, count in right.written or () if count > header), None)
        wanted = [first - joined_at]
        if asked_at is not None and joined_at <= asked_at <= first + near_s:
            if asked_at < first - near_s:
                wanted.clear()
            wanted.append(max(0.0, first - asked_at))
        if header and waited_s <= first - joined_at + near_s:
            # Where it is all that there was room for, what follows it isn't noticed as the first.
            wanted.append(waited_s)
        is_right = any(abs(waited_s - each) <= near_s for each in wanted)
        if not is_right and self._world.stopped_since(joined_at):
            self._judge.excuse("first byte time", "the process was stopped")
            return
        self._judge.check("first byte time", is_right, f"{why}, not {wanted}")

    def _judge_idle_end(self, relayed: Relayed) -> None:
        """It was idle for as long as is promised, by the state that it was in."""
        world, node = self._world, self._world.plan.node
        now = world.timeline.now
        idle_s = now - relayed.moved_at
        limits_s = {Sure.YES: node.half_closed_s, Sure.NO: node.tcp_idle_s}
        state = self.is_half_closed(relayed)
        is_right = {of: idle_s >= limit_s - 0.01 for of, limit_s in limits_s.items()}
        if state is Sure.EITHER and is_right[Sure.YES] != is_right[Sure.NO]:
            self._judge.excuse("idle end", "a RST had only just arrived")
            return
        why = f"client {relayed.number} was idle for {idle_s:.3f} s only"
        self._judge.check("idle end", is_right.get(state, any(is_right.values())), why)

    def is_half_closed(self, relayed: Relayed) -> Sure:
        """Return whether the program knows an end of a side, as it ends the connection.

        In the turn that sees a RST timers may come first, also in the first one after a stop.
        """
        if relayed.half_closed_at is None:
            return Sure.NO
        left, right, began = relayed.left, relayed.right, self._world.moment()[0]
        failed = [at for at in (left.failed_at, right.failed_at) if at is not None]
        is_passed_on = left.shut_out_at is not None or right.shut_out_at is not None
        is_seen = is_passed_on or any(self._seen_by(at) < began for at in failed)
        return Sure.YES if is_seen else Sure.EITHER

    def _seen_by(self, moment: float) -> float:
        """Return when the turn begins that sees an event, at the latest."""
        stops = [(began, began + seconds) for began, seconds in self._world.stops]
        stops += [(began, ended) for began, ended, _ in self._world.loop.stops]
        for began, ended in sorted(stops):
            # One may begin before another ends.
            moment = max(moment, ended) if began <= moment else moment
        return moment + _TURN_S

    def _judge_rest(self, relayed: Relayed) -> None:
        """What had arrived before a RST has reached the other side, unless that was stalled."""
        left, right, now = relayed.left, relayed.right, self._world.timeline.now
        if left.failed_at is not None and right.failed_at is not None:
            self._judge_rest_of_both(relayed, left.failed_at, right.failed_at)
            return
        is_up = left.failed_at is not None
        source, sink = (left, right) if is_up else (right, left)
        if source.failed_at is None:
            return
        rest = max(relayed.held(is_up=is_up), 0) + len(sink.outbox)
        unacknowledged, progress_at = len(sink.outbox), self._progress_at(source.failed_at, sink)
        if sink.asked and sink.asked.at >= self._world.moment()[0]:
            # Bytes may arrive between the data plane's last look and its close.
            unacknowledged = sink.asked.left_bytes
            progress_at = max(source.failed_at, sink.asked.data_at)
        is_over = now - progress_at >= RESET_WAIT_S - _SLACK_S or now - source.failed_at >= LIMIT_S
        if unacknowledged and is_over:
            # No more is promised to a side that takes nothing of what was sent to it.
            self._judge.right("bytes before a RST")
        elif rest and sink.fin_at is not None and sink.shut_out:
            self._judge.excuse("bytes before a RST", "the other side has ended")
        else:
            why = f"client {relayed.number}: {rest} B before the RST are lost"
            self._judge.check("bytes before a RST", not rest, why)

    def _judge_rest_of_both(self, relayed: Relayed, left_at: float, right_at: float) -> None:
        """The side that resets last takes nothing more: of the bytes to it few can be missing."""
        if not relayed.held(is_up=left_at < right_at):
            self._judge.right("bytes before a RST")
        elif abs(left_at - right_at) > _SLACK_S:
            self._judge.excuse("bytes before a RST", "both sides have reset")
