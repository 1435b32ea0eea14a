"""Records events: endpoints fail and recover, Services lose their endpoints, problems appear.

    plane ──ejected, returned──┐
    sync loop ──plan changes───┼──▶ Timeline ──▶ the newest events, for the page
    view, once a second ───────┘

Rule 1: the cost doesn't depend on the number of Services: only changes are examined.
Rule 2: events and outages are bounded in number; many changes of one round become one event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...causes.cause import Cause
from ...causes.say import say
from ...diagnosis.failures import failure_of
from ...facts import Level, StatusFacts
from ...facts.units import format_seconds, plural
from ...model import DataPath, PortKey, SocketAddress
from ...model.serving import Serving
from ...plan import Plan, PlanChanges, PortPlan
from ...plane import Group, Plane
from ...plane.group import keys_of_removed
from ...status.timeline import Event, compare_views, joined
from ..rounds.served_port import ServedPort
from ..rounds.tasks import pause
from ..rounds.wall_clock import WallClock

# The maximum number of stored events: several times the number shown, because events that many
# Service ports share are shown as one event.
KEPT = 500
# The maximum number of events for one kind of change in a round; more become one event.
_EACH = 5
_PERIOD_S = 1.0
# The maximum number of outages that are tracked individually: checking them takes milliseconds.
OUTAGES_MAX = 1_000
# The maximum number of requests for the cause of an outage; a dead worker never answers.
_ASKED_MAX = 3


@dataclass(slots=True, eq=False)
class _Outage:
    """An endpoint's outage, from its ejection to its next answer."""

    at: float
    group: Group
    endpoint: SocketAddress
    saved_before: int
    serving: Serving | None = None
    """The last ``Serving`` that contained the endpoint."""
    cause: Cause | None = None
    """The cause as in the state of the Service port; None until workers report it."""
    asked: int = 0
    """The number of requests to workers for the cause."""
    returned_at: float = 0.0
    saved: int | None = None
    """The number of connections saved during the outage; None while it lasts."""
    is_on_purpose: bool = False
    """Whether the failure was injected."""

    def event(self) -> Event:
        lasts = self.saved is None
        saved = self.group.counters.saved - self.saved_before if self.saved is None else self.saved
        level = Level.TROUBLE if lasts and not self.is_on_purpose else Level.ATTENTION
        what = f"{self.endpoint} fails" if self.cause is None else say(self.cause)
        what += " (a fault on purpose)" if self.is_on_purpose else ""
        key = self.endpoint if self.cause is None else self.cause.shared
        return Event(self.at, level, f"{what}; ejected", self.group.label, saved, lasts, key)


class Timeline:
    """The newest events of one proxy.

    Args:
        plane: Reports when endpoints are ejected, and when they recover.
        view: Returns the facts about the proxy, without its Service ports.
        clocks: The node's clocks; None: the real clocks.
    """

    def __init__(
        self,
        plane: Plane,
        view: Callable[[], StatusFacts],
        clocks: WallClock | None = None,
    ) -> None:
        self._plane = plane
        self._view = view
        self._clocks = clocks or WallClock()
        self._events: deque[Event | _Outage] = deque(maxlen=KEPT)
        """The events and outages, with monotonic times, because the system's clock may be set."""
        self._outages: dict[tuple[int, SocketAddress], _Outage] = {}
        """The current outages, at most ``OUTAGES_MAX``."""
        self._has_more = False
        """Whether there are untracked outages; true until half of the tracked outages are over."""
        self._left: dict[PortKey, None] = {}
        """Service ports that left the kernel path because of a probe, at most ``OUTAGES_MAX``."""
        self._last = view()
        plane.on_ejection.append(self._note_ejection)

    def events(self) -> Sequence[Event]:
        """Return the events, newest first; events that several Service ports share are joined."""
        events = (one.event() if isinstance(one, _Outage) else one for one in self._events)
        return joined(replace(one, at=self._clocks.unix(one.at)) for one in events)

    def _now(self) -> float:
        self._clocks.tick()
        return self._clocks.now

    def note_plan(self, before: Plan, changes: PlanChanges) -> None:
        """Record which Service ports lost all usable endpoints, or have usable endpoints again."""
        lost: list[PortPlan] = []
        regained: list[PortPlan] = []
        for port in changes.update:
            old = before.ports.get(port.key)
            if old is not None and (old.cause is None) is not (port.cause is None):
                (regained if port.cause is None else lost).append(port)
        self._note_ports(Level.ATTENTION, lost, "lost their last usable endpoint")
        self._note_ports(Level.OK, regained, "have usable endpoints again")

    def note_switches(self, switched: Sequence[ServedPort]) -> None:
        """Record which Service ports take another path because of probes."""
        left = [one for one in switched if one.path.now is DataPath.USERSPACE]
        # Report the return only of ports that left the kernel path because of a failed probe: other
        # ports move to it because their endpoints changed.
        back = [
            one
            for one in switched
            if one.path.now is DataPath.KERNEL and one.plan.key in self._left
        ]
        for one in back:
            del self._left[one.plan.key]
        for one in left[: max(0, OUTAGES_MAX - len(self._left))]:
            self._left[one.plan.key] = None
        self._note_paths(Level.ATTENTION, left, "left the kernel path: a probe failed")
        self._note_paths(Level.OK, back, "are back on the kernel path")

    async def run(self) -> None:
        """Check the node and the outages once a second, until cancelled."""
        while True:
            await pause(_PERIOD_S)
            await self.look()

    async def look(self) -> None:
        """Record changes of the node, and update outages."""
        view = self._view()
        now = self._now()
        news = compare_views(self._last, view, self._clocks.unix(now))
        self._events.extend(replace(one, at=now) for one in news)
        self._last = view
        for key in keys_of_removed(self._outages):
            self._end(self._outages.pop(key))
        if self._must_ask():
            # Workers otherwise report only every few seconds, so request a report now.
            await self._plane.refresh()
        self._clocks.tick()
        for key, outage in list(self._outages.items()):
            self._word(outage)
            if outage.returned_at:
                self._end(outage)
                del self._outages[key]
        self._has_more &= len(self._outages) > OUTAGES_MAX // 2

    def _word(self, outage: _Outage) -> None:
        """Set an outage's cause while the endpoint fails, unless the failure was injected."""
        group, endpoint = outage.group, outage.endpoint
        counters = group.counters_of(endpoint)
        is_over = outage.returned_at and outage.cause is not None
        if counters.dials.is_on and not outage.is_on_purpose and not is_over:
            obstacle = group.obstacle_to(endpoint)
            outage.cause, _ = failure_of(endpoint, counters, self._clocks, obstacle)

    def _must_ask(self) -> bool:
        """Return whether to ask workers for the causes of outages; count how often they were asked.

        They are asked about an outage that has just ended, and at most ``_ASKED_MAX`` times about a
        current outage whose cause is unknown.
        """
        must_ask = False
        for outage in self._outages.values():
            if outage.returned_at:
                must_ask = True
            elif outage.cause is None and outage.asked < _ASKED_MAX:
                outage.asked += 1
                must_ask = True
        return must_ask

    def _note_ejection(self, group: Group, endpoint: SocketAddress, is_ejected: bool) -> None:
        key = group.number, endpoint
        outage = self._outages.get(key)
        if not is_ejected:
            if outage is not None:
                outage.returned_at = self._now()
        elif outage is not None:
            outage.returned_at = 0.0
        elif len(self._outages) >= OUTAGES_MAX:
            if not self._has_more:
                self._has_more = True
                what = (
                    f"More than {OUTAGES_MAX:,} endpoints are ejected; further ones aren't listed"
                )
                self._events.append(Event(self._now(), Level.TROUBLE, what))
        else:
            outage = _Outage(self._now(), group, endpoint, group.counters.saved)
            outage.is_on_purpose = endpoint in dict(group.serving.detours)
            self._outages[key] = outage
            self._events.append(outage)

    def _end(self, outage: _Outage) -> None:
        outage.saved = outage.group.counters.saved - outage.saved_before
        if outage.returned_at:
            took = format_seconds(outage.returned_at - outage.at)
            what = f"{outage.endpoint} answers again, after {took}"
            label = outage.group.label
            at, saved, returned = outage.returned_at, outage.saved, (outage.endpoint, "returned")
            self._events.append(Event(at, Level.OK, what, label, saved, cause=returned))

    def _note_paths(self, level: Level, ports: Sequence[ServedPort], what: str) -> None:
        self._note_each(
            level,
            [(f"Path {port.path.now}: {port.path.why}", port.plan.key) for port in ports],
            what,
        )

    def _note_ports(self, level: Level, ports: Sequence[PortPlan], what: str) -> None:
        self._note_each(level, [(_why_usable(port), port.key) for port in ports], what)

    def _note_each(self, level: Level, texts: Sequence[tuple[str, PortKey]], what: str) -> None:
        """Record an event for each Service port, or a single event if there are many."""
        now = self._now()
        if len(texts) > _EACH:
            self._events.append(Event(now, level, f"{plural(len(texts), 'Service port')} {what}"))
            return
        self._events.extend(Event(now, level, text, str(key)) for text, key in texts)


def _why_usable(port: PortPlan) -> str:
    if port.cause:
        return f"No endpoint is usable: {say(port.cause)}"
    return f"{plural(len(port.serving.endpoints), 'usable endpoint')} again"
