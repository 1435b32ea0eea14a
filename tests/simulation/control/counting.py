"""What must hold of counters: what a worker has reported stays counted."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from userspace_proxy.facts import EndpointCounters
from userspace_proxy.model import Protocol, SocketAddress

from .files import WORKER, UnixEnd

if TYPE_CHECKING:
    from userspace_proxy.plane import Group, Plane

    from .clients import Client
    from .world import World


COUNTED = "counted by endpoint"
SHOWN = "ejections are shown"
KEPT_COUNTS = "nothing counted is lost"
SERVED_COUNTS = "what was served is counted"
SHOWN_WAITS = "those that wait are shown"
READ = "last words are read"
FORMER = "nothing is open at former endpoints"
# Longer than any client waits, and than a worker takes to report that none does.
_NONE_WAITS_S = 15.0


class Counting:
    """The oracles of one run that look at counters."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.machine.left_unread = self._check_read
        self._counted: dict[tuple[str, int], tuple[int, ...]] = {}
        """By control process and group: what was counted at the last look."""
        self._before_calm: dict[int, int] = {}
        """By group: the connections before the clients in calm."""
        self._by_endpoint: dict[tuple[int, SocketAddress], tuple[int, int]] = {}
        """By group and endpoint: what was counted before the clients in calm."""

    def _check_read(self, end: UnixEnd) -> None:
        """Check that a control process has read what a worker of it wrote before its death."""
        reader, worker, control = end.process, end.was_connected_to, self.world.control
        if reader.is_dead or worker.parent is not reader or end.rendezvous is not None:
            return
        if control is None or control.is_ending or not worker.is_dead:
            return
        unread = sum(len(data) for data, _ in end.inbox)
        if unread and self.world.disturbances.has_read_nonsense(end):
            # It believes nothing that follows, and the worker has ended before it was killed.
            self.world.judgements.excuse(READ, "it sent nonsense before")
            return
        what = f"{reader.name} closes its connection to {worker.name}, of which {unread} bytes wait"
        self.world.judgements.check(READ, not unread, what)

    def look(self) -> None:
        """Check that nothing that was counted is forgotten; call it again and again."""
        control = self.world.control
        if control is None or control.plane is None:
            return
        plane, name = control.plane, control.process.name
        # ``totals`` adds all figures, which takes a tenth of a run.
        counted = {number: _figures(*group._parts()) for number, group in plane._groups.items()}
        counted[0] = _figures(plane._totals.endpoints)
        for number, figures in counted.items():
            before = self._counted.get((name, number), figures)
            # Mostly nothing has changed.
            is_kept = figures == before or all(map(operator.ge, figures, before))
            self.world.judgements.check(
                KEPT_COUNTS,
                is_kept,
                "" if is_kept else f"counted {before} of group {number}, then {figures}",
            )
            self._counted[name, number] = figures
        if self.world.timeline.now - self.world.came_at >= _NONE_WAITS_S:
            self._look_at_waits(plane)

    def _look_at_waits(self, plane: Plane) -> None:
        """Check that no client is shown as waiting, also by a worker that is gone."""
        for group in plane._groups.values():
            shown = group.waiting(self.world.timeline.now).clients
            why = f"{group.label}: {shown} clients are shown as waiting"
            self.world.judgements.check(SHOWN_WAITS, not shown, why)

    def note_calm(self) -> None:
        """Note what was counted before the clients in calm."""
        control = self.world.control
        if control is not None and control.plane is not None:
            groups = control.plane._groups.values()
            self._before_calm = {g.number: g.totals().connections for g in groups}
            self._by_endpoint = {
                (group.number, endpoint): _counted(group, endpoint)
                for group in groups
                for endpoint in group.serving.all_endpoints
            }

    def check_at_rest(self) -> None:
        """Check that what was served is counted, and that nothing is active at rest."""
        control = self.world.control
        if control is None or control.plane is None or self.world.machine.violations:
            return
        for group in control.plane._groups.values():
            listeners = control.plane._listeners._by_group[group]
            if any(listener.protocol is Protocol.UDP for listener in listeners):
                # Flows last for longer, but not those to endpoints that have left.
                self._check_former(group)
                continue
            at = {listener.address for listener in listeners}
            calm = self.world.calm.clients
            served = sum(bool(client.endpoint) for client in calm if client.to in at)
            totals = group.totals()
            counted = totals.connections - self._before_calm[group.number]
            self.world.judgements.check(
                SERVED_COUNTS,
                counted == served,
                f"{group.label}: {served} clients served, {counted} counted",
            )
            if group.waiting(self.world.timeline.now).clients:
                self.world.judgements.violate(SERVED_COUNTS, f"{group.label}: clients wait at rest")
            if not self.world.machine.violations:
                self._check_endpoints(group, [client for client in calm if client.to in at])
            if totals.active:
                self.world.judgements.violate(
                    SERVED_COUNTS, f"{group.label}: {totals.active} active connections at rest"
                )

    def _check_former(self, group: Group) -> None:
        """Check that the ends of flows to endpoints that have left are counted."""
        present = map(group.read_counters, group.serving.all_endpoints)
        left = group.totals().active - sum(counters.active for counters in present)
        why = f"{group.label}: {left} flows are counted as open to endpoints that have left"
        self.world.judgements.check(FORMER, not left, why)

    def _check_endpoints(self, group: Group, clients: list[Client]) -> None:
        """Check what is counted of each endpoint, and that it is shown as ejected if it is."""
        now = self.world.timeline.now
        shown = group.ejected(now)
        for endpoint in group.serving.all_endpoints:
            before = self._by_endpoint[group.number, endpoint]
            connections, failures = _counted(group, endpoint)
            served = sum(client.endpoint == endpoint.ip for client in clients)
            self.world.judgements.check(
                COUNTED,
                (connections, failures) == (before[0] + served, before[1]),
                f"{group.label}: {endpoint} served {served} clients and failed none at rest, "
                f"counted are {connections} and {failures} after {before}",
            )
            is_ejected = any(
                self.world.ejections.is_ejected(worker, group.number, endpoint)
                for worker in self.world.machine.alive(WORKER)
            )
            if is_ejected and endpoint not in shown and served:
                # A failure of one worker crossed an answer to another one.
                self.world.judgements.excuse(SHOWN, "it has answered since")
                continue
            self.world.judgements.check(
                SHOWN,
                (endpoint in shown) is is_ejected,
                f"{group.label}: {endpoint} is ejected in a worker: {is_ejected}, shown: {shown}",
            )


def _counted(group: Group, endpoint: SocketAddress) -> tuple[int, int]:
    """Return the connections to an endpoint and its failed dials, as all workers have reported."""
    counters = group.find_counters(endpoint)
    return (0, 0) if counters is None else (counters.connections, counters.failures)


def _figures(*parts: EndpointCounters) -> tuple[int, ...]:
    """Return the sums of figures that never fall."""
    return (
        sum(counters.connections for counters in parts),
        sum(counters.sent_bytes for counters in parts),
        sum(counters.received_bytes for counters in parts),
    )
