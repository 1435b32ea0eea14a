"""The state of removed Services is freed: an agent and its workers hold as little as new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...holdings import differences, holdings
from ...machine.files import WORKER
from .base import Invariant

if TYPE_CHECKING:
    from ..world import World

# Numbers that only grow, are identifiers, or count failures.
_NUMBERS = """
    Channel.read_bytes ClientPorts._port ConnectionLimit KernelPath._forgotten LastState._failures
    Listeners._numbers LogLimit NftablesProgrammer._earlier_refuse_port
    NftablesProgrammer._refuse_port NodeAddressDialer._counts Numbers._next
    PathProbes.failed PathProbes.sent Plan.revision Plane._numbers Planner.planned_services
    Position.restarts
    PreviousWorkers._max_sockets ProbeSchedule.per_second Reactor.turn Reflector._cuts
    Reflector._failures Requests._number Snapshot.revision SteeringFacts.refuse_port SyncCounters
    EarlierChains._seen SystemCalls.buffer_bytes TableWatch._seen Turns._number Watchdog._beats
    Worker._index
    WorkerProcess WorkerSlot._early_deaths WorkerSlot._reports WorkerSlot.restarts
    _LastListing.parsed _WorkerMain._index
"""
# Tables that are bounded, or cleaned up by the next change or reader.
_BOUNDED = """
    Correlator._series Series EarlierChains._earlier EarlierChains.filters KernelAnswers._traffic
    _Traffic
    KubernetesSource._logged_at NftablesProgrammer._left NftablesProgrammer._uses
    NftablesSteering._filters
    NodePortReservations PodNames._pods PreviousWorkers._taken Recorder._silent_until
    Supervisor._tasks Turns._last Turns._paces
"""
# Most state is freed after four seconds; demand is kept for 90 s.
_LOOKS_S = (4.0, 8.0, *(16.0,) * 6)


def held_by(world: World) -> Iterator[tuple[str, Counter[str]]]:
    """Yield the tables and counts of the running agent, and of each of its workers."""
    run = world.agent
    if run is not None:
        yield "agent", holdings(run.agent)
        for process in world.machine.alive(WORKER):
            yield "worker", holdings(process.main._worker)


class NothingHeld(Invariant):
    """Judges tables after all Services were removed, as the module describes."""

    NAME = "nothing held"

    def check_removed(self) -> None:
        world, left = self._world, [""]
        for seconds in _LOOKS_S:
            world.run_for(seconds)
            if not (left := self._left()):
                break
        self.check(not left, f"all was removed, but {left}")

    def _left(self) -> list[str]:
        world = self._world
        is_later = bool(world.agents) and world.agent is not world.agents[0]
        return [
            f"{what}: {difference}"
            for what, held in held_by(world)
            for difference in differences(
                held, world.held_by_new[is_later][what], _NUMBERS + _BOUNDED
            )
        ]
