"""What happened on a node: events, the newest of which the page shows.

Rule 1: an event is one sentence about one moment. One that lasts, such as an endpoint that refuses
connections, is the same event until it ends; what it counts grows meanwhile.
Rule 2: a problem of the node is worded by ``problems``; its end is an event, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..diagnosis.problems import STARTING, problems_of_node
from ..facts import Level, Problem, StatusFacts
from ..facts.units import plural


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    at: float
    """Unix time."""
    level: Level
    what: str
    """One sentence without a full stop."""
    port: str = ""
    """The name of the Service port that it is about; empty for the node."""
    saved: int = 0
    """Connections of the Service port that were saved meanwhile."""
    lasts: bool = False

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.what}; {plural(self.saved, 'connection')} saved" if self.saved else self.what


def compare_views(before: StatusFacts, after: StatusFacts, now: float) -> Iterator[Event]:
    """Yield what happened to the node between two views, the later at this Unix time."""
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
    """Return the problems of the node by their kinds."""
    return {one.kind: one for one in problems_of_node(view, now)}
