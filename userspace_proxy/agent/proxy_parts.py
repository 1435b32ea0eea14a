"""Defines the components of every proxy: workers, rounds and a source."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from ..clocks import Clocks
from ..cluster import Snapshot
from ..facts import (
    LAST_MINUTE_S,
    KernelFacts,
    KernelLackFacts,
    MemoryFacts,
    ProbesFacts,
    SourceFacts,
    StatusFacts,
    SteeringState,
    SyncFacts,
    facts_of_ignored,
)
from ..kernel.offers import NEEDS, KernelOffers
from ..plane import Plane
from ..plane.observation import Observation
from ..sources import Source
from ..steering import Steering
from .rounds.changes import Progress
from .rounds.component import Component
from .rounds.served_ports import ServedPorts
from .rounds.sync import SyncLoop
from .rounds.tasks import Supervisor, pause
from .rounds.wall_clock import NEVER, WallClock
from .view import show_totals

# The time limit for the first snapshot; sources usually take far less. Without a snapshot, clients
# that wait on recovered listeners should fail.
FIRST_SNAPSHOT_S = 10.0


class PlaneComponent(Component):
    """The data plane, which the agent starts before all components, and closes after them."""

    def __init__(
        self,
        plane: Plane,
        progress: Progress,
        observation: Observation,
        pause: Callable[[float], Awaitable[None]] = pause,
    ) -> None:
        self._plane = plane
        self._pause = pause
        self._progress = progress
        self._observation = observation

    async def start(self, supervisor: Supervisor) -> None:
        """Request observations while anything consumes them; limit waits on recovered listeners."""
        supervisor.start("observation", self._observation.run)
        if self._plane.has_recovered:
            supervisor.start("recovered listeners", self._limit_waits, restarts=False)

    async def _limit_waits(self) -> None:
        """Refuse clients that wait for the first plan if no snapshot arrives in time."""
        await self._pause(FIRST_SNAPSHOT_S)
        if self._progress.latest is None:
            self._plane.close_recovered()

    async def refresh(self) -> None:
        await self._plane.refresh()

    def show(self, facts: StatusFacts) -> None:
        state = self._plane.state()
        facts.descriptors, facts.descriptor_limit = state.descriptors, state.descriptor_limit
        facts.is_accepting = state.is_accepting
        facts.is_ready = self._progress.is_synced and state.is_running and not facts.is_draining
        facts.memory = MemoryFacts(*state.memory)
        facts.workers, facts.worker_problems = state.workers, state.problems
        show_totals(facts, state.totals)


class SyncComponent(Component):
    """The sync rounds, and the steering mechanism whose rules they write."""

    def __init__(
        self,
        sync: SyncLoop,
        served_ports: ServedPorts,
        steering: Steering,
        clock: WallClock | None = None,
    ) -> None:
        self._sync = sync
        self._served_ports = served_ports
        self._steering: Steering | None = steering
        self._clock = clock or WallClock()

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("sync", self._sync.run)

    def show(self, facts: StatusFacts) -> None:
        sync = self._sync
        self._clock.tick()
        facts.revision = sync.plan.revision
        facts.ignored = facts_of_ignored(sync.plan.ignored)
        facts.node_is_eligible = not sync.progress.node_is_being_deleted
        facts.steering = _facts_of_steering(self._steering, sync)
        facts.sync = _facts_of_sync(sync, self._clock, is_stopped=facts.is_draining)
        facts.probes = facts_of_probes(self._served_ports)

    async def close(self) -> None:
        """Stop showing the steering mechanism."""
        self._steering = None


class SourceComponent(Component):
    """The source of Services, which is read while the agent is running.

    Args:
        publish: Receives the source's snapshots; None if the source isn't read.
    """

    def __init__(self, source: Source, publish: Callable[[Snapshot], None] | None = None) -> None:
        self._source = source
        self._publish = publish

    async def start(self, supervisor: Supervisor) -> None:
        if (publish := self._publish) is not None:
            supervisor.start("source", lambda: self._source.run(publish))

    def show(self, facts: StatusFacts) -> None:
        source, status = self._source, self._source.status()
        facts.source = SourceFacts(
            source.kind,
            source.location,
            status.is_synced,
            status.problems,
            status.restarts,
            status.rejected,
        )


def facts_of_probes(served_ports: ServedPorts) -> ProbesFacts:
    """Return the facts about endpoint probes, which choose paths."""
    probes = served_ports.auto_paths.probes
    if not probes.is_open:
        return ProbesFacts()
    schedule = probes.schedule
    return ProbesFacts(
        len(schedule), schedule.interval_s, schedule.per_second, probes.sent, probes.failed
    )


def _facts_of_steering(steering: Steering | None, sync: SyncLoop) -> SteeringState:
    return SteeringState(
        name=steering.name if steering else "none",
        problem=sync.rules.problem,
        has_drifted=sync.rules.has_drifted,
        repairs=sync.counters.repairs,
        repaired_last_minute=sum(
            Clocks.monotonic() - at < LAST_MINUTE_S for at in sync.counters.repaired_at
        ),
        helper_restarts=steering.helper_restarts if steering else 0,
        unguarded=steering.unguarded if steering else "",
    )


def _facts_of_sync(sync: SyncLoop, clock: WallClock, *, is_stopped: bool) -> SyncFacts:
    """Return the facts about rounds, which have ended if ``is_stopped`` (in a drain)."""
    counters = sync.counters
    changes, in_force = counters.changes, counters.in_force
    return SyncFacts(
        rounds=counters.rounds,
        failures=counters.failures,
        partial_failures=counters.partial_failures,
        last_s=counters.last_s,
        last_queued=clock.unix(counters.last_queued or NEVER),
        last_done=clock.unix(counters.last_done or NEVER),
        waiting_since=clock.unix(counters.waiting_since or NEVER),
        service_changes=changes.services,
        service_changes_pending=changes.services - in_force.services,
        endpoint_changes=changes.endpoints,
        endpoint_changes_pending=changes.endpoints - in_force.endpoints,
        turned_s_ago=0.0 if is_stopped else sync.turned_s_ago,
        # If rules have drifted, the last round succeeded, so omit the problem here: the steering's
        # facts show it.
        problem="" if sync.rules.has_drifted else sync.rules.problem,
    )


def facts_of_kernel(kernel: KernelOffers) -> KernelFacts:
    """Return the kernel's release, and the features that are missing or weren't tested."""
    needs = ((name, NEEDS[name]) for name in kernel.missing())
    lacks = [
        KernelLackFacts(name, need.fails, need.instead, need.brings)
        for name, need in needs
        if need.fails
    ]
    forbidden = [name for name, need in NEEDS.items() if need.fails and name in kernel.untried]
    return KernelFacts(os.uname().release, lacks, forbidden, bool(kernel.unasked))
