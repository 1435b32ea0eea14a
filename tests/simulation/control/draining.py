"""Judges that drains last as long as they may, and no longer.

    control process ends:   groups close ──▶ its workers drain ──▶ all have ended ──▶ it ends
    control process serves: ──▶ those of the last one drain ──▶ they end

Rule 1: a worker that drains resets what is open at the end of the time that it was given, not
before, and ends then.
Rule 2: a control process waits for workers that drain, not for those that have died.
Rule 3: workers of the last control process drain as soon as those of this one serve, not before.
Rule 4: nothing is started any more in a control process that drains.
Rule 5: a worker that drains ends with its last connection.
Rule 6: a control process that ends in order leaves no worker that serves, but one that was stopped.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from userspace_proxy.plane.messages import Drain
from userspace_proxy.plane.worker import Worker

from .files import WORKER
from .plan import EARLY_S

if TYPE_CHECKING:
    from .control import Control
    from .machine import Process
    from .world import World

ORACLE = "drains end in time"
RELIEVED = "predecessors end in time"
AWAITED = "what drains is awaited, and no longer"
BEGUN = "drains begin when they may, for as long as they may"
IDLE = "what drains ends with its last connection"
APPLIED = "predecessors drain once workers have what is in force"

# For a timer and what follows it, each in an iteration of the loop.
_SLACK_S, _ITERATIONS = 0.1, 10
# A worker is waited for for a second; and a message is sent a part at a time with less room.
_ANSWER_S, _SMALL_ROOM = 2.0, 4096
# UDP flows have so long for replies; and a connection that its client has ended closes.
_REPLIES_S, _CLOSES_S = 2.0, 0.5
# One that was late is asked again each second, and hangs up after a second without a proof.
_ANSWERS_LATE_S = 3.0
# So long a control process that ends in order waits for answers of those that were late.
_WAITS_S = 2.0


class Draining:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._slack_s = _SLACK_S + _ITERATIONS * world.machine.speed.latency_s
        # For the messages before, a start, and an answer.
        self._answer_s = world.plan.speed.start_s + self._slack_s + world.ejections.delay_s
        self._idle_s = _REPLIES_S + _CLOSES_S + self._slack_s
        self._until: dict[Process, float] = {}
        """Of workers that drain: when their time is over."""
        self._replies_until: dict[Process, float] = {}
        self._busy_at: dict[Process, float] = {}
        """Of those that haven't ended: when one last had a client, or began."""
        self._ending: dict[Process, float] = {}
        """Control processes that drain, or have: for how long."""
        self._drained: dict[Process, tuple[float, dict[Process, float]]] = {}
        """Those whose drain is over, and that close what is left: since when, and the workers of
        earlier ones, each with how much longer than others it may take to answer."""

    def patches(self) -> list[tuple[Any, str, Any]]:
        """Return what is to replace a method of the product, to see when drains begin."""
        drain = Worker._drain

        def drains(worker: Worker, message: Drain) -> None:
            process = self._world.machine.current
            assert process is not None, "a worker runs"
            self._judge_begin(process, message.seconds)
            now = self._busy_at[process] = self._world.timeline.now
            self._until[process] = now + message.seconds
            self._replies_until[process] = now + min(message.seconds, _REPLIES_S)
            check = partial(self._check, process, message.seconds)
            self._world.timeline.after(message.seconds + self._slack_s, check)
            drain(worker, message)

        return [(Worker, "_drain", drains)]

    def _judge_begin(self, worker: Process, seconds: float) -> None:
        """Judge that a worker's own control process drains, or that a later one serves."""
        world, parent = self._world, worker.parent
        assert parent is not None, "it is a worker"
        allowed = {self._ending[parent]} if parent in self._ending else set()
        later = world.controls[world.controls.index(parent.main) + 1 :]
        # In one that gives up nothing notes that it serves.
        if any(each.serves or world.disturbances.has_given_up(each.process) for each in later):
            allowed.add(world.plan.drain_s)
        what = f"{worker.name} is to drain for {seconds:g} s, and may for {sorted(allowed)}"
        world.judgements.check(BEGUN, seconds in allowed, what)

    def look(self) -> None:
        """Judge that no worker drains on without a client; call it again and again."""
        world, now = self._world, self._world.timeline.now
        for worker, busy_at in list(self._busy_at.items()):
            if worker.is_dead:
                del self._busy_at[worker]
                world.judgements.right(IDLE)
            elif any(each.is_open and each.stream in worker.kernel.taken for each in world.clients):
                self._busy_at[worker] = now
            elif max(busy_at, worker.loop.held_until) + self._idle_s < now:
                del self._busy_at[worker]
                what = f"{worker.name} drains, and has had no client for {now - busy_at:.1f} s"
                world.judgements.violate(IDLE, what)

    def ends(self, control: Process) -> bool:
        """Return whether a control process ends its workers, or has: its drain is over."""
        return self._world.disturbances.has_given_up(control) or control in self._drained

    def note_start(self, control: Process) -> None:
        """Judge that a control process that starts a worker doesn't drain."""
        what = f"{control.name} starts a worker, and drains"
        self._world.judgements.check(AWAITED, control not in self._ending, what)

    def has_begun(self, worker: Process) -> bool:
        """Return whether a worker was told to drain."""
        return worker in self._until

    def replies_until(self, worker: Process) -> float | None:
        """Return until when a worker that drains passes replies of UDP on; None: it doesn't."""
        return self._replies_until.get(worker)

    def may_reset(self, worker: Process) -> bool:
        """Return whether a worker's time to drain is over, or it was to end without one."""
        return self._world.timeline.now >= self._until.get(worker, 0.0) - EARLY_S

    def note_relief(self, control: Control) -> None:
        """Note that a control process serves, and that those before are to drain from now on."""
        assert control.plane is not None, "it serves"
        # One that has died since has run before, or its start has failed.
        have_run = all(slot.is_running or slot.restarts for slot in control.plane._workers)
        what = f"{control.process.name} serves before its workers do"
        self._world.judgements.check(RELIEVED, have_run, what)
        self._check_applied(control)
        for process in self._world.machine.alive(WORKER):
            if process.parent is not control.process and not self._is_to_end(process):
                due_s = self._world.plan.drain_s + self._answer_s
                due_s += 0.0 if _is_adopted(process) else _ANSWERS_LATE_S
                began = self._world.timeline.now
                self._world.timeline.after(
                    due_s, self._check_relief, control, process, began, due_s
                )

    def _is_to_end(self, worker: Process) -> bool:
        """Return whether a worker was told before to drain, or to end: it has another time."""
        parent = worker.parent
        is_draining = worker.main is not None and worker.main._is_draining
        return is_draining or parent is None or self.ends(parent)

    def _check_applied(self, control: Control) -> None:
        """Check that workers have answered, and so have applied all that they were sent."""
        world, now, judgements = self._world, self._world.timeline.now, self._world.judgements
        assert control.plane is not None, "it serves"
        for slot in control.plane._workers:
            if slot.link is None or not slot.is_running:
                continue
            process = world.machine.process_of(slot.link.pid)
            held_until = max(each.loop.held_until for each in (process, control.process))
            has_applied = process.is_dead or world.reporting.has_reported(process)
            if not has_applied and held_until >= now - _ANSWER_S:
                judgements.excuse(APPLIED, "it was stopped for longer than it is waited for")
            elif not has_applied and slot.restarts:
                judgements.excuse(APPLIED, "it has just replaced another one")
            elif not has_applied and world.plan.speed.room < _SMALL_ROOM:
                judgements.excuse(APPLIED, "its messages drip")
            else:
                what = f"{control.process.name} serves before {process.name} has what it was sent"
                judgements.check(APPLIED, has_applied, what)

    def _check_relief(self, control: Control, process: Process, began: float, due_s: float) -> None:
        world, now = self._world, self._world.timeline.now
        if process.is_dead:
            world.judgements.right(RELIEVED)
            return
        if world.is_over or world.control is not control:
            return
        ready_at = max(process.loop.held_until, control.process.loop.held_until) + due_s
        if ready_at > now:
            world.timeline.at(ready_at + 0.001, self._check_relief, control, process, began, due_s)
            return
        what = f"{process.name} still runs {now - began:.1f} s after {control.process.name} served"
        world.judgements.violate(RELIEVED, what)

    def judge_left(self, control: Process) -> None:
        """Judge what a control process leaves that ends in order.

        Call it when workers have had the time to read their last orders.
        """
        world, judgements = self._world, self._world.judgements
        drained_at, others = self._drained[control]
        for worker, late_s in others.items():
            if worker.is_dead or self._is_to_end(worker):
                judgements.right(RELIEVED)
                continue
            held_until = max(worker.loop.held_until, control.loop.held_until)
            if held_until + self._answer_s + late_s > drained_at + _WAITS_S:
                judgements.excuse(RELIEVED, "it was stopped until its control process ended")
            elif world.plan.speed.room < _SMALL_ROOM:
                judgements.excuse(RELIEVED, "its messages drip")
            else:
                what = f"{control.name} ends, and leaves {worker.name}, which serves"
                judgements.violate(RELIEVED, what)

    async def drain(self, control: Control, seconds: float) -> None:
        """Have a control process drain its workers, and judge how long that takes."""
        world, process, plane = self._world, control.process, control.plane
        assert plane is not None, "it has served"
        began = world.timeline.now
        mine = [each for each in world.machine.alive(WORKER) if each.parent is process]
        self._ending[process] = seconds
        await plane.drain(seconds)
        others = [each for each in world.machine.alive(WORKER) if each.parent is not process]
        late = {each: 0.0 if _is_adopted(each) else _ANSWERS_LATE_S for each in others}
        self._drained[process] = world.timeline.now, late
        took_s = world.timeline.now - began
        if any(each.loop.held_until > began for each in (process, *mine)):
            return
        what = f"{process.name} drains for {seconds:g} s, which takes {took_s:.1f} s"
        world.judgements.check(AWAITED, took_s <= seconds + self._answer_s, what)
        left = [each for each in mine if not (each.is_dead or each.main._worker is None)]
        if left and took_s < seconds:
            # Those that have reported end by themselves.
            are_done = all(each.main.ended.done() for each in left)
            world.judgements.check(AWAITED, are_done, f"{process.name} leaves workers that drain")

    def _check(self, process: Process, seconds: float) -> None:
        if process.is_dead:
            self._world.judgements.right(ORACLE)
            return
        if self._world.is_over:
            return
        # A timer is set anew after a stop: what is left of the time follows it.
        ready_at = process.loop.held_until + seconds + self._slack_s
        if ready_at > self._world.timeline.now:
            self._world.timeline.at(ready_at + 0.001, partial(self._check, process, seconds))
            return
        what = f"{process.name} drains, and has had {seconds:g} s for that"
        self._world.judgements.violate(ORACLE, what)


def _is_adopted(worker: Process) -> bool:
    """Return whether a worker has a control process, or hasn't noticed that it has lost it."""
    return worker.main is not None and worker.main._reception is None
