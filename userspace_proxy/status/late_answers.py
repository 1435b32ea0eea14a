"""Words how many clients of the last minute were answered late, where others were at once.

UDP   "38 of 39 flows got their answer after more than 2 s", "… got no answer within 2 s"
TCP   "4 of 28 connections were saved late": an endpoint that is silent was tried first
"""

from __future__ import annotations

from ..facts import PortFacts
from ..policy.endpoint_causes import UNANSWERED_FLOW_S
from .lately import (
    SILENT_SHARE,
    are_many,
    are_mostly_late,
    are_refused_or_mute,
    because_of,
    many_failed,
)
from .units import plural


def many_unanswered(port: PortFacts, in_a_row: int = 0) -> str:
    """Return how many UDP flows got no answer, or a late one, where others did; empty if few.

    Args:
        in_a_row: Flows that its failing endpoints haven't answered since the last answer. If these
            are all, it doesn't answer now.
    """
    lately = port.lately
    counts = {
        f"got no answer within {UNANSWERED_FLOW_S} s": lately.unanswered,
        f"got their answer after more than {UNANSWERED_FLOW_S} s": lately.late,
    }
    what = max(counts, key=lambda what: counts[what])
    if port.protocol != "UDP" or port.is_without_answer or counts[what] <= in_a_row:
        return ""
    is_mute = are_refused_or_mute(lately) and counts[what] == lately.unanswered
    if is_mute and (failed := many_failed(port)):
        return failed
    # One that has ended may have begun more than a minute ago.
    total = max(lately.connections, counts[what])
    if not are_many(lately, counts[what], total, SILENT_SHARE):
        return ""
    of, why = plural(total, "flow"), because_of(lately)
    return f"{counts[what]:,} of {of} {what} in the last minute{why}"


def many_saved_late(port: PortFacts) -> str:
    """Return how many connections were saved after a wait, and why; empty if they are few."""
    lately = port.lately
    if port.protocol == "UDP" or not are_many(
        lately, lately.late, lately.connections, SILENT_SHARE
    ):
        return ""
    of = plural(lately.connections, "connection")
    why = because_of(lately, "from") if are_mostly_late(lately) else ""
    return f"{lately.late:,} of {of} were saved late in the last minute{why}"
