"""Judges waits: that clients are dialled for soon, in order, and for no longer than is promised.

    accepted ─▶ dials, one after another ─▶ joined
                 │ none is left                ▲
                 └─▶ waits, in order ─its turn─┘      docs/scale-to-zero.md, What happens to …

Rule 1: a client waits only as long as no endpoint can take it, and a turn of those that wait.
Rule 2: bounds of time are the data plane's, and what the simulation itself adds.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from .addresses import losers
from .attempts import Attempt, Port
from .judging import CLIENT_S, SILENT_S
from .model import Kind, Option, Span

if TYPE_CHECKING:
    from .world import World

WINDOW = 4
"""Clients that wait are dialled for at most so many at a time."""
_RETRY_S = 1.0
"""While endpoints fail, some of them are dialled for each second."""
_TURN_S = 0.25
_LACK_S = 0.25
"""What the kernel lacked is tried again four times a second."""
# What a look each second, and a timer, may add.
_SLACK_S = 0.3
_LOOK_S = 0.05
_SERVES = (Kind.PINNED, Kind.TURN, Kind.LAST)


class Waits:
    """The oracles of waits of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = world.judgements
        self._looked_at = 0.0
        self._overflowed: dict[Port, list[tuple[Attempt, Counter[str], bool]]] = {}
        """Clients that lost their places since the last one began to wait."""

    # -- as it happens -----------------------------------------------------------------------------

    def sends(self, port: Port, attempt: Attempt, endpoint: SocketAddress) -> None:
        """Judge whose turn it is among those that wait."""
        queue = [a for a in port.pending.values() if a.is_waiting and a is not attempt]
        goes_on = attempt.first_dial is not None or attempt.tried
        if not queue or not port.model.is_uniform or goes_on:
            # Otherwise each waits for endpoints of its own, or this is a turn that goes on.
            return
        since = attempt.waits_since
        if since is None and port.model.serving.handling.waits is None:
            # Without a limit any more none queues up.
            return
        if since is None:
            queue = [each for each in queue if each.is_at_limit]
            ahead = [each for each in queue if not self._had_turn(each, attempt.accepted[0])]
            name = "queue"
        else:
            queue = [e for e in queue if e.waits_since is not None and e.waits_since[1] < since[0]]
            # Since its own last turn began, each one has had another one.
            begun = attempt.turn_began if attempt.turn_began > since[1] else since[0]
            ahead = [each for each in queue if not self._had_turn(each, begun)]
            name = "order"
        others = [each.number for each in ahead]
        if ahead and since is None and not any(each.is_surely_at_limit for each in ahead):
            # Nor does a new one queue up behind those that wait for any endpoint.
            self._judge.excuse(name, "others may wait for any endpoint")
            return
        if ahead and self._world.kernel.lacked_at >= self._world.timeline.now - _TURN_S:
            self._judge.excuse(name, "the kernel lacked something")
            return
        why = f"client {attempt.number} was sent to {endpoint} before {others}"
        self._judge.check(name, not ahead, why)

    @staticmethod
    def _had_turn(attempt: Attempt, since: float) -> bool:
        if attempt.found_none_at >= since:
            # It looks again when the turn of the loop is over.
            return True
        if attempt.is_at_limit:
            return max(attempt.last_turn, attempt.dialled_until) >= since
        # Or it had its turn, and no endpoint was left at that moment.
        return max(attempt.last_turn, attempt.idle_since) >= since

    @staticmethod
    def took(port: Port, attempt: Attempt, at: Span) -> None:
        """Note that one client's dial may have taken what another one could have had."""
        for other in port.pending.values():
            if other is not attempt and other.could_go_since is not None and other.dial is not None:
                tried = {*other.tried, other.dial.endpoint}
                if not _is_served(port.model.options(other.ip, at, tried)):
                    other.could_go_since = None

    def redials(self, attempt: Attempt) -> None:
        """Judge how soon the next dial begins after one that has failed."""
        if attempt.tried:
            self._judge_limbo(attempt, self._world.timeline.now, is_over=True)

    def gave_up(self, attempt: Attempt, lasted: Span) -> None:
        """Judge how long a dial without an answer lasted."""
        if attempt.waits_since is None:
            since, late_s = self._world.timeline.now - lasted[1], lasted[0] - CLIENT_S
            self._within("deadline", late_s, since, f"a dial lasted {lasted[0]:.3f} s")

    def waits(self, port: Port, attempt: Attempt, options: list[Option] | None) -> None:
        """Judge who lost a place for a client that begins to wait, and what is reported."""
        places = [a for a in port.pending.values() if a.waits_since is not None]
        hold = port.model.serving.handling.waits
        if hold is None:
            self._judge.violate("hold", f"client {attempt.number} waits, and none may")
            return
        most = port.service.places
        why = f"{len(places)} clients wait, not {most}"
        self._judge.check("places", len(places) <= most, why)
        for lost, counts, is_oldest in self._overflowed.pop(port, ()):
            counts[attempt.ip] += 1
            is_largest = lost.ip in losers(counts, counts.total() - 1)
            why = f"client {lost.number} lost its place, and {counts} had them"
            self._judge.check("lost place", is_largest and is_oldest, why)
        if options is not None and all(option.kind is Kind.NONE for option in options):
            why = f"client {attempt.number} finds no endpoint, and others don't learn of it"
            # The one that it queued up behind may just have lost its place for it.
            is_behind = attempt.is_at_limit or any(
                each.is_at_limit for each in places if each is not attempt
            )
            may_be_behind = any(each.may_be_at_limit for each in places if each is not attempt)
            if may_be_behind and not (port.lacks_endpoints or is_behind or port.wait_reports):
                self._judge.excuse("demand", "others may wait for room")
            elif not (port.lacks_endpoints or is_behind):
                self._judge.check("demand", port.wait_reports > 0, why)
            port.lacks_endpoints = True
        port.lacks_endpoints |= port.wait_reports > 0
        port.wait_reports = 0

    def ended(self, port: Port, attempt: Attempt, cause: str) -> None:
        """Judge the end of a client that has waited."""
        since, hold = attempt.waits_since, port.model.serving.handling.waits
        at = self._world.moment()
        if cause == "waited too long":
            waited_s = 0.0 if since is None else at[1] - since[0]
            is_due = hold is not None and waited_s >= hold.seconds - 0.002
            self._judge.check("hold", is_due, f"client {attempt.number} waited {waited_s:.3f} s")
        elif self._world.is_closed:
            # Clients that begin to wait since then aren't followed, either.
            return
        elif cause == "too many waiting":
            places = [a for a in port.pending.values() if a.waits_since is not None]
            own = [a.waits_since[0] for a in places if a.ip == attempt.ip and a.waits_since]
            is_oldest = since is not None and since[0] <= min(own) + 0.01
            counts = Counter(each.ip for each in places)
            self._overflowed.setdefault(port, []).append((attempt, counts, is_oldest))
            why = f"client {attempt.number} lost its place, and {len(places)} clients had one"
            self._judge.check("places", len(places) >= port.service.places, why)
        elif cause == "left":
            client = self._world.clients[attempt.number]
            is_gone = client.has_finished or client.has_reset or client.has_closed
            self._judge.check("left", is_gone, f"client {attempt.number} hasn't left")

    def emptied(self, port: Port) -> None:
        """Note that a client has lost its place, the last one perhaps."""
        if all(attempt.waits_since is None for attempt in port.pending.values()):
            port.lacks_endpoints = False

    # -- as time passes ----------------------------------------------------------------------------

    def after_turn(self, ports: list[Port]) -> None:
        """Judge for how long clients have waited."""
        now = self._world.timeline.now
        if now < self._looked_at + _LOOK_S or self._world.is_closed:
            return
        self._looked_at = now
        at = self._world.loop.turn_began, now
        for port in ports:
            if not port.pending:
                continue
            servable: list[Attempt] = []
            for attempt in port.pending.values():
                if attempt.begun_at is None:
                    continue
                if attempt.dial is not None:
                    self._judge_dial(port, attempt, at)
                elif attempt.waits_since is None:
                    self._judge_limbo(attempt, now)
                else:
                    self._judge_hold(port, attempt, now)
                    if _is_served(port.model.options(attempt.ip, at)):
                        servable.append(attempt)
            self._judge_room(port, now, servable)

    def _judge_dial(self, port: Port, attempt: Attempt, at: Span) -> None:
        """A dial that isn't answered is given up after a second, if another one may be."""
        dial, now = attempt.dial, at[1]
        assert dial is not None, "it is dialled"
        if now - dial.began[0] < SILENT_S or dial.is_answered:
            return
        options = port.model.options(attempt.ip, at, {*attempt.tried, dial.endpoint})
        if not _is_served(options):
            attempt.could_go_since = None
            return
        attempt.could_go_since = attempt.could_go_since or now
        late_s = now - max(attempt.could_go_since, dial.began[1]) - SILENT_S
        why = f"client {attempt.number} is dialled at {dial.endpoint} for {late_s + 1:.3f} s"
        self._within("fail-over", late_s, attempt.could_go_since, why)
        first = attempt.looked_for
        if first is not None and attempt.waits_since is None:
            late_s = now - first[1] - CLIENT_S
            self._within("deadline", late_s, first[1], f"client {attempt.number} has no answer yet")

    def _judge_limbo(self, attempt: Attempt, now: float, *, is_over: bool = False) -> None:
        """A client without a dial under way that doesn't wait is dialled for at once."""
        idle_s = now - attempt.idle_since
        if idle_s < _TURN_S:
            if is_over:
                self._judge.right("redial")
            return
        late_s = idle_s - _TURN_S
        if (lacked_at := self._world.kernel.lacked_at) >= attempt.idle_since:
            # It is tried again a moment later, each time.
            late_s = now - lacked_at - _TURN_S - _LACK_S
        why = f"client {attempt.number} isn't dialled for, since {idle_s:.3f} s"
        self._within("redial", late_s, attempt.idle_since, why)

    def _judge_hold(self, port: Port, attempt: Attempt, now: float) -> None:
        since, hold = attempt.waits_since, port.model.serving.handling.waits
        if since is None or hold is None:
            return
        due = max(since[1] + hold.seconds, port.model.changed_at)
        if now >= due:
            why = f"client {attempt.number} waits for {now - since[0]:.3f} s"
            # Another deadline than that of its first second is seen by the look each second.
            bound_s = _RETRY_S if port.model.changed_at > since[0] else 0.0
            self._within("hold", now - due - bound_s, since[0], why)

    def _judge_room(self, port: Port, now: float, servable: list[Attempt]) -> None:
        """While an endpoint can take one of those that wait, one of them has its turn."""
        under_way = sum(
            attempt.waits_since is not None and attempt.dial is not None
            for attempt in port.pending.values()
        )
        if not servable or under_way >= WINDOW:
            port.could_serve_since = None
            return
        if port.could_serve_since is None:
            port.could_serve_since, port.is_at_once = now, False
            # What lets the program dial at once counts until it has.
            limited = [attempt for attempt in servable if attempt.is_at_limit]
            for at, those in ((port.hope_at, servable), (port.ended_at, limited)):
                # One that was dialled for at that moment, or found none then, has had its turn; so
                # have those behind it, if all use the same endpoints.
                first = sorted(those, key=_began_to_wait)[:1] if port.model.is_uniform else those
                had_none = any(attempt.idle_since < at for attempt in first)
                if port.model.is_uniform:
                    # Nor need it be the first one: a pass goes on where it was, and halts at one
                    # that finds none, as those behind it would find the same.
                    had_none &= not any(each.found_none_since(at) for each in those)
                is_new = port.sent_at < at and now - at <= _LOOK_S
                port.is_at_once |= had_none and is_new
        for_s = now - port.could_serve_since
        bound_s = 0.0 if port.is_at_once else _RETRY_S
        why = f"clients wait, and for {for_s:.3f} s an endpoint could take one"
        self._within("turn of those that wait", for_s - bound_s, port.could_serve_since, why)

    def _within(self, oracle: str, late_s: float, since: float, why: str) -> None:
        """Judge a bound of time, which a stop of the process extends."""
        due = self._world.timeline.now - late_s
        self._judge.check(oracle, late_s <= _SLACK_S + self._world.stops_add(since, due), why)


def _began_to_wait(attempt: Attempt) -> float:
    return attempt.waits_since[0] if attempt.waits_since is not None else 0.0


def _is_served(options: list[Option] | None) -> bool:
    return bool(options) and all(option.kind in _SERVES for option in options or ())
