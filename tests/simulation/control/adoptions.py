"""Judges what a control process adopts of the last one's workers, and why it lacks a port.

    control process begins ──HandOver──▶ each worker that waits for one
                           ◀──sockets──  ──▶ it has all of them before it opens any

Rule 1: a worker that serves on alone hands over all that it serves, and in time, unless it was
stopped, its messages drip, or there is no room for its sockets.
Rule 2: a port that can't be bound is excused by the one process that has it: another program, a
worker that drains, or one whose sockets weren't adopted, or were and have been closed since.
Rule 3: the order of the sockets of a port isn't known if two workers that had some are missing, or
if those of two control processes have different ones.
Rule 4: what a worker hands over too late is closed at once: when that worker dies, it would keep
the control process itself from binding the port.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import TYPE_CHECKING

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane.adoption import ANSWER_S

from .files import WORKER, TcpCopy, UdpCopy
from .holders import is_draining
from .machine import Process
from .plan import EARLY_S, MANY

if TYPE_CHECKING:
    from .control import Control, Desired
    from .files import Port, Sharers
    from .world import World

ADOPTED = "what predecessors serve is adopted"
BINDS = "ports are bound"
CLOSED_LATE = "sockets that arrive late are closed"

# A message is sent a part at a time with less room.
_SMALL_ROOM = 4096


class Adoptions:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._why: dict[tuple[Process, Process], str] = {}
        """By control process and worker: why that one may not have been adopted."""
        self._refusing: set[tuple[Process, Port]] = set()
        """By control process: what refused when it began, as its workers were yet to read."""
        self._adopted: dict[Process, set[Port]] = {}
        """By control process: the ports that it had when it began."""

    def note(self, control: Process, began: float) -> None:
        """Judge what a control process has when it has waited for predecessors since then."""
        world = self._world
        self._adopted[control] = _ports_of(control)
        for sharers in world.machine.sharers.values():
            _note_order(sharers, control, self._adopted[control])
        was_late = world.timeline.now - began >= ANSWER_S - EARLY_S
        if was_late:
            self._judge_wait(control, began)
        for worker in world.machine.alive(WORKER):
            if worker.parent is control or is_draining(worker):
                continue
            ports = [port for port in world.machine.ports if worker in port.holders]
            self._refusing.update((control, port) for port in ports if _refuses(port))
            left = [port for port in ports if not (_refuses(port) or _has(control, port))]
            if why := self._find_why(control, worker, began, was_late) if left else "":
                self._why[control, worker] = why
                world.judgements.excuse(ADOPTED, why)
            else:
                what = f"{control.name} hasn't adopted {len(left)} ports of {worker.name}"
                world.judgements.check(ADOPTED, not left, what)

    def note_relief(self, control: Process) -> None:
        """Judge that a control process that is about to relieve others has nothing that was late.

        It has what it had when it began, and what it has opened.
        """
        others = _ports_of(control) - self._adopted[control]
        late = sorted(port.port for port in others if next(iter(port.known_to)) is not control)
        what = f"{control.name} has kept ports {late}, which it was handed over too late"
        self._world.judgements.check(CLOSED_LATE, not late, what)

    def _judge_wait(self, control: Process, began: float) -> None:
        """Judge that a control process that gives up waiting has had to wait for a worker."""
        world = self._world
        if any(each.loop.held_until > began for each in world.machine.processes):
            world.judgements.excuse(ADOPTED, "a process was stopped meanwhile")
        elif world.plan.speed.room < _SMALL_ROOM:
            world.judgements.excuse(ADOPTED, "messages drip")
        else:
            what = f"{control.name} waits for predecessors that have all answered, or ended"
            world.judgements.violate(ADOPTED, what)

    def _find_why(self, control: Process, worker: Process, began: float, was_late: bool) -> str:
        """Return why a worker may not have been adopted; empty if it must have been."""
        world = self._world
        if worker.parent is not None and world.disturbances.has_given_up(worker.parent):
            return "its control process has given up"
        if was_late and max(each.loop.held_until for each in (control, worker)) > began:
            return "it was stopped when it was asked"
        if was_late and world.plan.speed.room < _SMALL_ROOM:
            return "its messages drip"
        if world.plan.descriptors < MANY:
            return "it may have more sockets than there is room for"
        return ""

    def was_missed(self, control: Process, worker: Process) -> bool:
        """Return whether a control process has less than a worker served when it began."""
        return (control, worker) in self._why

    def judge(self, control: Control, desired: Desired, failed: Collection[Hashable]) -> None:
        """Judge that the ports of a Service are bound, but for those that something else has."""
        judgements = self._world.judgements
        for at in desired.chosen:
            if at not in failed:
                judgements.right(BINDS)
            elif why := self._why_held(control, desired, at):
                judgements.excuse(BINDS, why)
            else:
                judgements.violate(BINDS, f"{control.process.name} cannot bind {at}")

    def _why_held(self, control: Control, desired: Desired, at: SocketAddress) -> str:
        """Return what has a port, and why it may have it; empty if nothing may."""
        machine, is_tcp = self._world.machine, desired.planned.protocol is Protocol.TCP
        if ((at.ip, at.port), is_tcp) in machine.others:
            return "another program has it"
        has_closed = control.serves or at in control.tried
        for port in machine.ports:
            if port.local != (at.ip, at.port) or port.is_tcp != is_tcp:
                continue
            for holder in port.holders:
                if why := self._why_of(control.process, port, holder, has_closed=has_closed):
                    return why
        return ""

    def _why_of(self, control: Process, port: Port, holder: Process, *, has_closed: bool) -> str:
        """Return why a process may have a port that a control process wants; empty: it may not.

        Args:
            has_closed: The control process may have closed what it had adopted there.
        """
        if holder is control and any(end.process is control for end in port.unread_at):
            # The process that has sent it may have ended.
            reasons = (self._why.get((control, each), "") for each in port.known_to)
            return next(filter(None, reasons), "")
        if control in (holder, holder.parent):
            return ""
        if (control, port) in self._refusing:
            return "a worker of the last control process hasn't read that it is to refuse"
        if is_draining(holder):
            return "a worker that drains has it"
        if why := self._why.get((control, holder)):
            return why
        return "a worker that is yet to drain has it still" if has_closed else ""


def _note_order(sharers: Sharers, control: Process, adopted: set[Port]) -> None:
    """Note whether the order of several sockets can't be known.

    Two workers or more lack theirs: those that have died have moved others, and those that are late
    will, and not known is which. Or workers of different control processes have different ones,
    under indexes that each of these has given.
    """
    lacking = sum(port not in adopted for port in sharers.ports)
    if 1 < len(sharers.ports) > lacking:
        sharers.is_unordered |= lacking + sharers.left > 1
    parts: dict[Process | None, set[Port]] = {}
    for port in adopted.intersection(sharers.ports):
        for worker in port.holders:
            if control not in (worker, worker.parent) and not is_draining(worker):
                parts.setdefault(worker.parent, set()).add(port)
    sharers.is_unordered |= any(part != next(iter(parts.values())) for part in parts.values())


def _ports_of(process: Process) -> set[Port]:
    files = process.kernel.files.values()
    return {each.shared for each in files if isinstance(each, TcpCopy | UdpCopy)}


def _has(process: Process, port: Port) -> bool:
    return any(copy.process is process for copy in port.copies)


def _refuses(port: Port) -> bool:
    return port.is_tcp and not port.is_listening
