"""What workers have of what their control process has: the same, once all messages are read.

    control process ──changes, sockets──▶ worker: its groups, its listeners

Rule 1: a worker doesn't accept where it knows of no endpoint: a listener leaves a group before the
group loses its endpoints, whatever waits in between.
Rule 2: when no message is under way, each queue that is served is served by one worker, which may
stand in for a missing one, and as the control process says.
Rule 3: an excuse is about one listener that left behind another one of its group.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from userspace_proxy.plane.messages import (
    ChangeGroup,
    CloseGroup,
    CloseListener,
    MoveListener,
    OpenListener,
    ToWorker,
)
from userspace_proxy.plane.worker import Worker
from userspace_proxy.plane.workers import WorkerSlot

from .machine import Process
from .plan import MANY

if TYPE_CHECKING:
    from userspace_proxy.plane import Plane

    from .world import World

ACCEPTS = "no worker accepts without an endpoint"
SAME = "workers know what is in force"
ONE = "each queue is served by one worker"

_Listener = tuple[Process, int]
"""A worker, and its number of a listener."""


class Agreement:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._group_of: dict[_Listener, int] = {}
        """As it was sent."""
        self._leaves: dict[_Listener, deque[int | None]] = {}
        """The groups that it is to leave, in order, as far as the worker hasn't read it yet."""
        self._leaving: Counter[tuple[Process, int]] = Counter()
        """Of these, how many listeners leave a group of a worker."""
        self._is_due = False
        """Something was sent or read, or a worker has died, since workers were last compared."""
        self._behind: set[_Listener] = set()
        """Those that leave behind another one: changes of their group may be merged before that."""

    def patches(self) -> list[tuple[Any, str, Any]]:
        """Return what is to replace methods of the product, to see what is sent and read."""
        return [
            (WorkerSlot, "send", _sent(WorkerSlot.send, self._note_sent)),
            (Worker, "apply", _applied(Worker.apply, self._note_applied)),
        ]

    def note_death(self) -> None:
        """Note that a process dies, which others may have to stand in for."""
        self._is_due = True

    # -- what is under way -------------------------------------------------------------------------

    def _note_sent(self, slot: WorkerSlot, message: ToWorker) -> None:
        self._is_due = True
        if slot.link is None:
            return
        worker = self._world.machine.process_of(slot.link.pid)
        if isinstance(message, OpenListener):
            self._group_of[worker, message.listener] = message.group
        elif isinstance(message, MoveListener | CloseListener):
            listener = worker, message.listener
            group = self._group_of.pop(listener, None)
            self._leaves.setdefault(listener, deque()).append(group)
            if group is None:
                # It refuses, so the worker has none.
                return
            if self._leaving[worker, group]:
                self._behind.add(listener)
            self._leaving[worker, group] += 1
            if isinstance(message, MoveListener):
                self._group_of[listener] = message.group

    def _note_applied(self, worker: Worker, message: ToWorker, call: Callable[[], None]) -> None:
        """Carry a command out, and judge whether the worker accepts where it has no endpoint."""
        process = self._world.machine.current
        assert process is not None, "a worker runs"
        self._is_due = True
        if isinstance(message, MoveListener | CloseListener):
            self._note_left((process, message.listener))
        call()
        if isinstance(message, ChangeGroup | CloseGroup | OpenListener | MoveListener):
            self._judge_refusing(worker, process)

    def _note_left(self, listener: _Listener) -> None:
        leaves = self._leaves[listener]
        group = leaves.popleft()
        if group is not None:
            self._leaving[listener[0], group] -= 1
        if not leaves:
            self._behind.discard(listener)

    def _judge_refusing(self, worker: Worker, process: Process) -> None:
        judgements = self._world.judgements
        for number, listener in worker._listeners.items():
            if not listener.group.serving.is_refusing:
                judgements.right(ACCEPTS)
            elif (process, number) in self._behind:
                judgements.excuse(ACCEPTS, "it leaves behind another listener of its group")
            else:
                what = f"{process.name} accepts at listener {number}, and knows of no endpoint"
                judgements.violate(ACCEPTS, what)

    # -- when nothing is under way -----------------------------------------------------------------

    def look(self) -> None:
        """Compare workers with their control process, if no message is under way."""
        control = self._world.control
        if not self._is_due or control is None or control.plane is None or control.is_ending:
            return
        plane = control.plane
        children = {
            slot.index: self._world.machine.process_of(slot.link.pid)
            for slot in plane._workers
            if slot.link is not None
        }
        if all(_is_quiet(plane, index, process) for index, process in children.items()):
            self._is_due = False
            for process in children.values():
                self._compare_groups(plane, process)
            self._compare_listeners(plane, children)

    def _compare_groups(self, plane: Plane, process: Process) -> None:
        worker = process.main._worker
        wanted = plane._groups
        is_same = worker._groups.keys() == wanted.keys() and all(
            group.serving == wanted[number].serving and group.label == wanted[number].label
            for number, group in worker._groups.items()
        )
        self._world.judgements.check(
            SAME,
            is_same,
            lambda: (
                f"{process.name} has groups {_described(worker._groups)}, "
                f"in force are {_described(wanted)}"
            ),
        )

    def _compare_listeners(self, plane: Plane, children: dict[int, Process]) -> None:
        judgements = self._world.judgements
        left = {
            (index, number): listener
            for index, process in children.items()
            for number, listener in process.main._worker._listeners.items()
        }
        for listener in plane._listeners._open.values():
            for index, sock in listener.sockets.by_worker.items() if listener.is_serving else ():
                port = sock.core.shared  # type: ignore[attr-defined]
                mine = [key for key, held in left.items() if held.sock.core.shared is port]
                what = f"{len(mine)} workers serve the socket of worker {index} at"
                is_right = len(mine) == 1 or (not mine and self._may_wait(plane, children, index))
                judgements.check(ONE, is_right, f"{what} {listener.address}")
                for holder, number in mine:
                    group = left.pop((holder, number)).group
                    groups = children[holder].main._worker._groups
                    judgements.check(
                        SAME,
                        groups.get(listener.group.number) is group,
                        f"{children[holder].name} serves {group.label} at {listener.address}, "
                        f"which is {listener.group.label}'s",
                    )
        judgements.check(ONE, not left, f"workers have listeners {list(left)} that aren't open")

    def _may_wait(self, plane: Plane, children: dict[int, Process], index: int) -> bool:
        """Return whether no worker has to stand in for one that is missing."""
        if index in children and plane._workers[index].is_running:
            return False
        if self._world.plan.descriptors < MANY:
            return True
        # Nothing has ended, and no start has failed: it is yet to run for the first time.
        is_first = self._world.replacements.is_first(plane._workers[index])
        return is_first or not any(slot.is_running for slot in plane._workers)


def _is_quiet(plane: Plane, index: int, process: Process) -> bool:
    """Return whether a worker has read all that it was sent, and has said all about it."""
    slot: Any = plane._workers[index]
    main = process.main
    if process.is_dead or main is None or main._worker is None or main._is_draining or slot.asked:
        return False
    channels = (slot.link._channel, main._channel)
    return not any(
        channel._is_closed or channel._waiting or channel._arrived or channel._sock.core.inbox
        for channel in channels
    )


def _described(groups: Any) -> list[str]:
    return [f"{n} {each.label} {each.serving}" for n, each in groups.items()]


def _sent(original: Any, note: Callable[[WorkerSlot, ToWorker], None]) -> Any:
    def send(self: Any, message: ToWorker, *socks: Any) -> bool:
        note(self, message)
        return bool(original(self, message, *socks))

    return send


def _applied(original: Any, note: Callable[[Worker, ToWorker, Callable[[], None]], None]) -> Any:
    def apply(self: Any, message: ToWorker, sock: Any = None) -> None:
        note(self, message, partial(original, self, message, sock))

    return apply
