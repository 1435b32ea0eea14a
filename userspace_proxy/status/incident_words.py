"""Formats an incident for the terminal and the page.

10.244.0.9:8080 refuses connections: 35 Services, since 14:02
seen 412 times, last 2 s ago; 12 clients got no answer in the last minute; 3 wait
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..causes.cause import Cause
from ..causes.say import Form, say
from ..facts import IncidentFacts
from ..facts.units import format_times, plural

# From this age on, the date is shown, because a time of day could be yesterday's.
_DAY_S = 12 * 3600.0
MAY_LOSE = "may lose packets to other programs' rules"
"""The end of a clause about Service ports with a ``doubt``, after their number."""


def time_of_day(at: float) -> str:
    """Return a Unix time as the local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def cause_of(incident: IncidentFacts) -> Cause:
    """Return the cause of an incident; every incident that this version reports has one."""
    assert incident.cause is not None
    return incident.cause


def since(incident: IncidentFacts, now: float) -> str:
    """Return "since" and the local time when an incident began; empty if that is unknown."""
    at = cause_of(incident).first_at
    form = "%H:%M" if now - at < _DAY_S else "%d %b %H:%M"
    return f"since {time.strftime(form, time.localtime(at))}" if at else ""


def headline(incident: IncidentFacts, now: float) -> str:
    """Return an incident in one line: the cause, its effect, and when it began."""
    # The cause isn't capitalised, because many causes begin with a name.
    what = say(cause_of(incident), Form.SHORT)
    return f"{what}: {', '.join(filter(None, (incident.affected, since(incident, now))))}"


def client_effects(incident: IncidentFacts, now: float) -> Iterator[str]:
    """Yield the effects on clients as clauses; nothing if nothing was counted."""
    cause = cause_of(incident)
    if times := format_times(cause.count, cause.last_at, now):
        yield f"seen {times.strip(' ()')}"
    if incident.last_minute:
        yield f"{plural(incident.last_minute, 'client')} got no answer in the last minute"
    if incident.waiting:
        verb = "waits" if incident.waiting == 1 else "wait"
        yield f"{plural(incident.waiting, 'client')} {verb} for an endpoint"


def names_in_line(incident: IncidentFacts, columns: int) -> str:
    """Return as many names of affected Services as fit, at least one, and the number of others."""
    first, *others = incident.services
    shown = first
    for count, name in enumerate(others):
        more = f" and {len(others) - count:,} more"
        wider = f"{shown}, {name}"
        # Unless this is the last name, leave room for the number of others.
        if len(wider) + (len(more) if count + 1 < len(others) else 0) > columns:
            return f"{shown}{more}"
        shown = wider
    return shown
