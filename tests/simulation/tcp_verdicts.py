"""What the end of a connection is counted as: worked out from the times at which its sides acted.

    asked ─▶ first byte?  ─ no ──▶ who ended it: the endpoint by RST or FIN, or a client that waited
                          └ yes ─▶ cut off by a RST of the endpoint; a further answer was owed

Where the order of two events is unsure, or a rule's bound is near, more than one is right.

Source: the rules at the head of ``facts.exchange`` and the texts of ``facts.figures``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from userspace_proxy.causes.cause import CauseCode

from .model import Sure

if TYPE_CHECKING:
    from .tcp_ends import Relayed
    from .world import World

# The program handles an event up to so much later, by a clock that it reads once a turn.
_NEAR_S = 0.045
_WAITED_S, _PATIENCE_S, _AWAITED_S = 0.9, 0.3, 0.1
_UNANSWERED_S = 1.0
_HUNG_S = 3.0


class Verdict(NamedTuple):
    """Which counters a connection's end belongs to."""

    resets: Sure
    empty: Sure
    client_aborts: Sure
    endpoint_aborts: Sure
    unanswered: Sure
    unanswered_requests: Sure
    codes: frozenset[CauseCode | None]
    """The codes that its line may have."""


def is_over(seconds: float, limit: float, near_s: float) -> Sure:
    """Return whether so many seconds are as long as a limit."""
    if abs(seconds - limit) <= near_s:
        return Sure.EITHER
    return Sure.YES if seconds > limit else Sure.NO


def both(*each: Sure) -> Sure:
    if Sure.NO in each:
        return Sure.NO
    return Sure.EITHER if Sure.EITHER in each else Sure.YES


def any_of(*each: Sure) -> Sure:
    if Sure.YES in each:
        return Sure.YES
    return Sure.EITHER if Sure.EITHER in each else Sure.NO


def inverse(one: Sure) -> Sure:
    return {Sure.YES: Sure.NO, Sure.NO: Sure.YES}.get(one, one)


def sure(is_so: bool) -> Sure:
    return Sure.YES if is_so else Sure.NO


def before(first: float | None, second: float | None, near_s: float) -> Sure:
    """Return whether an event came before another one; None: it didn't happen."""
    if first is None:
        return Sure.NO
    return Sure.YES if second is None else is_over(second - first, 0.0, near_s)


class Judged:
    """The verdict on one connection, at its end.

    Args:
        relayed: Which.
        answers_others: The endpoint has sent bytes on any connection before.
        is_by_proxy: The proxy ended it for a reason of its own, such as room for others.
    """

    def __init__(
        self, world: World, relayed: Relayed, *, answers_others: bool, is_by_proxy: bool
    ) -> None:
        self._world = world
        self._relayed = relayed
        began, self._now = self._moment = world.moment()
        # The program reads its clock before a stop within a turn, and acts after it.
        stops = world.loop.stops
        stopped_s = sum(s for _, ended, s in stops if ended >= relayed.joined[0])
        self._near_s = _NEAR_S + stopped_s + (self._now - began)
        self._answers_others = answers_others
        self._is_by_proxy = is_by_proxy
        left, right = relayed.left, relayed.right
        self._header = relayed.header_bytes
        up = [at for at, count in right.written or () if count > self._header]
        self._up_at = up[-1] if up else None
        self.asked_at = up[0] if up else None
        self._down = [at for at, _ in left.written or ()]
        if self._down and right.last_read_at > self._down[-1]:
            # The endpoint's last words wait for room at the client.
            self._down.append(right.last_read_at)
        self._down_at = self._down[-1] if self._down else None
        self._first = right.first_read_at

    def _handled_by(self, moment: float) -> float:
        """Return until when the program has handled an event, at the latest."""
        return moment + self._near_s + self._world.stopped_since(moment)

    def verdict(self) -> Verdict:
        has_answer = sure(self._first is not None)
        if self._first is not None and not self._relayed.left.accepted_bytes:
            # Read, and perhaps lost as the client's end was noticed.
            has_answer = Sure.EITHER
        empty, has_given_up = self._is_empty(), self._has_given_up()
        # What has been counted once isn't counted again.
        is_counted = any_of(empty, both(has_given_up, Sure.EITHER))
        reset = both(self._is_reset(has_answer), inverse(both(is_counted, inverse(has_answer))))
        given_up = both(inverse(has_answer), inverse(any_of(reset, empty)), has_given_up)
        if has_answer is not Sure.NO:
            given_up = any_of(given_up, self._is_late())
        unanswered = any_of(both(reset, inverse(has_answer)), empty)
        if self._may_have_hung() and both(reset, inverse(has_answer)) is not Sure.NO:
            # Where it has read nothing for so long, the client may have left meanwhile.
            given_up = any_of(given_up, Sure.EITHER)
            unanswered = both(unanswered, Sure.EITHER)
        return Verdict(
            reset,
            empty,
            given_up,
            both(reset, has_answer),
            unanswered,
            self._owes(has_answer, given_up),
            self._codes(reset, empty, given_up, has_answer),
        )

    def _may_have_hung(self) -> bool:
        return self.asked_at is not None and self._now - self.asked_at >= _HUNG_S - self._near_s

    def _is_reset(self, has_answer: Sure) -> Sure:
        """The endpoint has reset it: before its client ended, and not after answer and FIN."""
        left, right = self._relayed.left, self._relayed.right
        if right.failed_at is None:
            return Sure.NO
        handled_by = self._handled_by(right.failed_at)
        has_client_gone = Sure.NO
        if right.shut_out_at is not None and right.shut_out_at < right.failed_at:
            has_client_gone = Sure.YES
        for at in (left.failed_at, left.fin_at):
            if at is not None and at <= handled_by:
                is_known = at is left.failed_at and at <= right.failed_at
                has_client_gone = any_of(has_client_gone, Sure.YES if is_known else Sure.EITHER)
        had_end = before(right.fin_at, right.failed_at, self._near_s)
        if had_end is Sure.YES and left.shut_out_at is None:
            # The FIN waits behind bytes.
            had_end = Sure.EITHER
        is_noticed = Sure.EITHER if self._ends_before(handled_by) else Sure.YES
        return both(is_noticed, inverse(has_client_gone), inverse(both(has_answer, had_end)))

    def _ends_before(self, handled_by: float) -> bool:
        """Return whether the proxy may have closed it before it handled an event."""
        return (self._world.is_closed or self._is_by_proxy) and handled_by >= self._now

    def _is_empty(self) -> Sure:
        """The endpoint has ended its side first, without a byte: it was asked, or it was soon."""
        left, right = self._relayed.left, self._relayed.right
        fin_at = left.shut_out_at
        if fin_at is None or left.accepted_bytes:
            if right.fin_at is not None and not left.accepted_bytes and self._first is None:
                # Perhaps noted, and the FIN couldn't be sent.
                return Sure.EITHER
            return Sure.NO
        is_first = before(fin_at, right.shut_out_at, 0.0)
        has_asked = before(self.asked_at, fin_at, self._near_s)
        lasted_s = fin_at - self._relayed.joined[0]
        is_soon = inverse(is_over(lasted_s, _UNANSWERED_S, self._near_s))
        return both(is_first, any_of(has_asked, is_soon))

    def _is_late(self) -> Sure:
        """The first byte came after a client had waited and ended, and hasn't arrived there."""
        left, right, first = self._relayed.left, self._relayed.right, self._first
        if first is None or right.shut_out_at is None or left.fin_at is None:
            return Sure.NO
        # Bytes that come with an error are noted at the end.
        near_s = self._near_s if first >= self._now - self._near_s else 0.0
        is_after = before(right.shut_out_at, first, near_s)
        had_waited = is_over(left.fin_at - left.data_at, _AWAITED_S, 0.003)
        if self.asked_at is not None and self._now - self.asked_at >= _PATIENCE_S - self._near_s:
            # It may have been counted before.
            had_waited = any_of(had_waited, Sure.EITHER)
        has_arrived = sure(left.unacknowledged_since(self._moment[0]) < left.accepted_bytes)
        # A client's RST that is handled before notes no first byte.
        is_noted = Sure.YES if left.failed_at is None or left.failed_at > first else Sure.EITHER
        return both(is_after, had_waited, inverse(has_arrived), is_noted)

    def _has_given_up(self) -> Sure:
        """A client without an answer has sent something, then waited, and has left."""
        left, right = self._relayed.left, self._relayed.right
        if left.failed_at is None and right.shut_out_at is None and left.fin_at is None:
            return Sure.NO
        if self.asked_at is None:
            return Sure.NO
        near_s, now = self._near_s, self._now
        # Asked is what was sent first after the answer of the dial, or when that came.
        asked_s = now - max(self._relayed.joined[0], self.asked_at)
        silent_s = now - left.data_at
        left_s = now - left.heard_at if right.shut_out_at is not None else 0.0
        waited_s = min(silent_s, asked_s) - left_s
        found = both(
            is_over(asked_s, _PATIENCE_S, near_s),
            inverse(is_over(asked_s - silent_s, _WAITED_S, near_s)),
            any_of(
                is_over(min(silent_s, asked_s), _WAITED_S, near_s),
                both(
                    both(sure(self._answers_others), Sure.EITHER),
                    is_over(waited_s, _PATIENCE_S, near_s),
                ),
            ),
        )
        is_unsure = self._header > 0 or (left.failed_at is None and right.shut_out_at is None)
        return both(found, Sure.EITHER) if is_unsure else found

    def _owes(self, has_answer: Sure, given_up: Sure) -> Sure:
        """A further answer was due as the first side ended: the client had spoken last."""
        left, right = self._relayed.left, self._relayed.right
        client_at = min(
            (at for at in (left.fin_at, left.failed_at) if at is not None), default=None
        )
        endpoint_at = right.fin_at
        ends = [at for at in (client_at, endpoint_at, right.failed_at) if at is not None]
        if not ends or self._up_at is None or self._down_at is None or not left.accepted_bytes:
            return Sure.NO
        end_at = min(ends)
        near_s = self._handled_by(end_at) - end_at
        least_s = _WAITED_S if endpoint_at is None else _AWAITED_S
        if left.last_read_at > self._up_at:
            # The client's last words wait for room at the endpoint, which may have spoken since.
            return Sure.EITHER
        if not self._may_owe(end_at - near_s, least_s - near_s):
            return Sure.NO
        if self._ends_before(end_at + near_s):
            return Sure.EITHER
        if right.failed_at is not None and right.failed_at <= end_at + near_s:
            return Sure.NO if right.failed_at < end_at - near_s else Sure.EITHER
        if sum(at <= end_at + near_s for at in ends) > 1:
            return Sure.EITHER
        if left.failed_at == end_at and self._relayed.held(is_up=False):
            # It may be noticed as the rest of an answer is written: then none is due.
            return Sure.EITHER
        passed_on = max(
            (count for at, count in left.written or () if at <= end_at + near_s), default=0
        )
        if end_at == endpoint_at and passed_on < right.received_bytes:
            # Some of its words wait for room, and may have come after those of the client.
            return Sure.EITHER
        behind = self._up_at if end_at == client_at else self._down_at
        if behind > end_at:
            # It is known once what was before it has gone on.
            return Sure.EITHER
        if max(self._up_at, self._down_at) > end_at - near_s:
            # Bytes moved as it ended, or afterwards.
            said = [at for at, _ in right.written or () if at < end_at - near_s]
            answered = [at for at in self._down if at < end_at - near_s]
            if not said or not answered or self._moved_near(end_at, near_s):
                return Sure.EITHER
            up_at, down_at = said[-1], answered[-1]
        else:
            up_at, down_at = self._up_at, self._down_at
        least_s = _WAITED_S if end_at == client_at else _AWAITED_S
        return both(
            has_answer,
            before(down_at, up_at, 0.0),
            is_over(end_at - up_at, least_s, near_s),
            is_over(end_at - self._relayed.joined[0], least_s, near_s),
            inverse(both(given_up, Sure.YES)),
        )

    def _may_owe(self, since: float, least_s: float) -> bool:
        """Return whether for so long the client's words were the last ones, at any time since."""
        up = [at for at, count in self._relayed.right.written or () if count > self._header]
        moved = sorted({*up, *self._down})
        until = dict(itertools.pairwise([*moved, self._now]))
        return any(until[at] - at >= least_s and until[at] >= since for at in up)

    def _moved_near(self, moment: float, near_s: float) -> bool:
        """Return whether bytes were written at about that time."""
        written = (at for at, _ in self._relayed.right.written or ())
        return any(abs(at - moment) <= near_s for at in (*self._down, *written))

    def _codes(
        self, reset: Sure, empty: Sure, given_up: Sure, has_answer: Sure
    ) -> frozenset[CauseCode | None]:
        codes: set[CauseCode | None] = set()
        unanswered = inverse(has_answer)
        if both(reset, unanswered) is not Sure.NO:
            codes.add(CauseCode.ENDPOINT_RESETS)
            if self.asked_at is None or self._may_have_hung():
                codes.add(CauseCode.ENDPOINT_SENDS_NOTHING)
        if empty is not Sure.NO:
            codes.add(CauseCode.ENDPOINT_RESETS)
        if given_up is not Sure.NO:
            codes.add(CauseCode.ENDPOINT_SENDS_NOTHING)
            if has_answer is not Sure.NO:
                codes.add(CauseCode.ENDPOINT_ANSWERS_LATE)
        if any_of(both(reset, unanswered), empty, given_up) is not Sure.YES:
            codes.add(None)
        return frozenset(codes)
