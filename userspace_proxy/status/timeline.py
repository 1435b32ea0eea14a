"""Derives the events of a node; the page shows the newest.

Rule 1: an event is one sentence about one moment. A lasting condition, such as an endpoint that
refuses connections, is one event until it is over, while its counts grow.
Rule 2: the effect of one endpoint on several Service ports is one event, if it began at about the
same time on each, or lasts.
Rule 3: ``problems`` formats the problems of the node; the end of a problem is also an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..diagnosis.problems import STARTING, problems_of_node
from ..facts import Level, Problem, StatusFacts
from ..facts.units import plural

# Events of several Service ports within this time count as one: a common cause affects the clients
# and probes of one port after another.
_TOGETHER_S = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the node or of a Service port."""

    at: float
    """Unix time of the event."""
    level: Level
    what: str
    """What happened, as a sentence without a full stop."""
    port: str = ""
    """The Service port's name; empty for an event of the node."""
    saved: int = 0
    """Connections of the Service port that were saved during the event."""
    lasts: bool = False
    cause: object = None
    """The cause that Service ports share, compared by value; None if the event has its own
    cause."""

    @property
    def text(self) -> str:
        return f"{self.what}; {plural(self.saved, 'connection')} saved" if self.saved else self.what


def joined(events: Iterable[Event]) -> Sequence[Event]:
    """Merge Service ports' events with the same cause; return all events, the newest first."""
    groups: list[dict[str, Event]] = []
    open_: dict[object, dict[str, Event]] = {}
    """The last group of events for each cause, by Service port."""
    for event in sorted(events, key=lambda event: event.at, reverse=True):
        key = event.cause, event.lasts
        group = {} if event.cause is None else open_.get(key, {})
        newest = next(iter(group.values()), event)
        is_late = newest.at - event.at > _TOGETHER_S
        if not group or event.port in group or (is_late and not event.lasts):
            open_[key] = group = {}
            groups.append(group)
        group[event.port] = event
    made = [_one_of(list(group.values())) for group in groups]
    return sorted(made, key=lambda event: event.at, reverse=True)


def _one_of(group: Sequence[Event]) -> Event:
    """Merge a group of Service ports' events into one event with the time of the oldest event."""
    if len(group) == 1:
        return group[0]
    what = f"{group[-1].what}: {plural(len(group), 'Service port')}"
    return replace(group[-1], what=what, port="", saved=sum(event.saved for event in group))


def compare_views(before: StatusFacts, after: StatusFacts, now: float) -> Iterator[Event]:
    """Yield the node's events between two views; ``now`` is the Unix time of the later view."""
    was, is_now = _problems(before, now), _problems(after, now)
    for key in is_now.keys() - was.keys():
        yield Event(now, is_now[key].level, is_now[key].what)
    for key in was.keys() - is_now.keys():
        what = "Started" if key == STARTING else f"Resolved: {was[key].what}"
        yield Event(now, Level.OK, what)
    known = {worker.index: worker for worker in before.workers}
    for worker in after.workers:
        then = known.get(worker.index, worker)
        if worker.restarts > then.restarts:
            how = "hung and was replaced" if worker.hung > then.hung else "died and was replaced"
            what = f"Worker {worker.index} {how}: its open connections were reset"
            yield Event(now, Level.TROUBLE, what)
    if (repairs := after.steering.repairs - before.steering.repairs) > 0:
        what = plural(repairs, "rule or frontend", "rules and frontends")
        changed = f"{what} of {after.steering.name} steering had been changed by another program"
        yield Event(now, Level.ATTENTION, f"{changed}, and repaired")


def _problems(view: StatusFacts, now: float) -> dict[str, Problem]:
    return {one.kind: one for one in problems_of_node(view, now)}
