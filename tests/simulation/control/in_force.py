"""What is in force at each address: as the last control process has said, and before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

from .machine import Process

if TYPE_CHECKING:
    from .control import Desired
    from .world import World

# For a control process to end, and for another one to start.
_ENDS_S = 5.0


class InForce:
    """The addresses of one run, and when what they serve has changed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._now: dict[SocketAddress, Serving] = {}
        self._names: dict[SocketAddress, str] = {}
        """Of the Services that they are, or were last."""
        self._of_service: dict[str, list[tuple[float, Serving]]] = {}
        """By name: how it was served until when, and last."""
        self._had: dict[SocketAddress, list[tuple[float, str]]] = {}
        """Those that had them before, and until when."""
        self.earlier: dict[SocketAddress, list[tuple[float, Serving]]] = {}
        """What was in force before, and until when."""
        self.lost: set[SocketAddress] = set()
        """Where a port ended with its last process, or may have: it died in a round."""
        self._changed_at: dict[SocketAddress, float] = {}
        """See :meth:`changed_at`."""
        self._moved_at: dict[SocketAddress, float] = {}
        """When an address was last to become another Service's."""
        self.disturbed_at = 0.0
        """When anything but a client last happened."""
        self.alone_since = 0.0
        """When the last one ended that had waited for predecessors: they were its own then."""

    def at(self, address: SocketAddress) -> Serving | None:
        """Return how an address is served; None if nothing listens there."""
        return self._now.get(address)

    def names_since(self, address: SocketAddress, since: float) -> set[str]:
        """Return the names of the Services that have an address, or had it at any time since."""
        earlier = (name for until, name in self._had.get(address, ()) if until >= since)
        return {self._names.get(address, ""), *earlier}

    def servings_since(self, name: str, since: float) -> list[Serving]:
        """Return how a Service is served, or was last, and was at any time since then."""
        servings = self._of_service.get(name, ())
        return [serving for until, serving in servings if until >= since]

    def hold_s(self, name: str) -> float:
        """Return how long a Service that is there holds clients; 0 if it doesn't, or is gone."""
        holds = [
            each.serving.handling.hold
            for each in self._world.desired
            if each.is_there and each.name == name
        ]
        return sum(hold.seconds for hold in holds if hold is not None)

    def endpoints_since(self, address: SocketAddress, since: float) -> set[SocketAddress]:
        """Return those that an address has, or had at any time since then."""
        serving = self._now.get(address)
        earlier = (was for until, was in self.earlier.get(address, ()) if until >= since)
        servings = (*earlier, *(() if serving is None else (serving,)))
        return {endpoint for each in servings for endpoint in each.endpoints}

    def has_changed(self, address: SocketAddress, since: float) -> bool:
        """Return whether an address was refusing, or closed, or was to be, since then."""
        return self.changed_at(address) >= since

    def changed_at(self, address: SocketAddress) -> float:
        """Return when an address was last refusing, or closed, or was to be."""
        return self._changed_at.get(address, -1.0)

    def has_moved(self, address: SocketAddress, since: float) -> bool:
        """Return whether an address has become another Service's since then, or was to."""
        # A control process that is stopped has it follow late.
        moved = (until for until, _ in self._had.get(address, ()))
        return max(self._moved_at.get(address, -1.0), *moved, -1.0) >= since

    def is_to_listen(self, address: SocketAddress) -> bool:
        """Return whether a Service wants an address, and doesn't refuse."""
        there = [each for each in self._world.desired if each.is_there]
        return any(not each.serving.is_refusing for each in there if address in each.chosen)

    def disturb(self, until: float) -> None:
        """Note that clients may wait until then, and a while longer."""
        self.disturbed_at = max(self.disturbed_at, until)

    def note_moved(self, desired: Desired) -> None:
        """Note that addresses become another Service's, which earlier clients don't use."""
        self._moved_at.update(dict.fromkeys(desired.addresses, self._world.timeline.now))

    def note_wanted(self, desired: Desired) -> None:
        """Note that a Service is to be served in another way."""
        now = self._world.timeline.now
        self.disturb(now)
        for at in desired.addresses:
            if not _is_to_serve(desired, at):
                self._changed_at[at] = now

    def note_answer(self, desired: Desired, failures: set[SocketAddress]) -> None:
        """Note that the plane serves a Service from now on."""
        servings = self._of_service.setdefault(desired.name, [])
        if not servings or servings[-1][1] != desired.serving:
            if servings:
                servings[-1] = self._world.timeline.now, servings[-1][1]
            servings.append((math.inf, desired.serving))
        for at in desired.chosen:
            before = self._now.pop(at, None)
            if before is not None and before != desired.serving:
                self.earlier.setdefault(at, []).append((self._world.timeline.now, before))
            if at in failures or before is None or before.has_none or desired.serving.has_none:
                self._changed_at[at] = self._world.timeline.now
            if at not in failures:
                self._now[at] = desired.serving
                if (name := self._names.get(at, desired.name)) != desired.name:
                    self._had.setdefault(at, []).append((self._world.timeline.now, name))
                self._names[at] = desired.name
                self.lost.discard(at)

    def note_round(self) -> None:
        """Note that what isn't wanted is closed."""
        wanted = {at for each in self._world.desired if each.is_there for at in each.chosen}
        for at in [at for at in self._now if at not in wanted]:
            before = self._now.pop(at)
            self.earlier.setdefault(at, []).append((self._world.timeline.now, before))

    def note_end(self) -> None:
        """Note that the control process is about to close all groups."""
        now = self._world.timeline.now
        self._changed_at.update(dict.fromkeys(self._now, now))
        self._now.clear()
        self.disturb(now + _ENDS_S)

    def note_death(self, control: Process) -> None:
        """Note that a control process dies; what it was about to close may be lost with it."""
        assert control.is_dead, "it dies"
        if control.main.plane is not None:
            self.alone_since = self._world.timeline.now
        self.lost.update(at for at in self._now if not self.is_to_listen(at))


def _is_to_serve(desired: Desired, at: SocketAddress) -> bool:
    is_open = desired.is_there and at in desired.chosen
    return is_open and not desired.serving.has_none
