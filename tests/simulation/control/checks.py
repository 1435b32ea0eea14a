"""What must hold: while it runs, and at rest.

Rule 1: a client is refused, or reset, only for a reason that the plan has.
Rule 2: at rest the node has exactly the sockets, groups and listeners that are in force.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.worker_main import ORPHAN_S

from ..streams import Stream
from .clients import DIALS, ENDED, REFUSED, RESET, SERVED, WAITS, Asker, Client
from .files import CONTROL, WORKER, PlainCopy, Port, TcpCopy, UdpCopy, UnixEnd
from .machine import Process
from .system_calls import Pidfd

if TYPE_CHECKING:
    from .control import Desired
    from .world import World


# For a client to be served by a worker that runs, also if it reads its messages late.
_WAIT_S = 2.5
# Descriptors: with fewer no worker stands in for another one.
_MANY = 100
# For a control process to end, and for another one to start.
_ENDS_S = 5.0
# For an ejection to end, and for a dial.
_EJECTED_S = 6.0


class Checks:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._in_force: dict[SocketAddress, Serving] = {}
        """As the last control process has said."""
        self._lost: set[SocketAddress] = set()
        """Where a port ended with its last process, or may have: it died in a round."""
        self._changed_at: dict[SocketAddress, float] = {}
        """When an address was last refusing, or closed, or was to be."""
        self._dying: Process | None = None
        self._runs: set[int] = set()
        """The workers of the last look that carry traffic."""
        self._disturbed_at = 0.0
        """When anything but a client last happened."""
        self._broken_until = 0.0
        """An endpoint may be ejected until then."""
        self._orphaned_at = 0.0
        """When a control process last ended."""
        self._kept = 0
        """The number of the socket that workers keep."""
        self._pins: dict[tuple[SocketAddress, str], str] = {}
        """By address and client: the endpoint that it had in calm."""
        world.machine.accepted = self._accepted
        world.machine.stopped_listening = self._stopped_listening
        world.machine.refused = self._refused

    # -- while it runs -----------------------------------------------------------------------------

    def disturb(self, until: float) -> None:
        """Note that clients may wait until then, and a while longer."""
        self._disturbed_at = max(self._disturbed_at, until)

    def note_broken(self, seconds: float) -> None:
        """Note that an endpoint is broken for a while, so clients may be reset, or wait."""
        self._broken_until = max(self._broken_until, self.world.timeline.now + seconds + _EJECTED_S)
        self.disturb(self._broken_until)

    def note_wanted(self, desired: Desired) -> None:
        """Note that a Service is to be served in another way."""
        now = self.world.timeline.now
        self.disturb(now)
        for at in desired.addresses:
            if not self._is_to_serve(desired, at):
                self._changed_at[at] = now

    def _is_to_serve(self, desired: Desired, at: SocketAddress) -> bool:
        is_open = desired.is_there and at in desired.chosen
        return is_open and not desired.serving.has_none

    def note_answer(self, desired: Desired, failures: set[SocketAddress]) -> None:
        """Note that the plane serves a Service from now on."""
        for at in desired.chosen:
            before = self._in_force.pop(at, None)
            if at in failures or before is None or before.has_none or desired.serving.has_none:
                self._changed_at[at] = self.world.timeline.now
            if at not in failures:
                self._in_force[at] = desired.serving
                self._lost.discard(at)

    def note_round(self) -> None:
        """Note that what isn't wanted is closed."""
        wanted = {at for each in self.world.desired if each.is_there for at in each.chosen}
        for at in [at for at in self._in_force if at not in wanted]:
            del self._in_force[at]

    def note_end(self) -> None:
        """Note that the control process is about to close all groups."""
        now = self.world.timeline.now
        self._changed_at.update(dict.fromkeys(self._in_force, now))
        self._in_force.clear()
        self.disturb(now + _ENDS_S)

    def dying(self, process: Process) -> None:
        """Excuse the clients of a process that dies."""
        self._dying = process
        now = self.world.timeline.now
        self.disturb(now)
        if process.kind == CONTROL:
            self._orphaned_at = now
            self._lost.update(at for at in self._in_force if not self._is_to_listen(at))
        elif process.status == 1 and process.main is not None:
            may_end = process.main._worker is None or now - self._orphaned_at >= ORPHAN_S
            if not may_end:
                self.world.violate(f"{process.name} ended by itself")
        for client in self._clients_of(process):
            client.is_excused = f"{process.name} died"

    def _clients_of(self, process: Process) -> list[Client]:
        taken = process.kernel.taken
        return [client for client in self.world.clients if client.stream in taken]

    def _stopped_listening(self, port: Port, cause: str) -> None:
        assert port.local is not None, "it was bound"
        at = SocketAddress(*port.local)
        for queued in port.queue:
            for client in self.world.clients:
                if queued.peer is client.stream:
                    client.is_excused = f"the queue of {at} has ended"
        by_death = self._dying is not None and self._dying.is_dead and cause != "shut down"
        control = self.world.control
        if by_death and (control is None or control.plane is None):
            self._lost.add(at)
        elif port.queue and self._is_kept(at):
            self.world.violate(f"clients in a queue of {at} are reset, and it is served")

    def _is_kept(self, at: SocketAddress) -> bool:
        """Return whether no queue of an address may end, unless its last process dies."""
        plan, control = self.world.plan, self.world.control
        if control is None or control.is_ending or self.world.is_finishing:
            return False
        if len(plan.workers) > 1 or plan.descriptors < _MANY:
            # A queue that no worker is left for ends.
            return False
        if at in control.failures:
            # It is a late predecessor's.
            return False
        if control.plane is not None and (held := control.plane._listeners._by_key.get(at)):
            there = [each for each in self.world.desired if each.is_there]
            holder = [each for each in there if each.name == held.group.label]
            if any(each.serving.is_refusing for each in holder):
                # A Service that takes the address over in the same round does so afterwards.
                return False
        return self._is_to_listen(at)

    def _is_to_listen(self, at: SocketAddress) -> bool:
        there = [each for each in self.world.desired if each.is_there]
        return any(not each.serving.is_refusing for each in there if at in each.chosen)

    def _accepted(self, process: Process, client: Stream) -> None:
        """Excuse a client of a worker that hasn't read yet that there are endpoints now."""
        assert client.remote is not None, "it dialled an address"
        in_force = self._in_force.get(SocketAddress(*client.remote))
        if in_force is None or in_force.has_none or not _has_none(process, client):
            return
        if self.world.timeline.now - self._disturbed_at < _WAIT_S:
            (one,) = (each for each in self.world.clients if each.stream is client)
            one.is_excused = f"{process.name} was behind"

    def _refused(self, stream: Stream) -> None:
        """Take a client that no socket takes."""
        assert stream.remote is not None, "it dials an address"
        at = SocketAddress(*stream.remote)
        serving = self._in_force.get(at)
        if serving is None or serving.is_refusing or at in self._lost or self.world.is_finishing:
            return
        self.world.violate(f"{stream.name} was refused at {at}, which is served")

    def ended(self, client: Client, was: str) -> None:
        """Judge the end of a client's connection that the client didn't want."""
        if client.state == REFUSED or client.is_excused or self.world.is_finishing:
            return
        if self._broken_until >= client.dialled_at:
            return
        if self._changed_at.get(client.to, -1.0) >= client.dialled_at:
            return
        in_force = self._in_force.get(client.to)
        if in_force is None or in_force.has_none:
            return
        for process in self.world.machine.processes:
            if client.stream in process.kernel.taken and self._may_reset(process, client):
                return
        self.world.violate(f"{client.name} was reset while it {was}")

    def _may_reset(self, process: Process, client: Client) -> bool:
        """Return whether a worker drains, or serves as an earlier control process had it."""
        if is_draining(process):
            return True
        control = self.world.control
        if control is not None and process.parent is control.process:
            return False
        return _has_none(process, client.stream)

    # -- at rest -----------------------------------------------------------------------------------

    def sockets_and_states(self) -> None:
        """Check that what is in force is in each process, and nothing else."""
        world = self.world
        control = world.control
        if control is None or control.plane is None:
            world.violate("no control process runs")
            return
        plane = control.plane
        if not plane.has_all_workers:
            world.violate("a worker is missing at rest")
            return
        if problems := plane.state().problems:
            world.violate(f"problems at rest: {problems}")
        children = {slot.link.pid: slot.index for slot in plane._workers if slot.link is not None}
        for process in world.machine.alive(WORKER):
            if process.pid not in children:
                world.violate(f"{process.name} is left over")
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
            self.world.violate(f"{name} has groups {groups}, in force are {wanted}")
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
            self.world.violate(
                f"{name} has listeners {sorted(listeners)}, in force are {sorted(in_force)}"
            )
        copies = [f for f in process.kernel.files.values() if isinstance(f, TcpCopy | UdpCopy)]
        if len(copies) != len(listeners):
            self.world.violate(f"{name} has {len(copies)} ports for {len(listeners)} listeners")
        plain = sorted(f.name for f in process.kernel.files.values() if isinstance(f, PlainCopy))
        if plain != ["eventfd", "netlink socket"]:
            self.world.violate(f"{name} has {plain}")
        ends = [f for f in process.kernel.files.values() if isinstance(f, UnixEnd)]
        if len(ends) != 1:
            self.world.violate(f"{name} has {len(ends)} connections to control processes")

    def _check_control(self, plane: Any, process: Process) -> None:
        files = list(process.kernel.files.values())
        copies = [f for f in files if isinstance(f, TcpCopy | UdpCopy)]
        known = sum(
            len(listener.sockets.by_worker) + (listener.sockets._hold is not None)
            for listener in plane._listeners._open.values()
        )
        if len(copies) != known:
            self.world.violate(f"{process.name} has {len(copies)} ports, its listeners {known}")
        ends = sum(isinstance(f, UnixEnd) for f in files)
        if ends != len(plane._workers):
            self.world.violate(f"{process.name} has {ends} connections to workers")
        pidfds = sum(isinstance(f, Pidfd) for f in files)
        if pidfds != len(plane._workers):
            self.world.violate(f"{process.name} has {pidfds} pidfds")
        for child in self.world.machine.processes:
            if child.parent is process and child.is_dead and not child.is_reaped:
                self.world.violate(f"{child.name} was not waited for")
        plain = sum(isinstance(f, PlainCopy) for f in files)
        if plain != len(plane._workers) + 1:
            self.world.violate(f"{process.name} has {plain} eventfds and netlink sockets")
        if plane._listeners._leaving:
            self.world.violate(f"listeners are leaving at rest: {plane._listeners._leaving}")

    def _check_ports(self, plane: Any) -> None:
        known = {
            sock.core.shared
            for listener in plane._listeners._open.values()
            for sock in (*listener.sockets.by_worker.values(), listener.sockets._hold)
            if sock is not None
        }
        for port in self.world.machine.ports:
            if port not in known:
                self.world.violate(f"port {port.port} is left over")

    def clients_in_calm(self) -> None:
        """Check that each client was served, or refused."""
        world = self.world
        for number, client in enumerate(world.clients):
            if client.state in (DIALS, WAITS):
                world.violate(f"{client.name} still {client.state} at {client.to}")
            if number >= world.calm_clients:
                self._check_outcome(client.name, client.to, client.state, client.endpoint)
        for asker in world.askers[world.calm_askers :]:
            state = SERVED if asker.endpoint else REFUSED if asker.is_refused else WAITS
            self._check_outcome("a client of UDP", asker.to, state, asker.endpoint)

    def _check_outcome(self, name: str, at: SocketAddress, state: str, endpoint: str) -> None:
        serving = self._in_force.get(at)
        if serving is None or serving.is_refusing:
            if state != REFUSED:
                self.world.violate(f"{name} is {state} at {at}, which refuses")
        elif serving.has_none:
            # Clients of TCP wait, for a time; datagrams are dropped.
            if state not in (RESET, WAITS):
                self.world.violate(f"{name} is {state} at {at}, which has no endpoint")
        elif state not in (SERVED, ENDED):
            self.world.violate(f"{name} is {state} at {at}, which is served")
        elif endpoint not in {each.ip for each in serving.endpoints}:
            self.world.violate(f"{name} was served by {endpoint}, which {at} doesn't have")

    def look_at_clients(self) -> None:
        """Check that no client waits for a worker that is missing while another one runs."""
        world, now = self.world, self.world.timeline.now
        control = world.control
        if control is None or control.plane is None or control.failures:
            return
        runs = {slot.link.pid for slot in control.plane._workers if slot.link and slot.is_running}
        if runs != self._runs:
            self._runs = runs
            self.disturb(now)
        if not runs or now - self._disturbed_at < _WAIT_S or world.plan.descriptors < _MANY:
            return
        for client in world.clients:
            serving = self._in_force.get(client.to)
            if serving is None or serving.has_none or now - client.dialled_at < _WAIT_S:
                continue
            if client.state in (DIALS, WAITS):
                world.violate(f"{client.name} {client.state} although a worker runs")

    def note_pins(self) -> None:
        """Note which endpoints clients in calm had."""
        world = self.world
        self._pins = {(one.to, one.address[0]): one.endpoint for one in self._in_calm()}
        if world.control is not None:
            self._kept = world.control.kept.core.shared.cookie

    def _in_calm(self) -> list[Client | Asker]:
        """Return the clients that came when the node was last at rest."""
        world = self.world
        return [*world.clients[world.calm_clients :], *world.askers[world.calm_askers :]]

    def pins(self) -> None:
        """Check that clients of a Service with affinity have the same endpoints again.

        The socket that was kept must be the same, too.
        """
        world = self.world
        if world.control is not None and world.control.kept.core.shared.cookie != self._kept:
            world.violate("the socket that workers kept was lost")
        if world.plan.descriptors < _MANY:
            # A worker with more sockets than there is room for isn't adopted, nor are its pins.
            return
        for one in self._in_calm():
            serving = self._in_force.get(one.to)
            before = self._pins.get((one.to, one.address[0]), "")
            if serving is None or not serving.affinity_timeout_s or not before:
                continue
            if one.endpoint != before:
                world.violate(
                    f"a client of {one.to} had {before}, and has {one.endpoint} after a hand-over"
                )

    def at_end(self) -> None:
        """Check that nothing is left when the last control process has ended."""
        machine = self.world.machine
        for kind in (CONTROL, WORKER):
            for process in machine.alive(kind):
                self.world.violate(f"{process.name} still runs in the end")
        if machine.ports:
            self.world.violate(f"ports are left in the end: {[p.local for p in machine.ports]}")
        if machine.rendezvous:
            self.world.violate(f"rendezvous are left in the end: {list(machine.rendezvous)}")


def is_draining(process: Process) -> bool:
    """Return whether a worker was told to drain, or to end."""
    main = process.main
    return main is not None and (main._is_draining or main.ended.done())


def _has_none(process: Process, client: Stream) -> bool:
    """Return whether a worker knows of no endpoint where a client has dialled."""
    worker = process.main._worker
    return worker is not None and any(
        listener.group.serving.has_none
        for listener in worker._listeners.values()
        if listener.sock.core.local == client.remote
    )
