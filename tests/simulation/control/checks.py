"""What must hold: while it runs, and at rest.

Rule 1: a client is refused, or reset, only for a reason that the plan has.
Rule 2: an excuse is about one client and one moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.worker_main import ORPHAN_S

from ..streams import Stream
from .clients import DIALS, ENDED, REFUSED, RESET, SERVED, SERVED_ONES, WAITS, Asker, Client
from .files import CONTROL, WORKER, Port
from .machine import Process
from .plan import ENDPOINTS

if TYPE_CHECKING:
    from .control import Desired
    from .world import World


# For a client to be served by a worker that runs, also if it reads its messages late.
_WAIT_S = 2.5
# Descriptors: with fewer no worker stands in for another one.
MANY = 100
# For a control process to end, and for another one to start.
_ENDS_S = 5.0
# For a dial that began while an endpoint was broken, and for one that was silent to be dialled
# again where no other one is left.
_DIAL_S, _QUIET_S = 3.5, 1.0

# A client may be reset when three dials were silent for a second each, as the product promises.
_DIALS, _SILENT_DIAL_S = 3, 1.0

# How long clients in calm have had to be served.
_SERVED_S = 3.0
_SILENT = "its endpoints were silent when last dialled"

SOON, KEPT = "clients are served soon", "pins last"
OUTCOME, LEFT = "outcome at rest", "nothing is left in the end"
SOCKET = "the socket is kept"
DRAINS = "those that drain receive nothing"
GONE = "clients of what is removed are reset"


class Checks:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._in_force: dict[SocketAddress, Serving] = {}
        """As the last control process has said."""
        self._earlier: dict[SocketAddress, list[tuple[float, Serving]]] = {}
        """What was in force before, and until when."""
        self._lost: set[SocketAddress] = set()
        """Where a port ended with its last process, or may have: it died in a round."""
        self._changed_at: dict[SocketAddress, float] = {}
        """When an address was last refusing, or closed, or was to be."""
        self._moved_at: dict[SocketAddress, float] = {}
        """When an address last became another Service's."""
        self._dying: Process | None = None
        self._runs: set[int] = set()
        """The workers of the last look that carry traffic."""
        self._disturbed_at = 0.0
        """When anything but a client last happened."""
        self._broken: dict[str, list[tuple[float, float]]] = {}
        """When endpoints were broken, by their IP address."""
        self._orphaned_at = 0.0
        """When a control process last ended."""
        self._kept = 0
        """The number of the socket that workers keep."""
        self._pins: dict[tuple[SocketAddress, str], str] = {}
        """By address and client: the endpoint that it had in calm."""
        world.machine.accepted = self._accepted
        world.machine.stopped_listening = self._stopped_listening
        world.machine.received = self._received
        world.machine.refused = self._refused

    # -- while it runs -----------------------------------------------------------------------------

    def disturb(self, until: float) -> None:
        """Note that clients may wait until then, and a while longer."""
        self._disturbed_at = max(self._disturbed_at, until)

    def note_broken(self, endpoint: SocketAddress, seconds: float) -> None:
        """Note that an endpoint is broken for a while, so its clients may be reset, or wait."""
        now = self.world.timeline.now
        self._broken.setdefault(endpoint.ip, []).append((now, now + seconds))

    def _was_broken(self, endpoint: SocketAddress, since: float) -> bool:
        """Return whether a dial since then may have failed."""
        return any(until + _QUIET_S >= since for _, until in self._broken.get(endpoint.ip, ()))

    def _is_without_endpoint(self, client: Client, serving: Serving) -> bool:
        """Return whether each endpoint was broken while a client tried them."""
        since = client.dialled_at - _WAIT_S
        return all(self._was_broken(endpoint, since) for endpoint in serving.endpoints)

    def _has_found_none(self, client: Client, serving: Serving) -> bool:
        """Return whether each endpoint was broken for as long as a client has tried them."""
        now = self.world.timeline.now
        return all(
            any(
                began <= client.dialled_at and now <= until
                for began, until in self._broken.get(endpoint.ip, ())
            )
            for endpoint in serving.endpoints
        )

    def note_moved(self, desired: Desired) -> None:
        """Note that addresses become another Service's, which earlier clients don't use."""
        self._moved_at.update(dict.fromkeys(desired.addresses, self.world.timeline.now))

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
            if before is not None and before != desired.serving:
                self._earlier.setdefault(at, []).append((self.world.timeline.now, before))
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
            client.is_excused = f"its {process.name.split()[0]} died"

    def _clients_of(self, process: Process) -> list[Client]:
        taken = process.kernel.taken
        return [client for client in self.world.clients if client.stream in taken]

    def _stopped_listening(self, port: Port, cause: str) -> None:
        assert port.local is not None, "it was bound"
        at = SocketAddress(*port.local)
        for queued in port.queue:
            for client in self.world.clients:
                if queued.peer is client.stream:
                    client.is_excused = "its queue has ended"
        by_death = self._dying is not None and self._dying.is_dead and cause != "shut down"
        control = self.world.control
        if by_death and (control is None or control.plane is None):
            self._lost.add(at)
        elif port.queue and self._is_kept(at) and not self._was_late(port):
            self.world.judgements.violate(
                SERVED_ONES, f"clients in a queue of {at} are reset, and it is served"
            )

    def _is_kept(self, at: SocketAddress) -> bool:
        """Return whether no queue of an address may end, unless its last process dies."""
        plan, control = self.world.plan, self.world.control
        if control is None or control.is_ending or self.world.is_finishing:
            return False
        if len(plan.workers) > 1 or plan.descriptors < MANY:
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

    def _was_late(self, port: Port) -> bool:
        """Return whether a worker that dies was stopped when it was asked for this port.

        The control process has other sockets there, and the queue of this one ends with the worker.
        """
        worker, control = self._dying, self.world.control
        if worker is None or not worker.is_dead or control is None:
            return False
        is_unknown = control.process not in port.known_to
        return is_unknown and worker.loop.held_until > self._orphaned_at

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
            one.is_excused = "its worker was behind"

    def _received(self, process: Process) -> None:
        """Judge that a datagram of a client is for a worker that doesn't drain."""
        main = process.main
        why = f"{process.name} drains, and receives a client's datagram"
        self.world.judgements.check(DRAINS, main is None or not main._is_draining, why)

    def _refused(self, stream: Stream) -> None:
        """Take a client that no socket takes."""
        assert stream.remote is not None, "it dials an address"
        at = SocketAddress(*stream.remote)
        serving = self._in_force.get(at)
        if serving is None or serving.is_refusing or at in self._lost or self.world.is_finishing:
            return
        self.world.judgements.violate(
            SERVED_ONES, f"{stream.name} was refused at {at}, which is served"
        )

    def ended(self, client: Client, was: str) -> None:
        """Judge the end of a client's connection that the client didn't want."""
        if client.state == REFUSED or self.world.is_finishing:
            return
        in_force = self._in_force.get(client.to)
        if in_force is None or in_force.has_none or self._has_found_none(client, in_force):
            self.world.judgements.right("clients without endpoint are reset")
        elif reason := self._excuse(client, in_force):
            self.world.judgements.excuse(SERVED_ONES, reason)
        else:
            self.world.judgements.violate(SERVED_ONES, f"{client.name} was reset while it {was}")

    def _excuse(self, client: Client, in_force: Serving) -> str:
        """Return why a client may be reset; empty if it may not."""
        if client.is_excused:
            return client.is_excused
        if self._changed_at.get(client.to, -1.0) >= client.dialled_at:
            return "refused or closed meanwhile"
        if self._is_without_endpoint(client, in_force):
            return "all endpoints broken"
        if self._has_had_its_time(client, in_force):
            return "its time has passed with silent endpoints"
        if self._moved_at.get(client.to, -1.0) >= client.dialled_at - _WAIT_S and any(
            self._was_broken(endpoint, client.dialled_at - _WAIT_S) for endpoint in ENDPOINTS
        ):
            return "an endpoint broken of the Service that had the address"
        for process in self.world.machine.processes:
            if client.stream not in process.kernel.taken:
                continue
            if self._may_reset(process, client):
                return "a worker that drains, or of an earlier control process"
            if self._is_quiet(process, client.dialled_at, in_force):
                client.is_excused = _SILENT
                return _SILENT
            if self._is_behind(process, client):
                return "its worker hasn't read yet that there are other endpoints"
        return ""

    def _is_behind(self, worker: Process, client: Client) -> bool:
        """Return whether a worker may have tried only what was in force until just now."""
        now = self.world.timeline.now
        since = now - self.world.ejections.delay_s
        for until, serving in self._earlier.get(client.to, ()):
            hold = serving.handling.hold
            patience_s = hold.seconds if hold is not None else _DIALS * _SILENT_DIAL_S
            is_over = now - client.dialled_at >= patience_s
            # A dial of an endpoint that has left goes on, so that no time may be left after it.
            began_at = since - _SILENT_DIAL_S if is_over else since
            is_recent = until >= began_at or began_at <= worker.loop.held_until >= until
            if is_recent and self._is_quiet(worker, client.dialled_at, serving):
                return True
        return False

    def _has_had_its_time(self, client: Client, serving: Serving) -> bool:
        """Return whether it may have dialled as many silent endpoints as a client has time for."""
        since = client.dialled_at - _WAIT_S
        broken = sum(self._was_broken(each, since) for each in serving.endpoints)
        patience_s = _DIALS * _SILENT_DIAL_S
        return broken >= _DIALS and self.world.timeline.now - client.dialled_at >= patience_s

    def _is_quiet(self, worker: Process, since: float, serving: Serving) -> bool:
        """Return whether each endpoint was broken, or is one that was silent when last dialled."""
        return all(
            self._was_broken(each, since - _WAIT_S) or self.world.ejections.is_quiet(worker, each)
            for each in serving.endpoints
        )

    def _may_reset(self, process: Process, client: Client) -> bool:
        """Return whether a worker drains, or serves as an earlier control process had it."""
        if is_draining(process):
            return True
        control = self.world.control
        if control is not None and process.parent is control.process:
            return False
        servings = _servings(process, client.stream)
        is_quiet = (self._is_quiet(process, client.dialled_at, each) for each in servings)
        return bool(servings) and all(is_quiet)

    # -- at rest -----------------------------------------------------------------------------------

    def clients_in_calm(self) -> None:
        """Check that each client was served, or refused."""
        world = self.world
        workers = world.machine.alive(WORKER)
        for number, client in enumerate(world.clients):
            if client.state in (DIALS, WAITS):
                world.judgements.violate(
                    OUTCOME, f"{client.name} still {client.state} at {client.to}"
                )
            if number >= world.calm_clients and client.is_excused == _SILENT:
                world.judgements.excuse(OUTCOME, _SILENT)
            elif number >= world.calm_clients:
                self._check_outcome(client.name, client.to, client.state, client.endpoint)
        for asker in world.askers[world.calm_askers :]:
            state = SERVED if asker.endpoint else REFUSED if asker.is_refused else WAITS
            serving = self._in_force.get(asker.to)
            if serving is not None and state == WAITS and not serving.has_none:
                since = world.timeline.now - _SERVED_S
                if any(self._is_quiet(worker, since, serving) for worker in workers):
                    world.judgements.excuse(OUTCOME, _SILENT)
                    continue
            self._check_outcome("a client of UDP", asker.to, state, asker.endpoint)

    def _check_outcome(self, name: str, at: SocketAddress, state: str, endpoint: str) -> None:
        serving = self._in_force.get(at)
        self.world.judgements.right(OUTCOME)
        if serving is None or serving.is_refusing:
            if state != REFUSED:
                self.world.judgements.violate(OUTCOME, f"{name} is {state} at {at}, which refuses")
        elif serving.has_none:
            # Clients of TCP wait, for a time; datagrams are dropped.
            if state not in (RESET, WAITS):
                self.world.judgements.violate(
                    OUTCOME, f"{name} is {state} at {at}, which has no endpoint"
                )
        elif state not in (SERVED, ENDED):
            self.world.judgements.violate(OUTCOME, f"{name} is {state} at {at}, which is served")
        elif endpoint not in {each.ip for each in serving.endpoints}:
            self.world.judgements.violate(
                OUTCOME, f"{name} was served by {endpoint}, which {at} doesn't have"
            )

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
        if not runs or now - self._disturbed_at < _WAIT_S or world.plan.descriptors < MANY:
            return
        for client in world.clients:
            if client.is_looked_at:
                continue
            serving = self._in_force.get(client.to)
            if serving is None:
                self._check_gone(client)
                continue
            if serving.has_none or now - client.dialled_at < _WAIT_S:
                continue
            if client.state not in (DIALS, WAITS):
                client.is_looked_at = True
                world.judgements.right(SOON)
            elif reason := self._why_waits(client, serving):
                client.is_looked_at = True
                world.judgements.excuse(SOON, reason)
            elif now - client.dialled_at >= _WAIT_S + self._dials_s(serving.endpoints, client):
                world.judgements.violate(
                    SOON, f"{client.name} {client.state} although a worker runs"
                )

    def _why_waits(self, client: Client, serving: Serving) -> str:
        """Return why a client may wait for longer; empty if it may not."""
        if self._is_without_endpoint(client, serving):
            return "all endpoints broken"
        if self._is_held_by_former(client):
            return "a worker of an earlier control process holds it"
        if self._moved_at.get(client.to, -1.0) >= client.dialled_at and _is_taken(client):
            return "it stays with the Service that had the address"
        return ""

    def _check_gone(self, client: Client) -> None:
        """Check that a client doesn't wait for long at what is served no more."""
        judgements, dials_s = self.world.judgements, self._dials_s(ENDPOINTS, client)
        if client.state == RESET:
            client.is_looked_at = True
            judgements.right(GONE)
        elif client.state != WAITS:
            return
        elif self.world.timeline.now - self._disturbed_at < _WAIT_S + dials_s:
            judgements.excuse(GONE, "its dials may be under way")
        else:
            why = f"{client.name} waits at {client.to}, which nothing serves any more"
            judgements.check(GONE, self._is_held_by_former(client), why)

    def _is_held_by_former(self, client: Client) -> bool:
        """Return whether a worker has it that learns of no other endpoints any more."""
        return any(
            client.stream in process.kernel.taken and self._may_reset(process, client)
            for process in self.world.machine.alive(WORKER)
        )

    def _dials_s(self, endpoints: Iterable[SocketAddress], client: Client) -> float:
        """Return how long dials of those endpoints that were broken may take."""
        since = client.dialled_at - _WAIT_S
        return _DIAL_S * sum(self._was_broken(each, since) for each in endpoints)

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
        if world.control is not None:
            is_same = world.control.kept.core.shared.cookie == self._kept
            world.judgements.check(SOCKET, is_same, "the socket that workers kept was lost")
        if world.plan.descriptors < MANY:
            # A worker with more sockets than there is room for isn't adopted, nor are its pins.
            return
        for one in self._in_calm():
            serving = self._in_force.get(one.to)
            before = self._pins.get((one.to, one.address[0]), "")
            if serving is None or not serving.affinity_timeout_s or not before:
                continue
            world.judgements.check(
                KEPT,
                one.endpoint == before,
                f"a client of {one.to} had {before}, and has {one.endpoint} after a hand-over",
            )

    def at_end(self) -> None:
        """Check that nothing is left when the last control process has ended."""
        machine = self.world.machine
        self.world.judgements.right(LEFT)
        for kind in (CONTROL, WORKER):
            for process in machine.alive(kind):
                self.world.judgements.violate(LEFT, f"{process.name} still runs in the end")
        if machine.ports:
            self.world.judgements.violate(
                LEFT, f"ports are left in the end: {[p.local for p in machine.ports]}"
            )
        if machine.rendezvous:
            self.world.judgements.violate(
                LEFT, f"rendezvous are left in the end: {list(machine.rendezvous)}"
            )


def is_draining(process: Process) -> bool:
    """Return whether a worker was told to drain, or to end."""
    main = process.main
    return main is not None and (main._is_draining or main.ended.done())


def _is_taken(client: Client) -> bool:
    """Return whether a worker has accepted a client."""
    processes = client.world.machine.processes
    return any(client.stream in process.kernel.taken for process in processes)


def _has_none(process: Process, client: Stream) -> bool:
    """Return whether a worker knows of no endpoint where a client has dialled."""
    return any(serving.has_none for serving in _servings(process, client))


def _servings(process: Process, client: Stream) -> list[Serving]:
    """Return how a worker serves where a client has dialled; mostly it is one, or none."""
    worker = process.main._worker
    listeners = () if worker is None else worker._listeners.values()
    return [each.group.serving for each in listeners if each.sock.core.local == client.remote]
