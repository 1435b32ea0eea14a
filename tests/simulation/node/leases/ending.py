"""The end of a run: failures stop, clients leave, workloads rest, and a last client wakes each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clients import CONNECTED
from .truth import forbids, holder_of
from .workloads import Workload

if TYPE_CHECKING:
    from .world import World

# The figures of a node are as old as 30 s, and those of the holder as 15 s.
_STEADY_S = 56.0
# A report of workers, of nodes and of the holder; a round; and the next look after a failed one.
_REST_S = 20.0
# After a failure a step is repeated after 60 s; the Lease of a holder that died is free after 55 s.
_TROUBLE_S = 130.0
# Until all know of a Node without a proxy.
_UNKNOWN_S = 75.0
_WAKE_S = 60.0
# Until pods have ended, and slices say so.
_ENDED_S = 40.0
_PATIENCE_S = 280.0
_FORBIDDEN = "its node may not write Events"


class Ending:
    """What follows the steps of a plan."""

    def __init__(self, world: World) -> None:
        self.world = world

    def run(self) -> None:
        """Carry it out."""
        world = self.world
        world.be_well()
        if world.plan.has_steady_end:
            self._compare()
        self._rest()
        if self._unknown and not world.violations:
            world.run_until(world.now + _UNKNOWN_S)
        self._wake()

    def _compare(self) -> None:
        """Have clients stay until the sums are right."""
        world = self.world
        self._leave()
        services = [spec for spec in world.plan.services if spec.hold_s]
        for number, spec in enumerate(services * 2):
            world.begin_client(number, spec.key, 1000.0, _PATIENCE_S)
        start = max(world.now, world.checks.known.calm_at)
        world.run_until(start + _STEADY_S + (_TROUBLE_S if self._was_troubled else 0.0) + 10.0)
        if not world.violations:
            world.checks.sums.compare()

    @property
    def _was_troubled(self) -> bool:
        known = self.world.checks.known
        return known.calm_at > self.world.began

    def _leave(self) -> None:
        """Have all clients leave."""
        for client in self.world.open_clients:
            if client.state == CONNECTED and client.worker is not None:
                client.worker.leave(client)
            else:
                client.stay_s = 0.0

    def _rest(self) -> None:
        world, known = self.world, self.world.checks.known
        self._leave()
        world.run_until(max(world.now, known.calm_at))
        due = [*self._resting(only_due=False), *self._kept(only_due=False)]
        idle_s = max((known.rights(w).longest_idle_s for w in due), default=0.0)
        extra_s = _TROUBLE_S + 2 * world.plan.drain_s if self._was_troubled else 0.0
        until = world.now + 2 * idle_s + _REST_S + extra_s
        while world.now < until and (self._resting() or self._kept()) and not world.violations:
            world.run_until(min(until, world.now + 5.0))
        if world.violations:
            return
        for workload in self._resting(only_due=False):
            text = f"{workload} has {workload.replicas} replica, and no client"
            world.checks.judge("rest", workload.replicas != 1, text)
        for workload in self._kept(only_due=False):
            found = self._says_so(workload)
            text = f"no Event says what keeps {workload} awake"
            excuses = {_FORBIDDEN: self._is_holder_silent(workload)}
            world.checks.judge("Event of what keeps awake", found, text, excuses)

    def _resting(self, *, only_due: bool = True) -> list[Workload]:
        """Return the workloads that are to rest, or those of them that don't yet."""
        found = [w for w in self._wanted if not self._is_kept(w)]
        return [workload for workload in found if workload.replicas == 1 or not only_due]

    def _kept(self, *, only_due: bool = True) -> list[Workload]:
        """Return workloads that something keeps awake, or those of which no Event says so yet."""
        found = [w for w in self._wanted if w.replicas == 1 and self._is_kept(w)]
        return [workload for workload in found if not (only_due and self._says_so(workload))]

    @property
    def _wanted(self) -> list[Workload]:
        """The workloads that Services ask to rest."""
        known = self.world.checks.known
        found = self.world.workloads.all.values()
        return [] if self._unknown else [w for w in found if known.rights(w).asks_for_rest]

    def _is_kept(self, workload: Workload) -> bool:
        others = self.world.checks.known.rights(workload).others
        return bool(others) or any(forbids(self.world.workloads.others, workload.spec))

    def _says_so(self, workload: Workload) -> bool:
        keys = {wish.key for wish in self.world.checks.known.rights(workload).asked}
        return any(self.world.checks.waits.has_event(key, "StaysAwake") for key in keys)

    def _is_holder_silent(self, workload: Workload) -> bool:
        """Return whether the holder was forbidden to write Events of a workload's Services."""
        checks = self.world.checks
        holder = holder_of(checks.lease("holder")).partition("_")[0]
        return bool(holder) and checks.known.sends_no_events(holder, workload.spec.namespace)

    @property
    def _unknown(self) -> bool:
        """Whether a Node has no proxy."""
        names = {node.name for node in self.world.nodes}
        return any(n["metadata"]["name"] not in names for n in self.world.etcd.items("nodes"))

    def _wake(self) -> None:
        """Have one more client wake each workload that rests."""
        world, known = self.world, self.world.checks.known
        until = world.now + _ENDED_S
        while world.now < until and (self._serves_at_zero() or self._is_unheard):
            if world.violations:
                return
            world.run_until(min(until, world.now + 1.0))
        clients = []
        if (fails_s := world.plan.fails_wakes_s) > 0.0:
            for resource in ("deployments", "statefulsets"):
                world.server.refuse(500, fails_s, resource=resource)
        for workload in world.workloads.all.values():
            asked = known.rights(workload).asked
            # Where clients wait for less, pods may come too late.
            asked = tuple(wish for wish in asked if wish.hold_s >= _WAKE_S)
            if workload.replicas == 0 and asked:
                wish = world.rng.choice(asked)
                node = world.rng.randrange(len(world.nodes))
                clients.append(world.begin_client(node, wish.key, 1.0, _PATIENCE_S))
        until = world.now + _WAKE_S
        has_event = world.checks.waits.has_event
        while world.now < until and not all(
            client.pod and has_event(client.service, "NeedPods") for client in clients
        ):
            if world.violations:
                return
            world.run_until(min(until, world.now + 5.0))
        for client in clients:
            text = f"{client} wasn't served within {_WAKE_S:g} s"
            world.checks.judge("woken in time", client.pod is not None, text)
            found = world.checks.waits.has_event(client.service, "NeedPods")
            text = f"{client} waited, and no Event said so"
            excuses = {
                world.checks.excused.get(client, ""): client in world.checks.excused,
                _FORBIDDEN: known.sends_no_events(client.node, client.service),
            }
            world.checks.judge("Event of a client that waits", found, text, excuses)

    @property
    def _is_unheard(self) -> bool:
        """Whether nodes may not know yet what a Service asks for.

        A node that knows a Service without `hold` refuses a client, which then waits for nothing.
        """
        known = self.world.checks.known
        return any(known.changed_at(key) > known.floor for key in known.wishes)

    def _serves_at_zero(self) -> bool:
        """Return whether pods still end of a workload that someone else has scaled to zero.

        No node has promised anything about them: they take clients, which don't wait.
        """
        workloads = self.world.workloads.all.values()
        asleep = self.world.checks.asleep
        return any(w.pods for w in workloads if w.replicas == 0 and w not in asleep)
