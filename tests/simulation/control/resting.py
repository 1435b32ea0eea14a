"""What must hold at rest: each process has exactly what is in force, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from userspace_proxy.model import SocketAddress

from .files import WORKER, PlainCopy, TcpCopy, UdpCopy, UnixEnd
from .machine import Process
from .plan import MANY
from .system_calls import Pidfd

if TYPE_CHECKING:
    from .world import World

REST = "at rest"


class Resting:
    """The oracle of sockets, groups and listeners of one run."""

    def __init__(self, world: World) -> None:
        self.world = world

    def check(self) -> None:
        """Check that what is in force is in each process, and nothing else."""
        world = self.world
        world.judgements.right(REST)
        control = world.control
        if control is None or control.plane is None:
            world.judgements.violate(REST, "no control process runs")
            return
        plane = control.plane
        if not plane.has_all_workers:
            world.judgements.violate(REST, "a worker is missing at rest")
            return
        if problems := plane.state().problems:
            world.judgements.violate(REST, f"problems at rest: {problems}")
        children = {slot.link.pid: slot.index for slot in plane._workers if slot.link is not None}
        for process in world.machine.alive(WORKER):
            if process.pid not in children:
                world.judgements.violate(REST, f"{process.name} is left over")
        for process in world.machine.alive(WORKER):
            self._check_worker(plane, process, children[process.pid])
            if world.machine.violations:
                return
        self._check_control(plane, control.process)
        self._check_ports(plane)

    def _check_worker(self, plane: Any, process: Process, index: int) -> None:
        worker = process.main._worker
        name = process.name
        groups = {number: (g.label, g.serving) for number, g in worker._groups.items()}
        wanted = {number: (g.label, g.serving) for number, g in plane._groups.items()}
        if groups != wanted:
            self.world.judgements.violate(
                REST, f"{name} has groups {groups}, in force are {wanted}"
            )
        listeners = {
            number: (listener.group, SocketAddress(*listener.sock.getsockname()))
            for number, listener in worker._listeners.items()
        }
        in_force = {
            listener.number: (worker._groups[listener.group.number], listener.address)
            for listener in plane._listeners._open.values()
            if listener.is_serving and index in listener.workers
        }
        if listeners != in_force:
            self.world.judgements.violate(
                REST, f"{name} has listeners {sorted(listeners)}, in force are {sorted(in_force)}"
            )
        copies = [f for f in process.kernel.files.values() if isinstance(f, TcpCopy | UdpCopy)]
        if len(copies) != len(listeners):
            self.world.judgements.violate(
                REST, f"{name} has {len(copies)} ports for {len(listeners)} listeners"
            )
        plain = sorted(f.name for f in process.kernel.files.values() if isinstance(f, PlainCopy))
        if plain != ["eventfd", "netlink socket"]:
            self.world.judgements.violate(REST, f"{name} has {plain}")
        dialer = worker._dataplane.engine.client_dialer
        networks = dialer.locality._networks if dialer.is_on else None
        if networks != self.world.networks:
            what = f"{name} knows networks {networks}, in force are {self.world.networks}"
            self.world.judgements.violate(REST, what)
        ends = [f for f in process.kernel.files.values() if isinstance(f, UnixEnd)]
        if len(ends) != 1:
            self.world.judgements.violate(
                REST, f"{name} has {len(ends)} connections to control processes"
            )

    def _check_control(self, plane: Any, process: Process) -> None:
        files = list(process.kernel.files.values())
        copies = [f for f in files if isinstance(f, TcpCopy | UdpCopy)]
        known = sum(
            len(listener.sockets.by_worker) + (listener.sockets._hold is not None)
            for listener in plane._listeners._open.values()
        )
        if len(copies) != known:
            self.world.judgements.violate(
                REST, f"{process.name} has {len(copies)} ports, its listeners {known}"
            )
        ends = sum(isinstance(f, UnixEnd) for f in files)
        if ends != len(plane._workers):
            self.world.judgements.violate(REST, f"{process.name} has {ends} connections to workers")
        pidfds = sum(isinstance(f, Pidfd) for f in files)
        if pidfds != len(plane._workers):
            self.world.judgements.violate(REST, f"{process.name} has {pidfds} pidfds")
        for child in self.world.machine.processes:
            if child.parent is process and child.is_dead and not child.is_reaped:
                self.world.judgements.violate(REST, f"{child.name} was not waited for")
        plain = sum(isinstance(f, PlainCopy) for f in files)
        if plain != len(plane._workers) + 1:
            self.world.judgements.violate(
                REST, f"{process.name} has {plain} eventfds and netlink sockets"
            )
        if plane._listeners._leaving:
            self.world.judgements.violate(
                REST, f"listeners are leaving at rest: {plane._listeners._leaving}"
            )

    def _check_shared(self, plane: Any) -> None:
        """Check that no other program may bind a port that one worker alone serves."""
        plan = self.world.plan
        if plan.workers != (1,) or plan.descriptors < MANY:
            return
        for listener in plane._listeners._open.values():
            for sock in listener.sockets.by_worker.values() if listener.is_serving else ():
                if sock.core.shared.is_shared:
                    what = f"{listener.address} may be shared with another program"
                    self.world.judgements.violate(REST, what)

    def _check_ports(self, plane: Any) -> None:
        known = {
            sock.core.shared
            for listener in plane._listeners._open.values()
            for sock in (*listener.sockets.by_worker.values(), listener.sockets._hold)
            if sock is not None
        }
        self._check_shared(plane)
        for port in self.world.machine.ports:
            if port not in known:
                self.world.judgements.violate(REST, f"port {port.port} is left over")
