"""What control processes know of dials: each one that failed, or was answered, is counted once.

    worker A: a dial fails ──▶ its next report ──▶ control: one failure more, in a row with others
    worker B: a dial is answered ──▶ its next report ──▶ control: the failures in a row are over

Rule 1: what is known of an endpoint is judged when all workers have reported its last dial.
Rule 2: what a worker that died hadn't reported yet may be known or not, as what was found just
before an endpoint came or left; it widens the bounds of this endpoint alone.
Rule 3: a worker that is told that an endpoint has answered another one ends its failures in a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from userspace_proxy.model import DialFailure, Failure, SocketAddress
from userspace_proxy.model.failures import SHORTAGES
from userspace_proxy.plane.messages import REPORT_S

from .breaks import PATIENCE_S
from .machine import Process

if TYPE_CHECKING:
    from userspace_proxy.plane import Group

    from .world import World

COUNTED_DIALS = "failed dials are counted once"
STREAKS = "failures in a row are known"

# Between two looks of a control process, each of which may ask for a report.
_LOOK_S = 0.25
_NEVER = -1.0

_Key = tuple[Process, int, SocketAddress]
"""A control process, a group of it, and an endpoint."""


class _Dial(NamedTuple):
    """How a dial of one worker has ended."""

    at: float
    """As the worker has noted it."""
    worker: Process
    has_failed: bool
    is_of_node: bool = False
    """The node lacked something: that says nothing of the endpoint."""
    may_be_over: bool = False
    """It met silence that began before an answer, which may have ended an ejection."""
    is_told: bool = False
    """It was answered in another worker."""


class Streaks:
    """The oracle of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dials: dict[_Key, list[_Dial]] = {}
        self._answered: dict[_Key, _Dial] = {}
        """The last one of an endpoint none of whose dials has failed."""
        self._came_at: dict[_Key, float] = {}
        """When an endpoint last came or left."""
        self._died_at: dict[Process, float] = {}
        self._is_due: set[_Key] = set()
        """Those that are judged later."""
        self._reported_s = REPORT_S + 2 * _LOOK_S + world.ejections.delay_s

    def note_failed(
        self, worker: Process, group: int, endpoint: SocketAddress, failed: DialFailure, at: float
    ) -> None:
        """Note a dial that failed."""
        before = self._dials.get((worker.parent, group, endpoint), ()) if worker.parent else ()
        may_be_over = failed.failure is Failure.SILENT and any(
            each.worker is worker and not each.has_failed and each.at >= at - PATIENCE_S
            for each in before
        )
        is_of_node = failed.failure in SHORTAGES
        dial = _Dial(at, worker, True, is_of_node=is_of_node, may_be_over=may_be_over)
        self._note(group, endpoint, dial)

    def note_answered(
        self,
        worker: Process,
        group: int,
        endpoint: SocketAddress,
        at: float,
        *,
        is_told: bool = False,
    ) -> None:
        """Note a dial that was answered, in this worker or, as it was told, in another one."""
        self._note(group, endpoint, _Dial(at, worker, False, is_told=is_told))

    def note_served(self, control: Process, group: int, endpoint: SocketAddress) -> None:
        """Note that an endpoint comes or leaves, with what is known of it."""
        self._came_at[control, group, endpoint] = self._world.timeline.now

    def is_hidden(self, control: Process, group: int, endpoint: SocketAddress) -> bool:
        """Return whether an endpoint that is ejected isn't shown as that.

        It has answered since a dial failed, or no worker that has dialled it has reported that yet,
        or it has left since, by which failures are forgotten: older answers may be reported later.
        """
        key = control, group, endpoint
        dials, came_at = self._dials.get(key, ()), self._came_at.get(key, _NEVER)
        failed = [each for each in dials if each.has_failed]
        is_from = self._world.reporting.is_from
        is_known = any(each.at > came_at and is_from(each.worker, each.at) for each in failed)
        return len(failed) < len(dials) or not is_known

    def note_death(self, process: Process) -> None:
        """Note that a process dies, with what it hasn't reported."""
        self._died_at[process] = self._world.timeline.now

    def _note(self, group: int, endpoint: SocketAddress, dial: _Dial) -> None:
        if dial.worker.parent is None:
            return
        key = dial.worker.parent, group, endpoint
        dials = self._dials.get(key)
        if dials is None:
            if not dial.has_failed:
                # Nothing of it is in a row, and most endpoints never fail.
                self._answered[key] = dial
                return
            # Both may have ended in one iteration of a worker, at one time: the endpoint is then
            # known to answer.
            answered = self._answered.pop(key, None)
            dials = self._dials[key] = []
            if answered is not None and answered.at == dial.at:
                dials.append(answered)
        dials.append(dial)
        if key not in self._is_due:
            self._is_due.add(key)
            self._world.timeline.after(self._reported_s, self._judge, key)

    def _judge(self, key: _Key) -> None:
        world, (control, number, endpoint) = self._world, key
        plane = None if world.control is None else world.control.plane
        if world.is_finishing or world.control is None or plane is None:
            return
        if world.control.process is not control or world.control.is_ending:
            return
        dials = self._dials[key]
        loops = [control.loop, *(slot.loop for slot in {each.worker for each in dials})]
        since = max(*(loop.held_until for loop in loops), dials[-1].at)
        if since + self._reported_s > world.timeline.now:
            world.timeline.at(since + self._reported_s + 0.001, self._judge, key)
            return
        self._is_due.discard(key)
        group = plane._groups.get(number)
        if group is not None and endpoint in group.serving.all_endpoints:
            self._check(group, endpoint, dials, self._came_at.get(key, _NEVER))

    def _check(
        self, group: Group, endpoint: SocketAddress, dials: Sequence[_Dial], came_at: float
    ) -> None:
        """Compare what is known of an endpoint with what dials have shown."""
        judgements = self._world.judgements
        sure: list[_Dial] = []
        unsure: list[_Dial] = []
        for each in dials:
            (sure if self._is_reported(each, came_at) else unsure).append(each)
        shown = group.read_counters(endpoint)
        least = _failures(sure)
        most = least + _failures(unsure)
        why = f"{group.label}: {least} to {most} dials of {endpoint} failed, counted are "
        is_counted = least <= shown.failures <= most
        judgements.check(COUNTED_DIALS, is_counted, f"{why}{shown.failures}")
        sure, maybe = [e for e in sure if not e.may_be_over], [e for e in sure if e.may_be_over]
        in_row = [each for each in sure if not each.is_of_node]
        if not in_row:
            return
        last = max(in_row, key=attrgetter("at"))
        later = [each for each in dials if each.at >= last.at and not each.is_of_node]
        what = f"{group.label}: {endpoint}, last dialled at {last.at:.3f},"
        if any(each.has_failed is not last.has_failed for each in later):
            judgements.excuse(STREAKS, "what was shown last may not have been reported")
        elif not last.has_failed:
            is_over = not shown.dials.is_on and shown.dials.succeeded_at >= last.at
            judgements.check(STREAKS, is_over, f"{what} has answered, and isn't known to")
        else:
            is_known = shown.dials.is_on and shown.dials.part.last_at in {each.at for each in later}
            judgements.check(STREAKS, is_known, f"{what} failed, and isn't known to")
            others = [each for each in (*unsure, *maybe) if not each.is_of_node]
            fewest, most = _bounds(in_row, others, self._reported_s)
            known = shown.dials.part.failures
            judgements.check(
                STREAKS,
                fewest <= known <= most,
                f"{what} failed {fewest} to {most} times in a row, {known} known",
            )

    def _is_reported(self, dial: _Dial, came_at: float) -> bool:
        """Return whether a control process must have counted a dial."""
        if dial.is_told or dial.at <= came_at + self._world.ejections.delay_s:
            return False
        died_at = self._died_at.get(dial.worker)
        return died_at is None or died_at - dial.at >= self._reported_s


def _failures(dials: Iterable[_Dial]) -> int:
    return sum(each.has_failed for each in dials)


def _bounds(sure: Sequence[_Dial], unsure: Sequence[_Dial], report_s: float) -> tuple[int, int]:
    """Return how many failures in a row may be known, if the last dial failed.

    An answer that is reported after a later failure of another worker doesn't divide them.
    """
    dials = [*sure, *unsure]
    failed = [each.at for each in dials if each.has_failed]
    dividing = [
        each
        for each in sure
        if not each.has_failed and not any(each.at <= at <= each.at + report_s for at in failed)
    ]
    fewest = sum(each.has_failed and each.at > _answered_at(dials) for each in sure)
    return fewest, sum(at > _answered_at(dividing) for at in failed)


def _answered_at(dials: Iterable[_Dial]) -> float:
    return max((each.at for each in dials if not each.has_failed), default=_NEVER)
