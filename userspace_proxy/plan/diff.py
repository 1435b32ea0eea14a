"""The changes from one plan to another, in the order in which they are applied.

open   ▶ listeners of new Service ports   (before any rule points to them)
update ▶ endpoints, affinity, frontends   (a value in the data plane; sockets follow)
…the agent steers here, all frontends in one transaction…
close  ▶ listeners of removed ones        (after no rule points to them)
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cluster import differing_keys
from ..model import FrontendKind
from .plan import Plan, PortKey, PortPlan


@dataclass(frozen=True, slots=True)
class PlanChanges:
    """The differences between two plans; each tuple is sorted by key."""

    open: tuple[PortPlan, ...]
    update: tuple[PortPlan, ...]
    """Same key and protocol, but other frontends, endpoints or affinity."""
    close: tuple[PortKey, ...]

    def __bool__(self) -> bool:
        return bool(self.open or self.update or self.close)


def diff_plans(have: Plan, want: Plan) -> PlanChanges:
    """Compare the plan in force with the wanted one.

    A Service that is deleted and created again between two plans keeps its proxy port and its
    connections, as it has the same key. A port whose protocol changes is in both ``close`` and
    ``open``, because it needs another socket.
    """
    opened: list[PortPlan] = []
    updated: list[PortPlan] = []
    closed: list[PortKey] = []
    for key in sorted(differing_keys(have.ports, want.ports)):
        old, new = have.ports.get(key), want.ports.get(key)
        if old is not None and new is not None and old.protocol is new.protocol:
            if old != new or _kinds(old) != _kinds(new):
                updated.append(new)
            continue
        if old is not None:
            closed.append(key)
        if new is not None:
            opened.append(new)
    return PlanChanges(open=tuple(opened), update=tuple(updated), close=tuple(closed))


def _kinds(port: PortPlan) -> list[FrontendKind]:
    """Return the kinds, which the comparison of frontends ignores and the page shows."""
    return [frontend.kind for frontend in port.frontends]
