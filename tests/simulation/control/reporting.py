"""What control processes know by reports: all that workers have counted, once, and in time.

    control process ──Report──▶ worker ──Counted, in parts──▶ control process: its sums

Rule 1: what clients have seen before a report was asked for is in it, or in those before.
Rule 2: nothing is counted twice: a worker reports no more than its clients have sent, and the sums
of a control process are those of the reports that it has read.
Rule 3: what passes is as it was in each worker's last report, and goes with the worker.
Rule 4: the next control process isn't the reader of reports that the last one has asked for.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.facts import EndpointCounters
from userspace_proxy.model import SocketAddress
from userspace_proxy.plane import Plane
from userspace_proxy.plane.adoption import _Predecessor
from userspace_proxy.plane.messages import (
    REPORT_S,
    Called,
    Counted,
    FromWorker,
    GroupReport,
    Observed,
)
from userspace_proxy.plane.worker import Worker
from userspace_proxy.plane.workers import WorkerSlot

from ..streams import Stream
from .clients import Client
from .machine import Process

if TYPE_CHECKING:
    from .world import World

IN_TIME = "what clients have seen is reported"
ONCE = "nothing is reported twice"
SUMS = "sums are those of reports"
PASSING = "what passes is as it was reported"
ASKED = "reports are asked for in time"
READER = "reports are for who asked for them"

# Between two looks of a control process, each of which may ask for a report.
_LOOK_S = 0.25
# Between two judgements of those that should have reported.
_LOOKS_S = 2.0
_LOOKED_AT = tuple(
    EndpointCounters.names.index(name)
    for name in ("connections", "received_bytes", "sent_bytes", "active", "failures")
)
_ACTIVE = 3
_NOTHING = (0,) * len(_LOOKED_AT)

_Key = tuple[Process, int]
"""A worker, and a group of its control process."""
_Figures = tuple[int, ...]


class _Passing(NamedTuple):
    """What isn't a difference, as it was in a worker when it made a report of a group."""

    waiting: int
    ejected: frozenset[SocketAddress]


_NONE_PASSING = _Passing(0, frozenset())


class Reporting:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._clients: dict[_Key, list[Client]] = {}
        """Those that a worker has accepted for a group."""
        self._look_at = 0.0
        """When it is judged next whether workers have reported."""
        self._asked_at: dict[tuple[Process, int], float] = {}
        """By worker and number of a report."""
        self._reported_at: dict[Process, float] = {}
        self._as_of: dict[Process, float] = {}
        """When the last report that was read had been asked for."""
        self._told: dict[_Key, _Figures] = {}
        self._told_of_groups: dict[_Key, _Figures] = {}
        self._making: dict[Process, int] = {}
        """The number of the report that a worker makes."""
        self._made: dict[tuple[Process, int], dict[int, _Passing]] = {}
        """What passes, by worker, number of a report, and group."""
        self._unfinished: set[Process] = set()
        """Those that have sent a part of a report."""
        self._passing: dict[Process, dict[int, _Passing]] = {}
        """As of the last report that was read to its end."""
        self._due_s = REPORT_S + 2 * _LOOK_S + world.ejections.delay_s

    def patches(self) -> list[tuple[Any, str, Any]]:
        """Return what is to replace methods of the product, to see what is asked and answered."""
        return [
            (WorkerSlot, "ask", _watched(WorkerSlot.ask, self._ask)),
            (Plane, "receive", _watched(Plane.receive, self._receive)),
            (Worker, "_reporting", _watched(Worker._reporting, self._report)),
            (Worker, "_report_of", _watched(Worker._report_of, self._report_of)),
            (_Predecessor, "_receive", _watched(_Predecessor._receive, self._receive_next)),
        ]

    def note_accepted(self, process: Process, group: EndpointGroup, stream: Stream) -> None:
        """Note which group a worker accepts a client for."""
        (client,) = (each for each in self._world.clients if each.stream is stream)
        groups, serving = process.main._worker._groups, group.serving
        (number,) = (number for number, each in groups.items() if each is group)
        client.group = group
        self._clients.setdefault((process, number), []).append(client)
        is_held = serving.has_none and not serving.is_refusing
        if is_held and not group.waiting(self._world.timeline.now).clients:
            self._world.notices.expect(process, number, None, is_ejected=True)

    def look(self) -> None:
        """Judge whether each worker has reported lately; call it again and again."""
        control, now = self._world.control, self._world.timeline.now
        if control is None or control.plane is None or control.is_ending or now < self._look_at:
            return
        self._look_at = now + _LOOKS_S
        for slot in control.plane._workers:
            if slot.link is None or not slot.is_running:
                continue
            process = self._world.machine.process_of(slot.link.pid)
            since = max(
                self._reported_at.setdefault(process, now),
                process.loop.held_until,
                control.process.loop.held_until,
            )
            if not process.is_dead:
                what = f"{process.name} hasn't reported for {now - since:.1f} s"
                self._world.judgements.check(ASKED, now - since <= self._due_s, what)

    # -- in the control process --------------------------------------------------------------------

    def _ask(self, slot: WorkerSlot, call: Callable[[], Any]) -> Any:
        now, link = self._world.timeline.now, slot.link
        answer = call()
        if link is not None:
            self._asked_at[self._world.machine.process_of(link.pid), slot._reports] = now
        return answer

    def _receive(
        self, plane: Plane, call: Callable[[], None], index: int, message: FromWorker
    ) -> None:
        call()
        link = plane._workers[index].link if index >= 0 else None
        if link is None or not isinstance(message, Counted):
            return
        worker = self._world.machine.process_of(link.pid)
        for report in message.groups:
            self._add(worker, report)
        if message.number and (worker, message.number) not in self._asked_at:
            # It answers what wasn't asked.
            return
        if message.number:
            self._passing[worker] = self._made.pop((worker, message.number), {})
            self._reported_at[worker] = self._world.timeline.now
            self._judge_times(plane, worker, self._take_asked(worker, message.number))
            self._unfinished.discard(worker)
        else:
            self._unfinished.add(worker)
        for report in message.groups:
            self._judge_sums(plane, report.group)
        if not self._unfinished.intersection(self._alive(plane)):
            self._judge_passing(plane)

    def _take_asked(self, worker: Process, number: int) -> float:
        """Return when a report was asked for that has been read."""
        asked_at = self._asked_at.pop((worker, number))
        self._as_of[worker] = max(self._as_of.get(worker, asked_at), asked_at)
        return asked_at

    def has_reported(self, worker: Process) -> bool:
        """Return whether a report of a worker was read to its end."""
        return worker in self._as_of

    def is_from(self, worker: Process, moment: float) -> bool:
        """Return whether a report of a worker was read that was asked for then, or later."""
        return self._as_of.get(worker, moment - 1.0) >= moment

    def _add(self, worker: Process, report: GroupReport) -> None:
        key = worker, report.group
        figures = self._told.get(key, _NOTHING)
        for each in report.endpoints:
            new = (each.figures[place] for place in _LOOKED_AT)
            figures = tuple(map(operator.add, figures, new))
        self._told[key] = figures
        before = self._told_of_groups.get(key, (0,) * len(report.figures))
        self._told_of_groups[key] = tuple(map(operator.add, before, report.figures))

    def _judge_times(self, plane: Plane, worker: Process, asked_at: float) -> None:
        """Compare what a worker has reported with what its clients have seen."""
        judgements = self._world.judgements
        for key, clients in self._clients.items():
            group = plane._groups.get(key[1])
            if key[0] is not worker or group is None:
                continue
            told = self._told.get(key, _NOTHING)[:_ACTIVE]
            least = tuple(map(sum, zip(*(each.seen(asked_at) for each in clients), strict=True)))
            is_all = all(map(operator.ge, told, least))
            what = f"{worker.name} has reported {told} of {group.label}, clients have seen {least}"
            judgements.check(IN_TIME, is_all, what)
            most = sum(each.asked for each in clients)
            is_once = told[0] <= len(clients) and told[1] <= most
            if not is_once and self._world.breaks.has_been:
                judgements.excuse(ONCE, "an endpoint was broken, so that another one was dialled")
            else:
                what = f"{worker.name} has reported {told} of {group.label}, clients sent {most}"
                judgements.check(ONCE, is_once, what)

    def _judge_sums(self, plane: Plane, number: int) -> None:
        """Compare the sums of a group with the reports of this control process's workers."""
        group, control = plane._groups.get(number), self._world.machine.current
        if group is None or "KNOWN_MAX" in self._world.plan.limits:
            # What is reported of endpoints that are forgotten isn't counted.
            return
        alive = self._alive(plane)
        mine = {w: told for (w, n), told in self._told.items() if n == number}
        mine = {worker: told for worker, told in mine.items() if worker.parent is control}
        sums = list(map(sum, zip(*mine.values(), strict=True)))
        sums[_ACTIVE] = sum(mine[worker][_ACTIVE] for worker in alive if worker in mine)
        totals = group.totals()
        known = [getattr(totals, EndpointCounters.names[place]) for place in _LOOKED_AT]
        what = f"{group.label}: workers have reported {sums}, known are {known}"
        self._world.judgements.check(SUMS, sums == known, what)
        told = [
            figures
            for (worker, n), figures in self._told_of_groups.items()
            if n == number and worker.parent is control
        ]
        sums, known = list(map(sum, zip(*told, strict=True))), list(group.counters.figures())
        what = f"{group.label}: workers have reported {sums} of it, known are {known}"
        self._world.judgements.check(SUMS, sums == known, what)

    def _judge_passing(self, plane: Plane) -> None:
        """Compare who waits, and what is ejected, with what the workers that run reported last."""
        judgements, now = self._world.judgements, self._world.timeline.now
        alive = self._alive(plane)
        control = self._world.machine.current
        assert control is not None, "it reads a report"
        for number, group in plane._groups.items():
            last = [self._passing.get(each, {}).get(number, _NONE_PASSING) for each in alive]
            if not group.has_passing and not any(map(any, last)):
                judgements.right(PASSING)
                continue
            waiting, shown = sum(each.waiting for each in last), group.waiting(now).clients
            what = f"{group.label}: {waiting} clients wait, shown are {shown}"
            judgements.check(PASSING, waiting == shown, what)
            current = frozenset(group.serving.all_endpoints)
            ejected = current.intersection(*[frozenset().union(*(each.ejected for each in last))])
            known = frozenset(group.ejected(now))
            is_hidden = partial(self._world.streaks.is_hidden, control, number)
            hidden = set(filter(is_hidden, ejected - known))
            what = f"{group.label}: {set(ejected)} are ejected, shown are {set(known)}"
            judgements.check(PASSING, ejected - hidden == known, what)

    def _alive(self, plane: Plane) -> list[Process]:
        """Return the workers of a plane that have ended neither, as far as it knows."""
        links = [slot.link for slot in plane._workers]
        return [self._world.machine.process_of(link.pid) for link in links if link is not None]

    def _receive_next(
        self, _worker: Any, call: Callable[[], None], message: FromWorker, _fds: list[int]
    ) -> None:
        is_report = isinstance(message, Counted | Observed | Called)
        what = f"a control process is sent {type(message).__name__}, and hasn't asked for it"
        self._world.judgements.check(READER, not is_report, what)
        call()

    # -- in workers --------------------------------------------------------------------------------

    def _report(self, _worker: Worker, call: Callable[[], Any], number: int) -> Iterator[None]:
        process = self._world.machine.current
        assert process is not None, "a worker runs"
        slices = iter(call())
        while True:
            # Before each: another process may have made a report meanwhile.
            self._making[process] = number
            if next(slices, self) is self:
                return
            yield

    def _report_of(
        self, worker: Worker, call: Callable[[], Any], number: int, now: float
    ) -> GroupReport | None:
        process, group = self._world.machine.current, worker._groups.get(number)
        assert process is not None, "a worker runs"
        report: GroupReport | None = call()
        if group is not None:
            ejected = frozenset(group.balancers.current.ejected(now))
            passing = _Passing(group.waiting(now).clients, ejected)
            made = self._made.setdefault((process, self._making.get(process, 0)), {})
            made[number] = passing
        return report


def _watched(original: Any, watch: Callable[..., Any]) -> Any:
    def watched(self: Any, *args: Any) -> Any:
        return watch(self, partial(original, self, *args), *args)

    return watched
