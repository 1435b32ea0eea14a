"""Words how many clients of the last minute were answered late, where others were at once.

UDP   "38 of 39 flows were answered only after more than 2 s", "… got no answer within 2 s"
      "2 of 4 open flows get no answer any more": they had one for a while
TCP   "4 of 28 connections were saved late": an endpoint that is silent was tried first
      "… ended without an answer to the client's last words": to others before, they had one
"""

from __future__ import annotations

from ..facts import PortFacts
from ..facts.units import plural
from ..policy.endpoint_causes import UNANSWERED_FLOW_S
from .lately import (
    SILENT_SHARE,
    are_many,
    are_mostly_late,
    are_refused_or_unanswered,
    because_of,
    many_failed,
)


def many_unanswered(port: PortFacts, in_a_row: int = 0) -> str:
    """Return how many UDP flows got no answer, or a late one, where others did; empty if few.

    Args:
        in_a_row: Flows that its failing endpoints haven't answered since the last answer. If these
            are all, it doesn't answer now.
    """
    lately, open_ = port.lately, port.active
    if port.mute > in_a_row and (port.mute == open_ or _are_many(port, port.mute, open_)):
        return _mute_in_words(port)
    counts = {
        f"got no answer within {UNANSWERED_FLOW_S} s": lately.unanswered,
        f"were answered only after more than {UNANSWERED_FLOW_S} s": lately.late,
    }
    what = max(counts, key=lambda what: counts[what])
    if port.protocol != "UDP" or port.is_without_answer or counts[what] <= in_a_row:
        return ""
    is_mute = are_refused_or_unanswered(lately) and counts[what] == lately.unanswered
    if is_mute and (failed := many_failed(port)):
        return failed
    many = _many(port, counts[what], "flow")
    return many and f"{many} {what} in the last minute{because_of(lately)}"


def many_saved_late(port: PortFacts) -> str:
    """Return how many connections were saved after a wait, and why; empty if they are few."""
    if port.protocol == "UDP" or not (many := _many(port, port.lately.late, "connection")):
        return ""
    why = because_of(port.lately, "from") if are_mostly_late(port.lately) else ""
    return f"{many} were saved late in the last minute{why}"


_MUTE_REMEDY = (
    "Read the log of the program: it may hang, or have begun anew and not know these clients, who "
    "have to begin anew, too; or its host has gone, or a firewall or route drops packets since"
)
_IDLE_REMEDY = (
    "Raise --conntrack-tcp-timeout-established above the longest pause of the clients, or let them "
    "send keep-alives of their protocol more often"
)


def remedy_for_open(port: PortFacts) -> str:
    """Return what to do about connections that were open, and of which the sentence tells."""
    if many_unanswered(port):
        return _MUTE_REMEDY if port.mute else ""
    return _IDLE_REMEDY if many_idle(port) else ""


def many_idle(port: PortFacts) -> str:
    """Return how many connections this proxy ended as they were idle; empty if they are few."""
    many = _many(port, port.lately.idle, "connection")
    how = "in the last minute, idle for as long as --conntrack-tcp-timeout-established allows"
    return many and f"this proxy ended {many} {how}"


def many_owed(port: PortFacts) -> str:
    """Return how many connections ended after an answer, without one to the client's last words.

    Empty if they are few.
    """
    lately = port.lately
    many = _many(port, lately.owed, "connection")
    why = because_of(lately) if lately.owed > lately.most else ""
    what = "ended without an answer to the client's last words in the last minute"
    return many and f"{many} {what}{why}"


def _many(port: PortFacts, count: int, noun: str) -> str:
    """Return ``3 of 12 connections``, of those of the last minute; empty if they are few."""
    # One that has ended may have begun more than a minute ago.
    total = max(port.lately.connections, count)
    return f"{count:,} of {plural(total, noun)}" if _are_many(port, count, total) else ""


def _are_many(port: PortFacts, count: int, total: int) -> bool:
    return are_many(port.lately, count, total, SILENT_SHARE)


def _mute_in_words(port: PortFacts) -> str:
    """Return how many open connections (flows) get no answer any more, and of which endpoint."""
    noun = "open flow" if port.protocol == "UDP" else "open connection"
    at = [endpoint for endpoint in port.endpoints if endpoint.mute]
    by = at[0].address if len(at) == 1 else plural(len(at), "endpoint")
    if port.mute > sum(endpoint.mute for endpoint in at):
        by = "endpoints that aren't used any more" if not at else f"{by} and former ones"
    verb = "gets" if port.mute == 1 else "get"
    return f"{port.mute:,} of {plural(port.active, noun)} {verb} no answer any more from {by}"
