"""What must hold of clients and workers while a run is under way.

Rule 1: a client is refused, or reset, only for a reason that the plan has.
Rule 2: an excuse is about one client and one moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

from ..streams import Stream
from .breaks import PATIENCE_S, SILENT_DIAL_S
from .clients import REFUSED, SERVED, SERVED_ONES, SILENT, STAY, Client
from .files import CONTROL, Port
from .holders import group_of, is_draining, may_reset
from .machine import Process
from .plan import EARLY_S, ENDPOINTS, WAIT_S

if TYPE_CHECKING:
    from .world import World

OWN = "clients are served by what they dialled"
DRAINS = "those that drain receive nothing"


class Checks:
    """The oracles of clients that workers have accepted."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.machine.accepted = self._accepted
        world.machine.received = self._received

    def dying(self, process: Process) -> None:
        """Excuse the clients of a process that dies."""
        world = self.world
        now, in_force = world.timeline.now, world.in_force
        in_force.disturb(now)
        if process.kind == CONTROL:
            in_force.note_death(process)
        elif process.status == 1 and process.main is not None:
            # One that is to drain ends with its last connection, not because it is alone.
            is_alone = not world.draining.has_begun(process)
            was_alone_s = now - in_force.alone_since if is_alone else 0.0
            if process.main._worker is not None and was_alone_s < world.orphan_s - EARLY_S:
                world.violate(f"{process.name} ended by itself")
        taken = process.kernel.taken
        for client in world.clients:
            if client.stream in taken:
                client.is_excused = f"its {process.name.split()[0]} died"

    def _accepted(self, process: Process, port: Port, client: Stream) -> None:
        """Excuse a client of a worker that hasn't read yet that there are endpoints now."""
        assert client.remote is not None, "it dialled an address"
        world = self.world
        world.came_at = world.timeline.now
        why = f"{process.name} drains, and accepts a client"
        world.judgements.check(DRAINS, not world.draining.has_begun(process), why)
        group = group_of(process, port)
        world.reporting.note_accepted(process, group, client)
        serving = world.in_force.at(SocketAddress(*client.remote))
        if serving is None or serving.has_none or not group.serving.has_none:
            return
        if world.timeline.now - world.in_force.disturbed_at < WAIT_S:
            (one,) = (each for each in world.clients if each.stream is client)
            one.is_excused = "its worker was behind"

    def _received(self, process: Process) -> None:
        """Judge that a datagram of a client is for a worker that doesn't drain."""
        # It may have been queued since the last worker died.
        self.world.came_at = self.world.timeline.now
        main = process.main
        why = f"{process.name} drains, and receives a client's datagram"
        self.world.judgements.check(DRAINS, main is None or not main._is_draining, why)

    def served(self, client: Client) -> None:
        """Judge by which endpoint a client is served: one of what it has dialled."""
        world = self.world
        serving, delay_s = world.in_force.at(client.to), world.ejections.delay_s
        if serving is None or world.is_finishing:
            return
        since = client.dialled_at - delay_s
        earlier = world.in_force.earlier.get(client.to, ())
        known = [serving, *(before for until, before in earlier if until >= since)]
        if world.in_force.has_moved(client.to, since):
            # It stays with its Service, which may have had other endpoints meanwhile.
            for name in world.in_force.names_since(client.to, since):
                known += world.in_force.servings_since(name, since)
        if any(client.endpoint == each.ip for one in known for each in one.endpoints):
            world.judgements.right(OWN)
        elif reason := self._why_another(client, since):
            world.judgements.excuse(OWN, reason)
        else:
            what = f"{client.name} was served by {client.endpoint}, which {client.to} doesn't have"
            world.judgements.violate(OWN, what)

    def _why_another(self, client: Client, since: float) -> str:
        """Return why another Service's endpoint may serve a client; empty if it may not."""
        world, control = self.world, self.world.control
        if world.in_force.has_changed(client.to, since):
            return "refused or closed meanwhile"
        for process in world.machine.processes:
            if client.stream not in process.kernel.taken:
                continue
            if control is None or process.parent is not control.process or is_draining(process):
                return "a worker that drains, or of an earlier control process"
            if process.loop.held_until >= since or control.process.loop.held_until >= since:
                return "its worker was behind"
        return ""

    def ended(self, client: Client, was: str) -> None:
        """Judge the end of a client's connection that the client didn't want."""
        world = self.world
        if client.state == REFUSED or world.is_finishing:
            return
        if was == SERVED:
            self.left(client, "was reset")
            return
        serving = world.in_force.at(client.to)
        if serving is None or serving.has_none or world.breaks.all_were_throughout(serving, client):
            world.judgements.right("clients without endpoint are reset")
        elif reason := self._excuse(client, serving):
            world.judgements.excuse(SERVED_ONES, reason)
        else:
            world.judgements.violate(SERVED_ONES, f"{client.name} was reset while it {was}")

    def left(self, client: Client, how: str) -> None:
        """Judge the end of a connection that was served: Services that close don't end it."""
        judgements = self.world.judgements
        if self.world.is_finishing:
            return
        if why := self._why_left(client):
            judgements.excuse(STAY, why)
        else:
            judgements.violate(STAY, f"{client.name} {how} while it was served")

    def _why_left(self, client: Client) -> str:
        """Return why a client that was served may be left; empty if it may not."""
        draining = self.world.draining
        for process in self.world.machine.processes:
            if client.stream not in process.kernel.taken:
                continue
            if _has_failed(process):
                return "its worker died"
            if draining.has_begun(process) and draining.may_reset(process):
                return "its worker has drained for as long as it may"
            if process.parent is not None and draining.ends(process.parent):
                return "its worker was to end"
        return ""

    def _excuse(self, client: Client, serving: Serving) -> str:
        """Return why a client may be reset; empty if it may not."""
        in_force, breaks = self.world.in_force, self.world.breaks
        if client.is_excused:
            return client.is_excused
        if in_force.has_changed(client.to, client.dialled_at):
            return "refused or closed meanwhile"
        if breaks.all_were(serving, client):
            return "all endpoints broken"
        # A dial of an endpoint that has left goes on.
        since = client.dialled_at - self.world.ejections.delay_s
        endpoints = in_force.endpoints_since(client.to, since)
        if breaks.took_all_time(endpoints, client):
            return "its time has passed with silent endpoints"
        has_moved = in_force.has_moved(client.to, client.dialled_at - WAIT_S)
        if has_moved and breaks.any_was(ENDPOINTS, client):
            return "an endpoint broken of the Service that had the address"
        for process in self.world.machine.processes:
            if client.stream not in process.kernel.taken:
                continue
            if may_reset(self.world, process, client):
                return "a worker that drains, or of an earlier control process"
            if breaks.all_were_quiet(process, client.dialled_at, serving):
                client.is_excused = SILENT
                return SILENT
            was_late = process.loop.held_until - client.dialled_at >= PATIENCE_S
            if was_late and breaks.any_was(endpoints, client):
                return "its time has passed while its worker was stopped"
            if self._is_behind(process, client, serving):
                return "its worker hasn't read yet that there are other endpoints"
        return ""

    def _is_behind(self, worker: Process, client: Client, now_serves: Serving) -> bool:
        """Return whether a worker may have tried only what was in force until just now."""
        now = self.world.timeline.now
        since = now - self.world.ejections.delay_s
        for until, serving in self.world.in_force.earlier.get(client.to, ()):
            hold = serving.handling.hold
            patience_s = hold.seconds if hold is not None else PATIENCE_S
            is_over = now - client.dialled_at >= patience_s
            if hold is not None and now_serves.handling.hold is None:
                # Its time for dials ends as ever, and nothing holds it then.
                is_over = self.world.returns.has_dialled_out(worker, client)
            # A dial of an endpoint that has left goes on, so that no time may be left after it.
            began_at = since - SILENT_DIAL_S if is_over else since
            is_recent = until >= began_at or began_at <= worker.loop.held_until >= until
            if not is_recent:
                continue
            if self.world.breaks.all_were_quiet(worker, client.dialled_at, serving):
                return True
        return False


def _has_failed(worker: Process) -> bool:
    """Return whether a worker was killed, or is about to end with an exit status that isn't 0."""
    if worker.is_dead:
        return bool(worker.status)
    return bool(worker.main.ended.done() and worker.main.ended.result())
