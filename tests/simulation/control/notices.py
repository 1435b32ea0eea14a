"""What a control process tells others of: endpoints that workers eject, and clients that wait.

    worker: an ejection begins or ends ──▶ Plane.on_ejection (probes, Events)
    worker: a first client waits       ──▶ Plane.on_waits    (a workload is woken)

Rule 1: each is judged once, when the message has had its time; a stop of a process prolongs that.
Rule 2: what concerns a group that is closed meanwhile isn't judged, nor what a process that has
died didn't send or read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.plane import Group, Plane

from .machine import Process

if TYPE_CHECKING:
    from .world import World

PASSED_ON = "what workers find is passed on"

_What = tuple[Process, int, "SocketAddress | None", bool]
"""A control process, a group, an endpoint or none for clients that wait, and whether it begins."""


class Notices:
    """The oracle of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._noticed: dict[_What, float] = {}
        """When it last was."""

    def watch(self, plane: Plane) -> None:
        """Take what a control process tells of."""
        plane.on_ejection.append(self._note_ejection)
        plane.on_waits = self._note_wait

    def _note_ejection(self, group: Group, endpoint: SocketAddress, is_ejected: bool) -> None:
        self._note(group, endpoint, is_ejected=is_ejected)

    def _note_wait(self, group: Group) -> None:
        self._note(group, None, is_ejected=True)

    def _note(self, group: Group, endpoint: SocketAddress | None, *, is_ejected: bool) -> None:
        control = self._world.machine.current
        assert control is not None, "a process runs"
        self._noticed[control, group.number, endpoint, is_ejected] = self._world.timeline.now

    def expect(
        self, worker: Process, group: int, endpoint: SocketAddress | None, *, is_ejected: bool
    ) -> None:
        """Note what a worker finds now.

        Args:
            endpoint: None: a first client waits.
        """
        if worker.parent is not None:
            now, delay_s = self._world.timeline.now, self._world.ejections.delay_s
            what = worker.parent, group, endpoint, is_ejected
            self._world.timeline.after(delay_s, partial(self._judge, worker, what, now))

    def _judge(self, worker: Process, what: _What, since: float) -> None:
        world, now, control = self._world, self._world.timeline.now, what[0]
        if world.control is None or world.control.process is not control or worker.is_dead:
            return
        if world.control.is_ending or world.is_finishing:
            return
        held_until = max(each.loop.held_until for each in (worker, control))
        if held_until >= since and held_until + world.ejections.delay_s > now:
            again_at = held_until + world.ejections.delay_s + 0.001
            world.timeline.at(again_at, partial(self._judge, worker, what, since))
            return
        plane = world.control.plane
        assert plane is not None, "it has workers"
        if what[1] not in plane._groups:
            return
        named = f"group {what[1]}: {what[2] or 'clients wait'}, {what[3]}"
        is_right = self._noticed.get(what, -1.0) >= since
        world.judgements.check(PASSED_ON, is_right, f"{control.name} isn't told of {named}")
