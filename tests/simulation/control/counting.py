"""What must hold of counters: what a worker has reported stays counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.facts import EndpointCounters
from userspace_proxy.model import Protocol

if TYPE_CHECKING:
    from .world import World


class Counting:
    """The oracles of one run that look at counters."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._counted: dict[tuple[str, int], tuple[int, ...]] = {}
        """By control process and group: what was counted at the last look."""
        self._before_calm: dict[int, int] = {}
        """By group: the connections before the clients in calm."""

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
            if any(now < then for now, then in zip(figures, before, strict=True)):
                self.world.violate(f"counted {before} of group {number}, then {figures}")
            self._counted[name, number] = figures

    def note_calm(self) -> None:
        """Note what was counted before the clients in calm."""
        control = self.world.control
        if control is not None and control.plane is not None:
            groups = control.plane._groups.values()
            self._before_calm = {g.number: g.totals().connections for g in groups}

    def check_at_rest(self) -> None:
        """Check that what was served is counted, and that nothing is active at rest."""
        control = self.world.control
        if control is None or control.plane is None or self.world.machine.violations:
            return
        for group in control.plane._groups.values():
            listeners = control.plane._listeners._by_group[group]
            if any(listener.protocol is Protocol.UDP for listener in listeners):
                # Flows last for longer.
                continue
            at = {listener.address for listener in listeners}
            calm = self.world.clients[self.world.calm_clients :]
            served = sum(bool(client.endpoint) for client in calm if client.to in at)
            totals = group.totals()
            counted = totals.connections - self._before_calm[group.number]
            if counted != served:
                self.world.violate(f"{group.label}: {served} clients served, {counted} counted")
            if group.waiting(self.world.timeline.now).clients:
                self.world.violate(f"{group.label}: clients wait at rest")
            if totals.active:
                self.world.violate(f"{group.label}: {totals.active} active connections at rest")


def _figures(*parts: EndpointCounters) -> tuple[int, ...]:
    """Return the sums of figures that never fall."""
    return (
        sum(counters.connections for counters in parts),
        sum(counters.sent_bytes for counters in parts),
        sum(counters.received_bytes for counters in parts),
    )
