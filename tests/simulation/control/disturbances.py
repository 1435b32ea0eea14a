"""Readers of counters, control processes that give up, and workers that send what they shouldn't.

a scrape ──▶ Plane.refresh() ──▶ all counters are up to date, within a second
    a control process gives up ──▶ Plane.hang_up(), or close() ──▶ its workers end, none starts
a worker sends nonsense ──▶ it is killed, and replaced
a worker sends what nothing asked for ──▶ as if it hadn't
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from userspace_proxy.facts import EndpointCounters, GroupCounters
from userspace_proxy.frames import HEADER, make_frame
from userspace_proxy.plane.messages import (
    Counted,
    Drained,
    Ejected,
    EndpointReport,
    FromWorker,
    GroupReport,
    HandedOver,
    ListenerClosed,
    PinsSent,
    Returned,
    Running,
    Status,
    WaitBegan,
)
from userspace_proxy.plane.worker_main import WorkerMain

from .files import WORKER, UnixEnd
from .machine import Process
from .plan import ENDPOINTS

if TYPE_CHECKING:
    from .control import Control
    from .world import World

SCRAPE, ABANDON, NONSENSE, UNASKED = "scrape", "abandon", "nonsense", "unasked"
"""What events are."""
EVENTS = frozenset((SCRAPE, ABANDON, NONSENSE, UNASKED))

FRESH = "a reader of counters has them as they are"
LEAVES_NONE = "workers end with a process that gives up"
KILLED = "a worker that sends nonsense is killed"

# A reader doesn't wait for a busy worker for longer than this.
_REFRESH_S = 1.0
# For a process to notice, and to end; for what follows a timer.
_ENDS_S, _SLACK_S = 1.0, 0.2
# A message of a worker doesn't fit, and is sent a part at a time.
_SMALL_ROOM = 4096
# No plan has that many Services, or listeners.
_UNKNOWN = 9_999

_NOTHING = (0,) * len(GroupCounters.names)
_NONE_COUNTED = (0,) * len(EndpointCounters.names)
_REPORT = GroupReport(_UNKNOWN, _NOTHING, [EndpointReport(ENDPOINTS[0], _NONE_COUNTED)])

_NONSENSE = (
    make_frame(b"nonsense", 0),
    make_frame(b'["Counted","one",[],[]]', 0),
    # Sockets that aren't there, and more bytes than a message has.
    make_frame(b'["Drained",0]', 2),
    HEADER.pack(2**31, 0),
)
"""What ends a worker, as it is sent."""
_UNASKED_MESSAGES: tuple[FromWorker, ...] = (
    Ejected(_UNKNOWN, ENDPOINTS[0], True),
    Returned(_UNKNOWN, ENDPOINTS[0]),
    WaitBegan(_UNKNOWN),
    ListenerClosed(_UNKNOWN),
    ListenerClosed(-_UNKNOWN),
    Counted(0, [_REPORT], Status()),
    Counted(_UNKNOWN, [_REPORT], Status()),
    Drained(3),
    Running(1, 0),
    HandedOver(0, [], True),
    PinsSent(),
)
"""What has no effect: it concerns what isn't there, or is repeated or early."""


class Disturbances:
    """The oracles of one run, and the events that they judge."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: list[tuple[Process, Any]] = []
        """Of scrapes, with their control processes."""
        self._gave_up: set[Process] = set()
        self._nonsense_of: dict[int, int] = {}
        """Where it ends among the bytes that a worker sends, by its process ID."""

    def patches(self) -> list[tuple[Any, str, Any]]:
        """Return what is to replace a method of the product if workers are of another version."""
        if not self._world.plan.speaks_more:
            return []
        return [(WorkerMain, "_hand_over", _more_words(WorkerMain._hand_over))]

    def happen(self, what: str, *args: Any) -> None:
        """Carry an event out."""
        world, control = self._world, self._world.control
        if control is None or control.plane is None or control.is_ending:
            return
        if what == SCRAPE:
            control.process.loop.call_soon(self._begin_scrape, control)
        elif what == ABANDON:
            if not world.is_calm:
                control.process.loop.call_soon(self._abandon, control, *args)
        else:
            self._send(what, *args)

    def forget(self) -> None:
        """Have nothing of scrapes run any more."""
        for process, task in self._tasks:
            with process:
                task.get_coro().close()

    def is_expected(self, record: logging.LogRecord) -> bool:
        """Return whether a line of the log is about nonsense that a worker was to send."""
        return getattr(record, "pid", 0) in self._nonsense_of

    def has_read_nonsense(self, end: UnixEnd) -> bool:
        """Return whether a process has read all of the first nonsense of the other one."""
        until = self._nonsense_of.get(end.was_connected_to.pid)
        return until is not None and end.read_bytes >= until

    # -- scrapes -----------------------------------------------------------------------------------

    def _begin_scrape(self, control: Control) -> None:
        task = control.process.loop.make_task(self._scrape(control))
        self._tasks.append((control.process, task))

    async def _scrape(self, control: Control) -> None:
        world, plane, process = self._world, control.plane, control.process
        assert plane is not None, "it serves"
        began = world.timeline.now
        links = [slot.link for slot in plane._workers if slot.is_running]
        asked = [world.machine.process_of(link.pid) for link in links if link is not None]
        await plane.refresh()
        took_s = world.timeline.now - began
        if process.loop.held_until <= began:
            most_s = _REFRESH_S + _SLACK_S + world.ejections.delay_s
            what = f"{process.name} has counters after {took_s:.1f} s"
            world.judgements.check(FRESH, took_s <= most_s, what)
        for worker in asked:
            was_late = any(each.loop.held_until > began for each in (worker, process))
            is_slow = world.plan.speed.room < _SMALL_ROOM
            if worker.is_dead or world.reporting.is_from(worker, began):
                world.judgements.right(FRESH)
            elif took_s >= _REFRESH_S - _SLACK_S and (was_late or is_slow):
                world.judgements.excuse(FRESH, "the worker was stopped, or its messages drip")
            else:
                what = f"{process.name} doesn't have the counters of {worker.name}"
                world.judgements.violate(FRESH, f"{what} after {took_s:.3f} s")

    # -- control processes that give up ------------------------------------------------------------

    def _abandon(self, control: Control, exits_after_s: float) -> None:
        world, process = self._world, control.process
        if control.is_ending:
            return
        world.note(f"{process.name}: gives up")
        self._gave_up.add(process)
        control.abandon(exits_after_s)
        longest_s = exits_after_s + _ENDS_S + world.plan.speed.start_s + world.ejections.delay_s
        world.timeline.after(longest_s, self._check_ended, process, longest_s)

    def _check_ended(self, process: Process, after_s: float) -> None:
        world, now = self._world, self._world.timeline.now
        left = [each for each in world.machine.alive(WORKER) if each.parent is process]
        held_until = max((each.loop.held_until for each in (process, *left)), default=0.0)
        if held_until + after_s > now and left:
            world.timeline.at(held_until + after_s + 0.001, self._check_ended, process, after_s)
        elif left and world.plan.speed.room < _SMALL_ROOM:
            world.judgements.excuse(LEAVES_NONE, "there was no room for the message")
        elif not world.is_over:
            names = [each.name for each in left]
            world.judgements.check(LEAVES_NONE, not left, f"{process.name} left {names}")

    def has_given_up(self, control: Process) -> bool:
        """Return whether a control process has ended its workers to exit."""
        return control in self._gave_up

    def note_start(self, parent: Process) -> None:
        """Judge that a control process that starts a worker hasn't given up."""
        what = f"{parent.name} starts a worker, and has ended the others"
        self._world.judgements.check(LEAVES_NONE, not self.has_given_up(parent), what)

    # -- workers that send what they shouldn't -----------------------------------------------------

    def _send(self, what: str, number: int, which: int) -> None:
        world = self._world
        alive = [each for each in world.machine.alive(WORKER) if self._is_commanded(each)]
        if not alive:
            return
        worker = alive[number % len(alive)]
        if what == NONSENSE:
            worker.loop.call_soon(self._send_nonsense, worker, _NONSENSE[which % len(_NONSENSE)])
            return
        message = _UNASKED_MESSAGES[which % len(_UNASKED_MESSAGES)]
        socks = worker.main._kept.values() if which % 2 else ()
        world.note(f"{worker.name}: sends {message}")
        worker.loop.call_soon(worker.main._channel.send, message, *socks)

    def _is_commanded(self, worker: Process) -> bool:
        control, main = self._world.control, worker.main
        is_mine = control is not None and worker.parent is control.process
        runs = main is not None and main._worker is not None
        return is_mine and runs and main._reception is None and not main._is_draining

    def _send_nonsense(self, worker: Process, frame: bytes) -> None:
        world, parent = self._world, worker.parent
        assert parent is not None, "it is a worker"
        world.note(f"{worker.name}: sends nonsense")
        channel = worker.main._channel
        if (reader := channel._sock.core.peer) is not None:
            unread = sum(len(data) for data, _ in reader.inbox) + channel.waiting_bytes
            self._nonsense_of.setdefault(worker.pid, reader.read_bytes + unread + len(frame))
        channel._queue(frame, (), len(frame))
        world.timeline.after(_ENDS_S + world.ejections.delay_s, self._check_killed, worker, parent)

    def _check_killed(self, worker: Process, parent: Process) -> None:
        world, now = self._world, self._world.timeline.now
        longest_s = _ENDS_S + world.ejections.delay_s
        held_until = max(each.loop.held_until for each in (worker, parent))
        if worker.is_dead:
            world.judgements.right(KILLED)
        elif parent.is_dead or world.is_over or world.is_finishing:
            return
        elif held_until + longest_s > now:
            world.timeline.at(held_until + longest_s + 0.001, self._check_killed, worker, parent)
        else:
            world.judgements.violate(KILLED, f"{worker.name} still runs")


def _more_words(original: Any) -> Any:
    """Return how a worker of another version hands over: with messages that this one hasn't."""

    def hand_over(self: Any) -> None:
        send: Callable[[], None] = partial(_send_unknown, self)
        send()
        original(self)
        send()

    return hand_over


def _send_unknown(main: Any) -> None:
    kept = tuple(main._kept.values())
    frame = make_frame(b'["Tidings",1]', len(kept))
    main._channel._queue(frame, kept, len(frame))
