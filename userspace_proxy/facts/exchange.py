"""Judges the ends of connections: what each one is counted as, and the code of its record.

    asked ─┬─▶ first byte ───────────────▶ answered ─┬─▶ both ends, or a further answer is owed
           │                                  ▲      └─▶ RST of the endpoint, or packets lost: cut
           ├─▶ the client gives up ──byte──▶ late, until the client acknowledges it
           └─▶ FIN or RST of the endpoint: unanswered

Rule 1: a client that gives up has sent something, and nothing more for a second, or for less if the
endpoint has answered others: one that sends and leaves at once wants no answer (syslog, graphite),
nor does one that sends again without an answer.
Rule 2: an answer is owed if the last words were the client's, and it had waited, or the endpoint
ended the connection.
Rule 3: a FIN doesn't show whether the client still reads, so a late byte may arrive. The time of
the failure is that of the client's end, whenever the byte comes.
Rule 4: of a late byte only the order is known, not the reason. A slow endpoint answers at any time
after the end; one that waits for the end of its input answers right after it, each time.
"""

from __future__ import annotations

from typing import NamedTuple

from ..causes.cause import CauseCode
from ..causes.endpoints import UNANSWERED_S, end_code
from ..model import Failure
from ..model.connection_ends import EndedBy, EndReason
from ..model.failures import LEFT
from .counters import AbortCounters, EndpointCounters
from .streak import LateByte

_WAITED_S = 0.9
"""Clients that wait for a second have begun to count before the endpoint answered."""
PATIENCE_S = 0.3
"""Before a client leaves that has waited for an endpoint that has answered others."""
_AWAITED_S = 0.1
"""Where a byte comes after all, it was wanted, unless the client left as soon as it had sent."""
OWED_AFTER_S = {True: _WAITED_S, False: _AWAITED_S}
"""How long the client's last words go unanswered until that counts: if it ends first, or not."""
_FULL_S = 3.0
"""An endpoint that resets what it has not read for so long has hung: its client may have left
meanwhile, and the end of that waits behind what isn't read."""
AT_END_S = 0.1
"""Between a client's end and the first byte that it brings: a round trip, and what a busy node
takes to run the program; a slow answer rarely comes that soon, and not each time."""
# Before Python 3.12 an enum's member costs a call.
LATE, LOST = CauseCode.ENDPOINT_ANSWERS_LATE, CauseCode.PACKETS_LOST
_CLIENT = EndedBy.CLIENT


class EndFacts(NamedTuple):
    """What is known as a side ends a connection; what doesn't matter to that end is left out."""

    by: EndedBy
    is_reset: bool = False
    """The endpoint's end is a RST."""
    had_end: bool = False
    """The endpoint had sent its FIN before that."""
    has_asked: bool = False
    has_answer: bool = False
    """A byte of the endpoint has come."""
    lasted_s: float = 0.0
    """Since the endpoint answered the dial."""
    asked_s: float = 0.0
    """Since then, or since the client's first byte if that came later."""
    silent_s: float = 0.0
    """Since the client's last byte."""
    left_s: float = 0.0
    """Since the client's FIN; 0 without one."""
    is_full: bool = False
    """The endpoint has no room for more of the client's bytes."""
    answers_others: bool = False
    """The endpoint has answered other connections: the protocol has answers."""
    lost: Failure | None = None
    """Which packets were lost."""


def classify(end: EndFacts) -> Failure | None:
    """Return what a connection has failed by; None if its end is no failure."""
    if end.by is _CLIENT:
        if not end.has_answer:
            return (end.lost or Failure.UNANSWERED) if has_given_up(end) else None
        return end.lost
    if end.is_reset:
        is_hung = not end.has_answer and end.is_full and end.asked_s >= _FULL_S
        failure = Failure.UNANSWERED if is_hung else Failure.RESET
        return None if end.has_answer and end.had_end else failure
    # Later it ends what idles: clients connect beforehand, and may send nothing.
    is_due = end.has_asked or end.lasted_s < UNANSWERED_S
    return Failure.CLOSED if is_due and not end.has_answer else None


def has_given_up(end: EndFacts) -> bool:
    """Return whether a client that has left had waited for the first byte."""
    if end.asked_s < PATIENCE_S or end.asked_s - end.silent_s >= _WAITED_S:
        return False
    silent_s = min(end.silent_s, end.asked_s)
    return silent_s >= _WAITED_S or (end.answers_others and silent_s - end.left_s >= PATIENCE_S)


class Exchange:
    """What a client and the endpoint that has answered its dial have exchanged, and how it ended.

    Args:
        counters: The endpoint's.
        abort_counters: What counts a client that leaves before an answer.
        client: Its IP address.
        now: When the endpoint answered the dial, monotonic seconds.
    """

    __slots__ = (
        "_abort_counters", "_client", "answered_at", "asked_at", "code", "counters", "first_byte_s",
        "has_unanswered_request", "is_failed", "reset_as",
    )  # fmt: skip

    def __init__(
        self, counters: EndpointCounters, abort_counters: AbortCounters, client: str, now: float
    ) -> None:
        self.counters = counters
        self._abort_counters = abort_counters
        self._client = client
        self.answered_at = self.asked_at = now
        """When the endpoint answered the dial, and when the client first sent something since."""
        self.first_byte_s: float | None = None
        """How long the endpoint took for its first byte since then; None before it."""
        self.code: CauseCode | None = None
        """Why the client got no answer, or not all of it; None if nothing shows that. A late byte
        may still reach it."""
        self.is_failed = False
        """It is counted among those whose clients got no answer."""
        self.has_unanswered_request = False
        """A further answer was due as the first side ended."""
        self.reset_as: tuple[EndReason, EndedBy] | None = None
        """Cause and side of a reset that may have to wait; None if connections aren't logged."""

    def note_first_byte(self, now: float, left: EndFacts | None) -> float:
        """Note the endpoint's first byte, and return how long it took.

        Args:
            left: Of a client that has ended its side; None: it hasn't.
        """
        waited_s = self.first_byte_s = now - self.asked_at
        # A client that was noted may have ended its side at once, and wait: its end will show.
        if left and (self.code or left.silent_s - left.left_s >= _AWAITED_S):
            self._note_late(now, waited_s, left.left_s)
            return waited_s
        counters = self.counters
        self.code, counters.ends.succeeded_at = None, now
        if counters.exclusions.clients:
            counters.exclusions.answered(self._client, now)
        return waited_s

    def _note_late(self, now: float, waited_s: float, left_s: float) -> None:
        """Note a first byte that comes after its client has given up; it may still arrive."""
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
        """Note that a late byte has reached the client, which had ended only its own side."""
        self.code, self.is_failed = None, False
        self._abort_counters.client_aborts -= 1
        self._abort_counters.ends.succeeded_at = now

    def note_end(self, end: EndFacts, now: float) -> None:
        """Count an end, if it is a failure."""
        failure, is_left, counters = classify(end), end.by is _CLIENT, self.counters
        if failure is None:
            return
        self.is_failed = not (is_left and end.has_answer)
        # That of a hung endpoint is counted below, as a client that left it.
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

    def note_ended(self, is_stalled: bool) -> None:
        counters = self.counters
        counters.active -= 1
        if self.has_unanswered_request and not self.code:
            counters.unanswered_requests += 1
        if is_stalled:
            counters.stalled -= 1
