"""What must hold of workers that die, hang or can't be started: others take their places.

    a worker that was sound dies     ──▶ another one is started at once
    a start fails, or those that are ──▶ another start follows after a pause, which doubles with
    started die soon                     each failure: 0.1 s, 0.2 s, …, 5 s

Rule 1: each start is judged by what happened in the same place before: neither too soon nor late.
Rule 2: where it isn't known whether a worker counts as sound, both pauses are right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from userspace_proxy.plane.workers import WorkerSlot

from .files import WORKER
from .machine import Process
from .plan import EARLY_S

if TYPE_CHECKING:
    from .world import World

REPLACED = "a worker that dies is replaced at once"
AGAIN = "starts are tried again in time"
HUNG = "a worker that hangs is killed"

# A worker that has run for longer doesn't die of its start: half a second, and its first message.
_SOUND_S = 0.6
# Five looks without a beat, one that finds the last beat, and the latency of two processes.
_HUNG_S = 2.0
# For another process to notice, and to start one.
_NOTICED_S, _ITERATIONS = 0.05, 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class _Place:
    """A place for a worker in one control process."""

    def __init__(self, parent: Process, index: int) -> None:
        self.parent = parent
        self.index = index
        self.least = self.most = 0
        """Failures in a row, as far as it is known."""
        self.events = 0
        """How many starts, failures and deaths there were."""
        self.owes = ""
        """The oracle that a start is owed to; empty if none is."""
        self.not_before = 0.0
        """When that may be."""


class Replacements:
    """The oracles of one run that look at starts of workers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._places: dict[tuple[Process, int], _Place] = {}
        self._place_of: dict[Process, _Place] = {}
        self._ran_at: dict[Process, float] = {}
        """When workers began to run."""
        self._delay_s = _NOTICED_S + _ITERATIONS * world.machine.speed.latency_s

    def patches(self) -> list[tuple[Any, str, Any]]:
        """Return what is to replace methods of the product, to see which place a start is for."""
        return [(WorkerSlot, "start", _watched(WorkerSlot.start, self._start))]

    def is_first(self, slot: WorkerSlot) -> bool:
        """Return whether a place has had one start at most, and no failure or death."""
        assert self._world.control is not None, "it has workers"
        place = self._places.get((self._world.control.process, slot.index))
        return place is None or place.events <= 1

    def note_worker(self, process: Process) -> None:
        """Note that a worker begins to run."""
        self._ran_at[process] = self._world.timeline.now

    def note_death(self, process: Process) -> None:
        """Note that a process dies: if it is a worker, another one is to take its place."""
        place = self._place_of.pop(process, None)
        if place is None or place.parent.is_dead:
            return
        ran_at, now = self._ran_at.get(process), self._world.timeline.now
        # Then it may not have reported that it runs, or that may not have been read.
        held_until = max(place.parent.loop.held_until, process.loop.held_until)
        if ran_at is None:
            place.least += 1
            place.most += 1
        elif now - ran_at >= _SOUND_S and held_until <= ran_at:
            place.least = place.most = 0
        else:
            place.least = 0
            place.most += 1
        self._owe(place, REPLACED)

    def note_hung(self, process: Process) -> None:
        """Note that a process hangs from now on: if it is a worker that runs, it is killed."""
        control, began = self._world.control, self._world.timeline.now
        if control is None or control.plane is None or process.kind != WORKER:
            return
        if process.loop.held_until < began + _HUNG_S:
            # It goes on before, and what stops it again is another event.
            return
        slots = [slot for slot in control.plane._workers if slot.link and slot.is_running]
        if any(slot.link is not None and slot.link.pid == process.pid for slot in slots):
            self._world.timeline.after(_HUNG_S, self._check_killed, process, control.process, began)

    def _check_killed(self, process: Process, parent: Process, began: float) -> None:
        control, now = self._world.control, self._world.timeline.now
        is_same = control is not None and control.process is parent and not control.is_ending
        hangs = process.is_hung and process.loop.held_until > now
        if process.is_dead:
            self._world.judgements.right(HUNG)
        elif is_same and hangs and parent.loop.held_until < began:
            self._world.judgements.violate(HUNG, f"{process.name} hangs for {_HUNG_S:g} s")

    def _start(self, slot: WorkerSlot, call: Callable[[], None]) -> None:
        """Start a worker, and judge when that happens."""
        machine = self._world.machine
        parent = machine.current
        assert parent is not None, "a process runs"
        self._world.disturbances.note_start(parent)
        self._world.draining.note_start(parent)
        call()
        now, key = self._world.timeline.now, (parent, slot.index)
        place = self._places.setdefault(key, _Place(*key))
        if place.owes:
            is_early = now < place.not_before - EARLY_S
            why = f"{parent.name} starts worker {slot.index} again without a pause"
            self._world.judgements.check(place.owes, not is_early, why)
            place.owes = ""
        place.events += 1
        if slot.link is not None:
            self._place_of[machine.processes[-1]] = place
            return
        place.least, place.most = max(2, place.least + 1), max(2, place.most + 1)
        self._owe(place, AGAIN)

    def _owe(self, place: _Place, oracle: str) -> None:
        """Have a start follow in a place, or else violate an oracle."""
        now = self._world.timeline.now
        place.events += 1
        place.owes, place.not_before = oracle, now + _pause_s(place.least)
        due_s = _pause_s(place.most) + self._delay_s
        self._world.timeline.after(due_s, self._check, place, place.events, due_s)

    def _check(self, place: _Place, events: int, due_s: float) -> None:
        """Judge that something has happened in a place since that event."""
        control, now = self._world.control, self._world.timeline.now
        if place.events != events or control is None or control.is_ending:
            return
        if control.process is not place.parent:
            return
        held_until = place.parent.loop.held_until
        if held_until + due_s > now:
            again_at = held_until + due_s + 0.001
            self._world.timeline.at(again_at, self._check, place, events, due_s)
            return
        why = f"{place.parent.name} starts no other worker {place.index}"
        self._world.judgements.violate(place.owes, why)


def _pause_s(failures: int) -> float:
    """Return how long to wait for another start after failures in a row."""
    return 0.0 if failures < 2 else min(_FIRST_PAUSE_S * 2.0 ** (failures - 2), _LONGEST_PAUSE_S)


def _watched(original: Any, start: Callable[..., None]) -> Any:
    def watched(self: Any) -> None:
        start(self, partial(original, self))

    return watched
