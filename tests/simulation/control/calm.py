"""What must hold of clients that come when the node is at rest, and what is left in the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from .clients import DIALS, ENDED, REFUSED, RESET, SERVED, SILENT, WAITS, Asker, Client
from .files import CONTROL, WORKER
from .plan import MANY

if TYPE_CHECKING:
    from .world import World

OUTCOME = "outcome at rest"
AFFINITY = "clients with affinity keep their endpoint"
ALONE = "workers serve on alone"
LEFT = "nothing is left in the end"

UNORDERED = "workers were missing, or of several control processes, when sockets were adopted"

# How long these clients have had to be served.
_SERVED_S = 3.0


class Calm:
    """The clients in calm of one run: those that came when the node was last at rest."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._first_client = self._first_asker = 0

    def begin(self) -> None:
        """Note that those that come from now on are clients in calm."""
        self._first_client = len(self._world.clients)
        self._first_asker = len(self._world.askers)

    @property
    def clients(self) -> list[Client]:
        """Those of TCP."""
        return self._world.clients[self._first_client :]

    @property
    def askers(self) -> list[Asker]:
        """Those of UDP."""
        return self._world.askers[self._first_asker :]

    @property
    def _all(self) -> list[Client | Asker]:
        return [*self.clients, *self.askers]

    def with_affinity(self) -> list[Client | Asker]:
        """Return those that were served, and are to have the same endpoint again."""
        served = [one for one in self._all if one.endpoint]
        servings = [(one, self._world.in_force.at(one.to)) for one in served]
        return [one for one, serving in servings if serving and serving.affinity_timeout_s]

    def other_addresses(self, one: Client | Asker) -> list[SocketAddress]:
        """Return where else a Service listens that a client with affinity has dialled."""
        world = self._world
        if world.plan.descriptors < MANY:
            # Its listeners may have fewer sockets than there are workers, each of which has pins.
            return []
        there = [each for each in world.desired if each.is_there and one.to in each.chosen]
        return [
            at for each in there for at in each.chosen if at != one.to and world.in_force.at(at)
        ]

    def check_again(self, before: Iterable[Client | Asker]) -> None:
        """Check that those that have dialled once more since had the same endpoint."""
        judgements = self._world.judgements
        last = {(one.to, one.address[0]): one for one in self._all}
        for one in before:
            for at in (one.to, *self.other_addresses(one)):
                again = last[at, one.address[0]].endpoint
                if again != one.endpoint and at != one.to and self.are_unordered(one, at):
                    judgements.excuse(AFFINITY, UNORDERED)
                    continue
                judgements.check(
                    AFFINITY,
                    again == one.endpoint,
                    f"a client of {one.to} had {one.endpoint}, and then {again or 'none'} at {at}",
                )

    def are_unordered(self, one: Client | Asker, *others: SocketAddress) -> bool:
        """Return whether the kernel may choose other workers at other addresses of a Service."""
        sharers, is_tcp = self._world.machine.sharers, isinstance(one, Client)
        return any(sharers[(to.ip, to.port), is_tcp].is_unordered for to in (one.to, *others))

    def check(self) -> None:
        """Check that each client was served, or refused."""
        judgements = self._world.judgements
        for number, client in enumerate(self._world.clients):
            if client.state in (DIALS, WAITS):
                judgements.violate(OUTCOME, f"{client.name} still {client.state} at {client.to}")
            if number >= self._first_client and client.is_excused == SILENT:
                judgements.excuse(OUTCOME, SILENT)
            elif number >= self._first_client:
                self._check_outcome(client.name, client.to, client.state, client.endpoint)
        for asker in self.askers:
            state = SERVED if asker.endpoint else REFUSED if asker.is_refused else WAITS
            if state == WAITS and self._is_quiet(asker):
                judgements.excuse(OUTCOME, SILENT)
            else:
                self._check_outcome("a client of UDP", asker.to, state, asker.endpoint)

    def _is_quiet(self, asker: Asker) -> bool:
        """Return whether a worker may have sent its datagram to an endpoint that was silent."""
        world = self._world
        serving = world.in_force.at(asker.to)
        if serving is None or serving.has_none:
            return False
        since = world.timeline.now - _SERVED_S
        workers = world.machine.alive(WORKER)
        return any(world.breaks.all_were_quiet(worker, since, serving) for worker in workers)

    def _check_outcome(self, name: str, at: SocketAddress, state: str, endpoint: str) -> None:
        judgements, serving = self._world.judgements, self._world.in_force.at(at)
        judgements.right(OUTCOME)
        if serving is None or serving.is_refusing:
            if state != REFUSED:
                judgements.violate(OUTCOME, f"{name} is {state} at {at}, which refuses")
        elif serving.has_none:
            # Clients of TCP wait, for a time; datagrams are dropped.
            if state not in (RESET, WAITS):
                judgements.violate(OUTCOME, f"{name} is {state} at {at}, which has no endpoint")
        elif state not in (SERVED, ENDED):
            judgements.violate(OUTCOME, f"{name} is {state} at {at}, which is served")
        elif endpoint not in {each.ip for each in serving.endpoints}:
            judgements.violate(OUTCOME, f"{name} was served by {endpoint}, which {at} doesn't have")

    def check_end(self) -> None:
        """Check that nothing is left when the last control process has ended."""
        machine, judgements = self._world.machine, self._world.judgements
        judgements.right(LEFT)
        for kind in (CONTROL, WORKER):
            for process in machine.alive(kind):
                judgements.violate(LEFT, f"{process.name} still runs in the end")
        if machine.ports:
            ports = [p.local for p in machine.ports]
            judgements.violate(LEFT, f"ports are left in the end: {ports}")
        if machine.rendezvous:
            judgements.violate(LEFT, f"rendezvous are left in the end: {list(machine.rendezvous)}")
