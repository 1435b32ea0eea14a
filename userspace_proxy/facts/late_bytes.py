"""Notes first bytes that come after their clients have left, and whether the end brought them.

    request ──2.5 s──▶ the client's end ──3 ms──▶ first byte      2.5 s, at the end
    request ──1.0 s──▶ the client's end ──1.5 s──▶ first byte     2.5 s

Rule 1: the time of a failure is that of the client's end, whenever the byte comes.
Rule 2: only the order is known, not the reason. A slow endpoint answers at any time after the end;
one that waits for the end of its input answers right after it, each time.
"""

from __future__ import annotations

from ..model import Failure
from .counters import Blamed
from .streak import LateByte

AT_END_S = 0.1
"""Between a client's end and the first byte that it brings: a round trip, and what a busy node
takes to run the program; a slow answer rarely comes that soon, and not each time."""


def note_late(
    counters: Blamed, now: float, waited_s: float, left_s: float, *, is_counted: bool
) -> None:
    """Note a first byte that comes after its client has given up; it may still arrive.

    Args:
        waited_s: How long the byte took.
        left_s: Seconds since the client's end.
        is_counted: The connection has been noted as one without an answer.
    """
    ends = counters.ends
    was_slow = ends.is_on and ends.late is not None and not ends.late.is_at_end
    late = LateByte(waited_s, is_at_end=left_s < AT_END_S and not was_slow)
    if is_counted:
        ends.still_fails(ends.last_at, Failure.UNANSWERED, late=late)
    else:
        counters.left += 1
        ends.failed(now - left_s, Failure.UNANSWERED, late=late)


def note_arrived(counters: Blamed, now: float) -> None:
    """Note that such a byte has reached the client, which had ended only its own side."""
    counters.left -= 1
    counters.ends.succeeded_at = now
