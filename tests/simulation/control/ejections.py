"""What workers know of each other's dials: an ejection, or its end, reaches all of them.

    worker A: a dial fails ──▶ Ejected ──▶ control ──▶ worker B leaves the endpoint out, too
    worker A: a dial of an ejected endpoint is answered ──▶ Returned ──▶ worker B has it back

Rule 1: each outcome is judged once for each other worker, when messages have had their time.
Rule 2: where another outcome followed, or the endpoint came or left, the other worker may use the
endpoint or not, but the message must have arrived.
Rule 3: an excuse is about one outcome and one other worker: the sender, or the control process,
died while the message was under way, or the control process hung up to end its workers.
Rule 4: a failed probe prolongs an ejection, which the others are told of, too; such a message may
cross one about an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from userspace_proxy.dataplane.outcomes import Outcomes
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Plane
from userspace_proxy.plane.messages import Ejected, Returned
from userspace_proxy.plane.worker import Worker

from .files import WORKER
from .machine import Process

if TYPE_CHECKING:
    from .world import World

# One dial a second finds out whether an endpoint that was silent still is.
_QUIET_S = 1.0

ORACLE, SILENCE = "ejections reach all workers", "silence reaches all workers"

# For a message to the control process and on to a worker: each reads it in its next iteration.
_ARRIVES_S = 0.5
_ITERATIONS = 20
# A message waits for others where a Unix socket takes few bytes at a time.
_SMALL_ROOM, _DRIPS_S = 4096, 2.0


_Key = tuple[Process, int, SocketAddress]
"""A control process, a group of it, and an endpoint."""


class _Outcome(NamedTuple):
    """That an ejection began, was prolonged, or ended, in one worker."""

    at: float
    worker: Process
    group: int
    endpoint: SocketAddress
    is_ejected: bool
    is_silent: bool
    is_prolonged: bool


class Ejections:
    """The oracle of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last_at: dict[tuple[_Key, bool], dict[Process, float]] = {}
        """When an ejection last began or was prolonged (True), or ended, in each worker."""
        self._dialled: dict[_Key, tuple[float, Process]] = {}
        """When the last dial of any worker ended, and whose it was."""
        self._began: dict[Process, float] = {}
        self._served_at: dict[_Key, float] = {}
        """When an endpoint last came or left."""
        self._returned_at: dict[tuple[Process, SocketAddress], float] = {}
        """When an endpoint that was silent was last answered, as a worker knows."""
        self._received: dict[tuple[Process, int, SocketAddress, bool], list[float]] = {}
        """When a worker has read that an endpoint failed (True), or answered, in another one."""
        self._hung_up: set[Process] = set()
        """Control processes that have closed their connections to their workers, to end them."""
        machine = world.machine
        self.delay_s = _ARRIVES_S + _ITERATIONS * machine.speed.latency_s
        if machine.speed.room < _SMALL_ROOM:
            self.delay_s += _DRIPS_S

    def patches(self) -> list[tuple[Any, str, Any]]:
        """Return what is to replace methods of the product, to see what dials have shown."""
        return [
            *(
                (Outcomes, name, _watched(vars(Outcomes)[name], self._look))
                for name in ("failed", "answered")
            ),
            *(
                (Worker, name, _read(vars(Worker)[name], self._receive))
                for name in ("_eject", "_end_ejection")
            ),
            (Plane, "hang_up", _told(Plane.hang_up, self._note_hung_up)),
        ]

    def note_worker(self, process: Process) -> None:
        """Note that a worker begins: it knows of no ejection before."""
        self._began[process] = self._world.timeline.now

    def _note_hung_up(self) -> None:
        control = self._world.machine.current
        assert control is not None, "a process runs"
        self._hung_up.add(control)

    def note_served(self, control: Process, group: int, old: Serving, new: Serving) -> None:
        """Note that a group is served in another way."""
        for endpoint in {*old.all_endpoints} ^ {*new.all_endpoints}:
            self._served_at[control, group, endpoint] = self._world.timeline.now
            self._world.streaks.note_served(control, group, endpoint)

    def is_ejected(self, worker: Process, group: int, endpoint: SocketAddress) -> bool:
        """Return whether a worker leaves an endpoint out."""
        return _ejection(worker, group, endpoint) is not None

    def is_quiet(self, worker: Process, endpoint: SocketAddress) -> bool:
        """Return whether clients without another endpoint may be reset: it was silent.

        One client a second finds out whether it still is.
        """
        if self._returned_at.get((worker, endpoint), -1.0) >= self._world.timeline.now - _QUIET_S:
            return True
        running = worker.main._worker if worker.main is not None else None
        found = [
            _ejection(worker, group, endpoint) for group in (running._groups if running else ())
        ]
        return any(known is not None and known.is_silent for known in found)

    def _look(
        self, group: int, endpoint: SocketAddress, shown: Sequence[Any], call: Callable[[], Any]
    ) -> Any:
        """Carry out what a dial has shown, and note what that changes in this worker.

        Args:
            shown: Why it failed, if it did, and when it ended.
        """
        worker, streaks = self._world.machine.current, self._world.streaks
        assert worker is not None, "a process runs"
        if len(shown) > 1:
            streaks.note_failed(worker, group, endpoint, *shown)
        else:
            streaks.note_answered(worker, group, endpoint, *shown)
        before = _ejection(worker, group, endpoint)
        until = before.until if before is not None else 0.0
        answer = call()
        after = _ejection(worker, group, endpoint)
        if worker.parent is not None:
            now, key = self._world.timeline.now, (worker.parent, group, endpoint)
            self._dialled[key] = now, worker
            if before is None and len(shown) > 1:
                self._world.returns.note_failed(
                    worker,
                    group,
                    endpoint,
                    shown[0],
                    is_ejected=after is not None,
                    came_at=self._served_at.get(key, -1.0),
                )
            elif before is not None and after is None:
                self._world.returns.note_end(worker, group, endpoint)
            if after is None and before is not None and before.is_silent:
                self._returned_at[worker, endpoint] = now
            is_prolonged = before is not None and after is not None and after.until != until
            if (before is None) is not (after is None) or is_prolonged:
                is_ejected, is_silent = after is not None, after is not None and after.is_silent
                self._judge_later(
                    key,
                    _Outcome(now, worker, group, endpoint, is_ejected, is_silent, is_prolonged),
                )
        return answer

    def _receive(self, message: Ejected | Returned, call: Callable[[], Any]) -> None:
        """Carry out what another worker has found, and note that it has arrived."""
        worker, now = self._world.machine.current, self._world.timeline.now
        assert worker is not None, "a process runs"
        group, endpoint = message.group, message.endpoint
        before = _ejection(worker, group, endpoint)
        call()
        if isinstance(message, Returned):
            self._world.streaks.note_answered(worker, group, endpoint, now, is_told=True)
        after = _ejection(worker, group, endpoint)
        if before is not None and after is None:
            self._world.returns.note_end(worker, group, endpoint)
        if before is not None and before.is_silent and (after is None or not after.is_silent):
            self._returned_at[worker, endpoint] = now
        key = (worker, group, endpoint, isinstance(message, Ejected))
        self._received.setdefault(key, []).append(now)

    def _judge_later(self, key: _Key, outcome: _Outcome) -> None:
        self._last_at.setdefault((key, outcome.is_ejected), {})[outcome.worker] = outcome.at
        self._world.notices.expect(
            outcome.worker, outcome.group, outcome.endpoint, is_ejected=outcome.is_ejected
        )
        if key[0].is_dead or key[0] in self._hung_up:
            # Nothing passes it on, until there is another control process.
            return
        is_crossed = any(
            worker is not outcome.worker and at >= self._under_way_since(worker, key[0])
            for worker, at in self._last_at.get((key, not outcome.is_ejected), {}).items()
        )
        for other in self._world.machine.alive(WORKER):
            if other is outcome.worker or other.parent is not outcome.worker.parent:
                continue
            if other in self._began:
                self._world.timeline.after(
                    self.delay_s, self._judge, key, outcome, other, is_crossed
                )

    def _under_way_since(self, worker: Process, control: Process) -> float:
        """Return when the oldest message may have been sent that others are yet to read.

        A stop of the control process, or of its sender, keeps it; what several workers have sent
        until then is read in any order.
        """
        since = self._world.timeline.now - self.delay_s
        for process in (control, worker):
            if process.loop.held_until >= since:
                since = min(since, process.loop.held_since - self.delay_s)
        return since

    def _judge(
        self,
        key: _Key,
        outcome: _Outcome,
        other: Process,
        is_crossed: bool,
    ) -> None:
        judgements, now = self._world.judgements, self._world.timeline.now
        if self._world.is_finishing or self._world.machine.violations:
            return
        if other.is_dead or not _serves(other, outcome) or other.main._is_draining:
            # There is nothing to judge.
            return
        processes = (outcome.worker, key[0], other)
        held_until = max(process.loop.held_until for process in processes)
        if held_until + self.delay_s > now and held_until >= outcome.at:
            # The message waits for one that was stopped.
            self._world.timeline.at(
                held_until + self.delay_s + 0.001, self._judge, key, outcome, other, is_crossed
            )
            return
        known = _ejection(other, outcome.group, outcome.endpoint)
        received = self._received.get((other, *key[1:], outcome.is_ejected), ())
        is_unsure = is_crossed or self._is_over(key, outcome)
        if is_unsure or outcome.is_prolonged:
            is_right = any(at >= outcome.at for at in received)
        else:
            is_right = (known is not None) is outcome.is_ejected
        why_lost = self._why_lost(processes)
        if why_lost and not is_right:
            judgements.excuse(ORACLE, why_lost)
            return
        what = "failed" if outcome.is_ejected else "answered"
        judgements.check(
            ORACLE,
            is_right,
            lambda: (
                f"{outcome.endpoint} {what} in {outcome.worker.name} at {outcome.at:.3f}, and "
                f"{other.name} {'has it ejected' if known else 'uses it'} at {now:.3f}, read "
                f"{len(received)} messages"
            ),
        )
        is_last = self._dialled[key][0] == outcome.at
        if known is not None and outcome.is_ejected and is_last and not is_unsure and not why_lost:
            judgements.check(
                SILENCE,
                known.is_silent is outcome.is_silent,
                f"{other.name} takes {outcome.endpoint} for silent: {known.is_silent}",
            )

    def _why_lost(self, processes: Sequence[Process]) -> str:
        """Return why a message from one process to the next may be lost; empty if it may not."""
        dead = [process for process in processes if process.is_dead]
        if dead:
            return f"the {dead[0].name.split()[0]} died"
        # What waits for room in its connections is lost.
        has_hung_up = not self._hung_up.isdisjoint(processes)
        return "the control process hung up" if has_hung_up else ""

    def _is_over(self, key: _Key, outcome: _Outcome) -> bool:
        """Return whether another outcome has followed, or the endpoint came or left."""
        later = self._last_at.get((key, not outcome.is_ejected), {}).values()
        if any(at >= outcome.at for at in later):
            return True
        return self._served_at.get(key, 0.0) >= outcome.at - self.delay_s


def _serves(process: Process, outcome: _Outcome) -> bool:
    worker = process.main._worker if process.main is not None else None
    group = None if worker is None else worker._groups.get(outcome.group)
    return group is not None and outcome.endpoint in group.serving.all_endpoints


def _ejection(process: Process, group: int, endpoint: SocketAddress) -> Any:
    """Return what a worker has noted of an endpoint that it leaves out, or None."""
    worker = process.main._worker if process.main is not None else None
    known = None if worker is None else worker._groups.get(group)
    if known is None:
        return None
    current = known.balancers.current
    return getattr(current, "inner", current)._ejections.ejected.get(endpoint)


def _watched(original: Any, look: Callable[..., Any]) -> Any:
    def watched(self: Any, endpoint: SocketAddress, *args: Any, **kwargs: Any) -> Any:
        call = partial(original, self, endpoint, *args, **kwargs)
        news = self.news
        return call() if news is None else look(news._number, endpoint, args, call)

    return watched


def _told(original: Any, tell: Callable[[], None]) -> Any:
    def told(self: Any) -> None:
        tell()
        original(self)

    return told


def _read(original: Any, receive: Callable[..., Any]) -> Any:
    def read(self: Any, message: Any) -> None:
        receive(message, partial(original, self, message))

    return read
