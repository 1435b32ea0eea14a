"""Adds connections of this node's programs, reported by the connect() hooks, to the facts.

    counters ◀──refresh, each few seconds── HookedConnections ──as a worker's report──▶ Group, Plane
      │  ring ────events, at once─────────────────┘
      └────┴─ a failed dial ─▶ Suspects ─a probe fails, too─▶ ejected for all; AutoPaths: userspace
    observing ◀── a record at the end of each connection, while something watches

Rule 1: the hooks' reports are processed like workers' reports, so they lead to the same facts,
texts and consequences as on the userspace path. Workers apply the hooks' ejections to their own
later clients.
Rule 2: reading the counters takes at most a twentieth of a thread's time.
Rule 3: an answer to a client, a worker or a probe ends an ejection for all clients.
Rule 4: a client's failed dial is counted, but has no other consequence until a probe has failed.
Rule 5: events are lost while the ring is full. The next reading shows failed dials and ejections;
for closed connections, the BPF programs count the missing records.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ....causes.endpoints import dial_failed
from ....causes.say import say
from ....clocks import Clocks
from ....dataplane import Tuning
from ....facts import StatusFacts
from ....kernel.neighbours import absent_hop, own_route_failure
from ....log_fields import FieldLogger
from ....log_limit import SERVICE_LINES, LogLimit
from ....model import DataPath, DialFailure, Failure, Frontend, Protocol, SocketAddress
from ....plane import Group, Plane
from ....plane.messages import REPORT_S, Counted, Ejected, GroupReport, Returned, Status
from ....plane.observation import PERIOD_S, Observers
from ....plane.path_probes import Note, PathProbes
from ....steering.socket_lb.socket_maps import EventKind
from ...rounds.component import Component
from ...rounds.kernel_path import endpoints_of
from ...rounds.served_port import ServedPort
from ...rounds.served_ports import ServedPorts
from ...rounds.tasks import Pace, SharedReading, Supervisor, pause
from ..kernel_answers import KernelAnswers
from ..suspects import Suspect, Suspects, make_probes
from .hooked_records import Records
from .hooked_reports import Reports

if TYPE_CHECKING:
    from ....steering.socket_lb.hooks import Hooks

_log = FieldLogger("userspace_proxy.agent")

# The worker number in reports from the hooks, which no worker has.
_HOOKS = -2
_EVENT_OF = {Failure.REFUSED: EventKind.REFUSED, Failure.SILENT: EventKind.UNANSWERED}
_FAILURE_OF = {event: failure for failure, event in _EVENT_OF.items()}
_NO_STATUS = Status()


class _ByRules(NamedTuple):
    """The frontends of one Service port that aren't offloaded to the hooks."""

    made_from: object
    """A value that changes whenever the frontends may change."""
    frontends: Mapping[Frontend, str]
    """The frontends, with the reason why each isn't offloaded."""
    has_others: bool


class HookedConnections(Component):
    """Adds the connections of one proxy's hooks to the facts, and ejects failing endpoints."""

    def __init__(
        self,
        hooks: Hooks,
        plane: Plane,
        served_ports: ServedPorts,
        observing: Observers,
        tuning: Tuning,
        answers: KernelAnswers,
        *,
        clock: Callable[[], float] = Clocks.monotonic,
        make_probes: Callable[[Note], PathProbes] = make_probes,
    ) -> None:
        self._hooks = hooks
        self._answers = answers
        self._plane = plane
        self._served_ports = served_ports
        self._observing = observing
        self._clock = clock
        self._reports = Reports(clock())
        self._records = Records(tuning)
        self._suspects = Suspects(self._note_probe, make_probes)
        self._left: dict[ServedPort, _ByRules] = {}
        self._reading = SharedReading(self._look, clock)
        self._ejection_lines, self._return_lines = LogLimit(SERVICE_LINES), LogLimit(SERVICE_LINES)
        plane.on_ejection.append(self._note_ejection)

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("socket counts", self._run)
        supervisor.start("socket events", self._follow)

    def show(self, facts: StatusFacts) -> None:
        facts.socket_lb = self._hooks.shown()

    async def close(self) -> None:
        self._suspects.close()

    async def refresh(self) -> None:
        await self._reading.refresh()

    async def _look(self) -> None:
        hooks, reports = self._hooks, self._reports
        if not hooks.state.is_attached:
            return
        news = reports.news
        try:
            changes, ejected = await asyncio.to_thread(
                lambda: (reports.compare(hooks.counts(), hooks.inherited), hooks.ejected())
            )
        except OSError:
            # The next repair will also fail and report the error, so don't report it twice.
            return
        # If an ejection began or ended during the reading, the listed ejections may be outdated.
        known = ejected if news == reports.news else None
        served = {one.group.number: one for one in self._served_ports}
        groups = {one.group.key: one.group for one in served.values()}
        new: dict[int, int] = {}
        pace = Pace(clock=self._clock)
        for one in reports.look(changes, known, groups, self._clock()):
            self._send(one.report)
            number = one.report.group
            new[number] = one.connections
            self._answers.note_dials(served[number], answered=one.connections)
            for endpoint, failure, failures in one.unreported:
                self._suspects.add(served[number], endpoint, failure, failures)
            if one.lost:
                self._records.leave_out(served[number].group.key.name.prefixes, one.lost)
            await pace.turn()
        self._show_paths(new)

    def _send(self, report: GroupReport) -> None:
        self._plane.receive(_HOOKS, Counted(0, [report], _NO_STATUS))

    def _show_paths(self, new: Mapping[int, int]) -> None:
        """Record which frontends aren't offloaded, and add new connections to the paths' counts.

        Args:
            new: The numbers of connections since the last call, by the groups' numbers.
        """
        state, before, self._left = self._hooks.state, self._left, {}
        hooked = (state.is_attached, state.problem, state.frontends)
        for served in self._served_ports:
            if not served.was_in_kernel or served.plan.protocol is not Protocol.TCP:
                continue
            known = before.get(served)
            made_from = (served.steered, hooked)
            if known is None or known.made_from != made_from:
                whys = {f: self._hooks.not_offloaded(f) for f in served.plan.frontends}
                left = {frontend: why for frontend, why in whys.items() if why}
                known = _ByRules(made_from, left, has_others=len(left) < len(whys))
            self._left[served] = known
            path, more = served.path, new.get(served.group.number, 0)
            had = path.socket_connections
            if more or had is not None or known.has_others:
                path = path._replace(socket_connections=(had or 0) + more)
            if path.not_offloaded != known.frontends:
                path = path._replace(not_offloaded=known.frontends)
            served.path = path

    async def _run(self) -> None:
        """Read counters at the workers' report interval, until cancelled."""
        while True:
            await pause(REPORT_S)
            await self.refresh()

    def _take_events(self) -> None:
        for event in self._hooks.take_events():
            if event.seen.kind is EventKind.CONNECTION:
                self._records.note(event)
            elif (served := self._served_ports.of_port(event.name)) is None:
                continue
            elif event.seen.kind is EventKind.RETURNED:
                self._note_return(served, event.endpoint, event.seen.at_ns / 1e9)
            else:
                self._reports.noted(event.name, event.endpoint)
                self._suspects.add(served, event.endpoint, _FAILURE_OF[event.seen.kind])

    def _note_probe(self, suspect: Suspect, failed: DialFailure | None) -> None:
        """Handle the result of probing an endpoint to which a client's dial failed."""
        served, endpoint = suspect.served, suspect.endpoint
        key = served.group.key
        # Ignore the result if the endpoint was removed during the probe.
        if served.is_retired or endpoint not in endpoints_of(served.plan.serving):
            return
        if failed is not None:
            event = _EVENT_OF[suspect.failure]
            if (until := self._hooks.eject(key, endpoint, event)) is not None:
                self._note_failure(suspect, own_route_failure(failed, endpoint.ip), until)
        else:
            if suspect.failure is Failure.SILENT:
                self._answers.note_dials(served, lost=suspect.failures)
            if self._reports.is_ejected(key, endpoint):
                self._hooks.readmit(key, endpoint)
                self._note_return(served, endpoint, self._clock())

    def _note_failure(self, suspect: Suspect, failed: DialFailure, until: float) -> None:
        """Record that an endpoint is ejected for all clients, or that its ejection is prolonged."""
        served, endpoint = suspect.served, suspect.endpoint
        group, is_silent = served.group, failed.failure is Failure.SILENT
        if is_silent and absent_hop(endpoint.ip):
            failed = failed._replace(failure=Failure.NO_HOST)
        report = self._reports.failed(
            group, endpoint, failed, suspect.failures, self._clock(), until
        )
        self._send(report)
        self._plane.receive(_HOOKS, Ejected(group.number, endpoint, is_silent))
        if self._ejection_lines.take(self._clock()):
            cause = say(dial_failed(endpoint, failed.failure, os.strerror(failed.number)))
            fields = {"service": group.label, "endpoint": str(endpoint), "cause": cause}
            _log.warning("%(service)s: endpoint ejected: %(cause)s", extra=fields)
        if served.plan.path.path is DataPath.AUTO:
            self._served_ports.auto_paths.note(endpoint, failed)

    def _note_return(self, served: ServedPort, endpoint: SocketAddress, at: float) -> None:
        group = served.group
        self._send(self._reports.returned(group, endpoint, at))
        self._plane.receive(_HOOKS, Returned(group.number, endpoint))
        if self._return_lines.take(self._clock()):
            fields = {"service": group.label, "endpoint": str(endpoint)}
            _log.info("%(service)s: endpoint readmitted: %(endpoint)s", extra=fields)

    def _note_ejection(self, group: Group, endpoint: SocketAddress, is_ejected: bool) -> None:
        """End the hooks' ejection of an endpoint that has answered a worker or a probe."""
        if not is_ejected and self._reports.is_ejected(group.key, endpoint):
            self._hooks.readmit(group.key, endpoint)
            self._send(self._reports.readmitted(group, endpoint, self._clock()))

    async def _follow(self) -> None:
        """Handle events, which include closed connections while something watches or logs them."""
        loop, descriptor = asyncio.get_running_loop(), self._hooks.event_descriptor
        loop.add_reader(descriptor, self._take_events)
        try:
            while True:
                self._hooks.observe(self._records.are_logged)
                await self._observing.is_on.wait()
                self._hooks.observe(True)
                while filters := self._observing.filters():
                    self._plane.receive(_HOOKS, self._records.observe(filters))
                    await pause(PERIOD_S)
                self._records.observe(())
        finally:
            loop.remove_reader(descriptor)
            self._hooks.observe(False)
