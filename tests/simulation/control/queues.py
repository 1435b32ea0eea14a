"""What must hold of queues: clients in them are lost with the last process only."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from userspace_proxy.model import SocketAddress

from ..streams import Stream
from .clients import SERVED_ONES
from .files import Port
from .machine import Process
from .plan import MANY

if TYPE_CHECKING:
    from .control import Control
    from .world import World


class Queues:
    """The oracle of clients that no worker has accepted."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last_dead: tuple[float, Process | None] = (-1.0, None)
        """The process that has died last, and when."""
        world.machine.stopped_listening = self._stopped_listening
        world.machine.refused = self._refused

    def note_death(self, process: Process) -> None:
        """Note that a process is about to close what it has."""
        self._last_dead = self._world.timeline.now, process

    @property
    def _dying(self) -> Process | None:
        """The process whose files are closed at this moment; None: none dies."""
        at, process = self._last_dead
        return process if at == self._world.timeline.now else None

    def _stopped_listening(self, port: Port, cause: str) -> None:
        assert port.local is not None, "it was bound"
        world, at = self._world, SocketAddress(*port.local)
        for queued in port.queue:
            for client in world.clients:
                if queued.peer is client.stream:
                    client.is_excused = "its queue has ended"
        control = world.control
        if cause != "shut down" and (control is None or control.plane is None):
            world.in_force.lost.add(at)
        elif port.queue and self._is_kept(port, at) and not self._was_late():
            world.judgements.violate(
                SERVED_ONES, f"clients in a queue of {at} are reset, and it is served"
            )

    def _is_kept(self, port: Port, at: SocketAddress) -> bool:
        """Return whether no queue of an address may end, unless its last process dies."""
        world = self._world
        plan, control = world.plan, world.control
        if control is None or control.is_ending or world.is_finishing:
            return False
        may_have_fewer = len(plan.workers) > 1 or plan.descriptors < MANY
        if may_have_fewer and not _is_used(control, port):
            # It was handed over, and no worker is left for it.
            return False
        if at in control.failures:
            # It is a late predecessor's.
            return False
        if control.plane is not None and (held := control.plane._listeners._by_key.get(at)):
            there = [each for each in world.desired if each.is_there]
            holder = [each for each in there if each.name == held.group.label]
            if any(each.serving.is_refusing for each in holder):
                # A Service that takes the address over in the same round does so afterwards.
                return False
        return world.in_force.is_to_listen(at)

    def _was_late(self) -> bool:
        """Return whether a worker that dies, or drains, was stopped when it was asked for its port.

        The control process has other sockets there, and the queue of this one ends with the worker.
        """
        world, control = self._world, self._world.control
        workers = (world.machine.current, self._dying)
        return control is not None and any(
            worker is not None and world.adoptions.was_missed(control.process, worker)
            for worker in workers
        )

    def _refused(self, stream: Stream) -> None:
        """Take a client that no socket takes."""
        assert stream.remote is not None, "it dials an address"
        world, at = self._world, SocketAddress(*stream.remote)
        serving = world.in_force.at(at)
        if serving is None or serving.is_refusing or world.is_finishing:
            return
        if at not in world.in_force.lost:
            world.judgements.violate(
                SERVED_ONES, f"{stream.name} was refused at {at}, which is served"
            )


def _is_used(control: Control, port: Port) -> bool:
    """Return whether a control process has opened a port, or has taken it for a listener."""
    if control.process in islice(port.known_to, 1):
        return True
    plane: Any = control.plane
    listeners = () if plane is None else plane._listeners._open.values()
    return any(sock.core.shared is port for each in listeners for sock in each.sockets.socks)
