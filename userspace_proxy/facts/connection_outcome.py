"""Classifies the ends of connections: which counter to increment, and the code of the record.

    asked ─┬─▶ first byte ───────────────▶ answered ─┬─▶ both ends, or a further answer is owed
           │                                  ▲      └─▶ RST of the endpoint, or packets lost: cut
           ├─▶ the client gives up ──byte──▶ late, until the client acknowledges it
           └─▶ FIN or RST of the endpoint: unanswered

Rule 1: a client has given up if it sent something and was then silent for a second, or for less
time if the endpoint has answered other connections. A client that sends and leaves immediately
needs no answer (syslog, graphite), nor does a client that keeps sending without an answer.
Rule 2: an answer is owed if the client sent the last bytes, and either waited or saw the endpoint
end the connection.
Rule 3: a FIN doesn't show whether the client still reads, so a late byte may still reach it. The
failure is dated when the client closed its side, not when the late byte arrived.
Rule 4: the order of a FIN and a late byte doesn't show the reason. A slow endpoint answers at any
time after the client's FIN; an endpoint that waits for the end of its input always answers right
after the FIN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..causes.cause import CauseCode
from ..causes.endpoints import UNANSWERED_S, end_code
from ..model import Failure
from ..model.connection_ends import EndedBy, EndReason
from ..model.failures import LEFT
from .counters import AbortCounters, EndpointCounters
from .streak import LateByte

_WAITED_S = 0.9
"""How long a client with a timeout of 1 s waits after the endpoint's answer to the dial."""
PATIENCE_S = 0.3
"""The minimum wait of a client that gives up, if the endpoint has answered other clients."""
_AWAITED_S = 0.1
"""The minimum silence before a FIN if the client awaited an answer."""
OWED_AFTER_S = {True: _WAITED_S, False: _AWAITED_S}
"""How long the client's last bytes must be unanswered at the end to count, by whether the client
ends the connection."""
_FULL_S = 3.0
"""If an endpoint resets a connection with data that it hasn't read for this long, it was hung. Its
client may have left before the reset: the client's FIN waits behind the unread data."""
AT_END_S = 0.1
"""The maximum time between a client's FIN and the first byte that the FIN triggers: a round trip,
and a busy node's scheduling delay. A slow answer rarely arrives that soon, and not every time."""
# Before Python 3.12, each access to an enum member calls a function, so keep the members here.
LATE, LOST = CauseCode.ENDPOINT_ANSWERS_LATE, CauseCode.PACKETS_LOST
_CLIENT = EndedBy.CLIENT


class EndFacts(NamedTuple):
    """The facts at the moment a side ends a connection; irrelevant facts keep their defaults."""

    by: EndedBy
    is_reset: bool = False
    """Whether the endpoint ended the connection with a RST."""
    had_end: bool = False
    """Whether the endpoint had sent its FIN before the RST."""
    has_asked: bool = False
    has_answer: bool = False
    """Whether the endpoint has sent a byte."""
    lasted_s: float = 0.0
    """Seconds since the endpoint answered the dial."""
    asked_s: float = 0.0
    """Seconds since the endpoint's answer or the client's first byte, whichever came later."""
    silent_s: float = 0.0
    """Seconds since the client's last byte."""
    left_s: float = 0.0
    """Seconds since the client's FIN; 0 if there was none."""
    is_full: bool = False
    """Whether the endpoint's receive window is full."""
    answers_others: bool = False
    """Whether the endpoint has answered other connections, so that its protocol has answers."""
    lost: Failure | None = None
    """Which packets were lost, a member of ``LOSSES``; None if no packets were lost."""


def classify(end: EndFacts) -> Failure | None:
    """Return why a connection failed; None if it ended without a failure."""
    if end.by is _CLIENT:
        if not end.has_answer:
            return (end.lost or Failure.UNANSWERED) if has_given_up(end) else None
        return end.lost
    if end.is_reset:
        is_hung = not end.has_answer and end.is_full and end.asked_s >= _FULL_S
        failure = Failure.UNANSWERED if is_hung else Failure.RESET
        return None if end.has_answer and end.had_end else failure
    # Without a request, a later close ends an idle connection: clients may connect in advance.
    is_due = end.has_asked or end.lasted_s < UNANSWERED_S
    return Failure.CLOSED if is_due and not end.has_answer else None


def has_given_up(end: EndFacts) -> bool:
    """Return whether a client that left had waited for the first byte."""
    if end.asked_s < PATIENCE_S or end.asked_s - end.silent_s >= _WAITED_S:
        return False
    silent_s = min(end.silent_s, end.asked_s)
    return silent_s >= _WAITED_S or (end.answers_others and silent_s - end.left_s >= PATIENCE_S)


class ConnectionOutcome:
    """The exchange between a client and the endpoint that answered its dial, and its end.

    Args:
        counters: The endpoint's counters.
        abort_counters: Counters for a client that leaves before an answer.
        client: The client's IP address.
        now: The time at which the endpoint answered the dial, in monotonic seconds.
    """

    __slots__ = (
        "_abort_counters", "_client", "_is_left_open", "_is_owed", "answered_at", "asked_at",
        "code", "counters", "first_byte_s", "has_unanswered_request", "is_failed", "reset_as",
    )  # fmt: skip

    def __init__(
        self, counters: EndpointCounters, abort_counters: AbortCounters, client: str, now: float
    ) -> None:
        self.counters = counters
        self._abort_counters = abort_counters
        self._client = client
        self.answered_at = self.asked_at = now
        """Monotonic seconds of the endpoint's answer to the dial, and of the client's first byte
        after that; equal before that byte."""
        self.first_byte_s: float | None = None
        """Seconds from ``asked_at`` to the endpoint's first byte; None before that byte."""
        self.code: CauseCode | None = None
        """Why the client got no answer, or only part of it; None if no failure is visible. A late
        byte may still reach the client."""
        self.is_failed = False
        """Whether the connection counts as failed: without an answer, or reset by the endpoint."""
        self.has_unanswered_request = False
        """Whether another answer was due when the first side ended."""
        self._is_owed = self._is_left_open = False
        self.reset_as: tuple[EndReason, EndedBy] | None = None
        """Cause and side of a reset that may be delayed; None if connections aren't logged."""

    def note_first_byte(self, now: float, left: EndFacts | None) -> float:
        """Record the endpoint's first byte, and return its delay in seconds.

        Args:
            left: The facts when the client closed its side; None if it hasn't.
        """
        waited_s = self.first_byte_s = now - self.asked_at
        # A client may half-close at once and still wait for the answer; the end of the connection
        # shows whether it did.
        if left and (self.code or left.silent_s - left.left_s >= _AWAITED_S):
            self._note_late(now, waited_s, left.left_s)
            return waited_s
        counters = self.counters
        self.code, counters.ends.succeeded_at = None, now
        if counters.exclusions.clients:
            counters.exclusions.answered(self._client, now)
        return waited_s

    def _note_late(self, now: float, waited_s: float, left_s: float) -> None:
        """Record a first byte that came after the client gave up; it may still reach the client."""
        ends = self._abort_counters.ends
        was_slow = ends.is_on and ends.part.late is not None and not ends.part.late.is_at_end
        late = LateByte(waited_s, is_at_end=left_s < AT_END_S and not was_slow)
        if self.code:
            ends.still_fails(ends.part.last_at, Failure.UNANSWERED, late=late)
        else:
            self.is_failed = True
            self._abort_counters.client_aborts += 1
            ends.failed(now - left_s, Failure.UNANSWERED, late=late)
        self.code = LATE

    def note_arrived(self, now: float) -> None:
        """Record that a late byte reached the client, which had only closed its own side."""
        self.code, self.is_failed = None, False
        self._abort_counters.client_aborts -= 1
        self._abort_counters.ends.succeeded_at = now

    def note_end(self, end: EndFacts, now: float) -> None:
        """Count the end of a connection if it is a failure."""
        failure, is_left, counters = classify(end), end.by is _CLIENT, self.counters
        if failure is None:
            return
        self.is_failed = not (is_left and end.has_answer)
        # A hung endpoint is counted below, like a client that left.
        if not is_left and failure not in LEFT:
            if end.is_reset:
                counters.resets += 1
            else:
                counters.empty += 1
        if end.has_answer and not is_left:
            counters.was_cut(now, failure)
            return
        self.code = end_code(failure)
        if end.has_answer:
            counters.was_cut(now, failure, self._client)
        else:
            abort_counters = self._abort_counters if is_left else counters
            abort_counters.ended_unanswered(now - end.left_s, failure, self._client)

    def note_closed_after_client(self, now: float, has_answers: Callable[[], bool]) -> None:
        """Count a connection closed unanswered after the client's FIN, if many in a row were.

        Args:
            has_answers: Returns whether the Service port's protocol has answers.
        """
        if not self.code and self.counters.ended_after_client() and has_answers():
            self.code, self.is_failed = end_code(Failure.CLOSED), True
            self.counters.ended_unanswered(now, Failure.CLOSED, self._client)

    def note_owed(self) -> None:
        """Count the answer that was due when the first side ended, if any. Idempotent.

        The second side may not end before the client's kernel has forgotten the connection.
        """
        if self.has_unanswered_request and not (self._is_owed or self.code):
            self._is_owed = True
            self.counters.unanswered_requests += 1

    def note_left_open(self) -> None:
        """Count a due answer of an endpoint that hasn't ended its side either. Idempotent."""
        if not (self._is_left_open or self.code):
            self._is_left_open = self.has_unanswered_request = True
            self.counters.left_open += 1
            self.note_owed()

    def note_ended(self, is_stalled: bool) -> None:
        counters = self.counters
        counters.active -= 1
        self.note_owed()
        if is_stalled:
            counters.stalled -= 1
